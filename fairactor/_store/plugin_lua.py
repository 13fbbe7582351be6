"""The Lua of plugins: code at the hooks of fairactor's scripts, and complete scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from fairactor._model.keys import plugin_prefix
from fairactor.errors import ConfigurationError

_MINE: Final = "local mine = shared['{plugin}'] or share('{plugin}')\n"

HOOKS: Final = {
    "sent": (
        "local data = extra['{plugin}']\nif data then\ndepend_on('{plugin}')\n"
        + _MINE
        + "local function hold(keep) holder, kept = '{plugin}', keep or '' end\n{text}\nend"
    ),
    "ended": ("local data = extra and extra['{plugin}']\nif data then depend_on('{plugin}') end\n" + _MINE + "{text}"),
    "ends": _MINE + "{text}",
    "departs": _MINE + "{text}",
}
"""The hooks, and the Lua around a plugin's text. docs/write-a-plugin.md lists the names that the text can use."""


@attrs.frozen(cache_hash=True)  # each call of a script looks the script up by this object
class PluginLua:
    """The Lua of the plugins of a runtime."""

    hooks: tuple[tuple[str, str, str], ...] = ()
    """(hook, plugin, text), in the order of the plugins."""
    scripts: tuple[tuple[str, str, str], ...] = ()
    """(name, plugin, text); the name is ``plugin/script``."""

    keys: tuple[tuple[str, str, str], ...] = ()
    """(plugin, key, type): the types of the plugins' keys. A key that ends in ``*`` stands for all that begin so."""

    @property
    def key_types(self) -> str:
        """The types of the plugins' keys, as a Lua table of {plugin, key, whether it is a prefix, type}."""
        entries = (
            f"{{ {plugin!r}, {key.removesuffix('*')!r}, {str(key.endswith('*')).lower()}, {kind!r} }}"
            for plugin, key, kind in self.keys
        )
        return f"{{ {', '.join(entries)} }}"

    @property
    def plugins(self) -> str:
        """The names of these plugins, in the form that scripts compare."""
        names = {plugin for _, plugin, _ in (*self.hooks, *self.scripts)}
        return f",{','.join(sorted(names))},"

    def at_hook(self, name: str) -> str:
        """Returns the Lua of all plugins at a hook."""
        return "\n".join(
            f"do\n{HOOKS[name].format(plugin=plugin, text=_with_own_constants(text, plugin))}\nend"
            for hook, plugin, text in self.hooks
            if hook == name
        )

    def script(self, name: str) -> str:
        """Returns the text of a plugin's script.

        Raises:
            ConfigurationError: no plugin has this script.
        """
        for known, plugin, text in self.scripts:
            if known == name:
                return _with_own_constants(text, plugin)
        names = ", ".join(known for known, _, _ in self.scripts) or "none"
        raise ConfigurationError(f"there is no script {name!r}; the scripts of the plugins are: {names}")


NO_PLUGIN_LUA: Final = PluginLua()

_OWN_PART: Final = re.compile(r"^-- @include own/(\w+)\.lua$", re.MULTILINE)


def read_lua(package: str, name: str) -> str:
    """Reads ``lua/NAME.lua`` of a plugin's package; replaces ``-- @include own/PART.lua`` by ``lua/PART.lua``."""
    from importlib.resources import files

    text = (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return _OWN_PART.sub(lambda part: read_lua(package, part[1]), text)


def _with_own_constants(text: str, plugin: str) -> str:
    """Replaces the constants of a plugin's text, and ``OWN`` and ``SELF``, so no other text can see them."""
    return replace_constants(text, {"OWN": plugin_prefix(plugin), "SELF": f"'{plugin}'"})


_LITERAL: Final = r"(?:\d[\d.e]*|'[^'\n]*')"
_CONSTANTS: Final = re.compile(
    rf"^ *local ([A-Z][A-Z_]*(?:, [A-Z][A-Z_]*)*) = ({_LITERAL}(?:, {_LITERAL})*)(?: *--.*)?$", re.MULTILINE
)
_TOKEN: Final = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|\b[A-Z][A-Z_]*\b")


def replace_constants(text: str, given: Mapping[str, str]) -> str:
    """Replaces names in capitals by their values: the given ones, and locals that the text sets to literals.

    Raises:
        ValueError: a constant has two values.
    """
    known = dict(given)
    for names, values in _CONSTANTS.findall(text):
        for name, value in zip(names.split(", "), values.split(", "), strict=True):
            if known.setdefault(name, value) != value:
                raise ValueError(f"{name} is {known[name]} and {value}")
    return _TOKEN.sub(lambda token: known.get(token[0], token[0]), _CONSTANTS.sub("", text))
