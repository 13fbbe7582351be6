"""What plugins add to the scripts: Lua at the places that these have for it, and scripts of their own."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

import attrs

from .constants import put_in
from .errors import ConfigurationError
from .keys import plugin_prefix

_MINE: Final = "local mine = shared['{plugin}'] or share('{plugin}')\n"

HOOKS: Final = {
    "sent": (
        "local data = extra['{plugin}']\nif data then\ndepend_on('{plugin}')\n"
        + _MINE
        + "local function hold(keep) holder, kept = '{plugin}', keep or '' end\n{text}\nend"
    ),
    "ended": ("local data = extra and extra['{plugin}']\nif data then depend_on('{plugin}') end\n" + _MINE + "{text}"),
    "ends": _MINE + "{text}",
}
"""The places, and how a text stands there; docs/write-a-plugin.md says what it has at hand."""


@attrs.frozen(cache_hash=True)  # each call of a script looks it up by these
class Extensions:
    """The Lua of some plugins."""

    hooks: tuple[tuple[str, str, str], ...] = ()
    """Place, plugin, text; in the order of the plugins."""
    scripts: tuple[tuple[str, str, str], ...] = ()
    """Name, plugin, text; the name is ``plugin/script``."""

    @property
    def plugins(self) -> str:
        """The names of these plugins, as scripts compare them."""
        names = {plugin for _, plugin, _ in (*self.hooks, *self.scripts)}
        return f",{','.join(sorted(names))},"

    def at(self, place: str) -> str:
        """What stands at a place."""
        return "\n".join(
            f"do\n{HOOKS[place].format(plugin=plugin, text=_own(text, plugin))}\nend"
            for where, plugin, text in self.hooks
            if where == place
        )

    def script(self, name: str) -> str:
        """The text of a script.

        Raises:
            ConfigurationError: there is none of that name.
        """
        for known, plugin, text in self.scripts:
            if known == name:
                return _own(text, plugin)
        names = ", ".join(known for known, _, _ in self.scripts) or "none"
        raise ConfigurationError(f"there is no script {name!r}; of the plugins here there are: {names}")


NONE: Final = Extensions()

_OWN_PART: Final = re.compile(r"^-- @include own/(\w+)\.lua$", re.MULTILINE)


def read_lua(package: str, name: str) -> str:
    """A text of a plugin, ``lua/NAME.lua`` of its package; ``-- @include own/PART.lua`` is replaced by another one."""
    text = (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return _OWN_PART.sub(lambda part: read_lua(package, part[1]), text)


def _own(text: str, plugin: str) -> str:
    """A plugin's text with its constants, its name and the prefix of its keys in place: they are nobody else's."""
    return put_in(text, {"OWN": plugin_prefix(plugin), "SELF": f"'{plugin}'"})
