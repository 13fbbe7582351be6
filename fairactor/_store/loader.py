"""Loads the Lua scripts: puts in what they include, the key names and the constants, and flags for the server at hand.

A script runs from its first line with every call, and there making its functions costs most. Lua finds a local of the
main part that a function uses by walking along all that are used so, so few are left: names in capitals are replaced by
what they stand for, the keys of `keys.py` and locals that are set to literals, and what follows a line ``-- @scope`` is
a function of its own, which has what comes before it at hand. That also leaves room: a function has 200 locals at most.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

import attrs

from fairactor._model import keys

from .plugin_lua import NO_PLUGIN_LUA, PluginLua, replace_constants

_INCLUDE: Final = re.compile(r"^ *-- @include (\S+)$", re.MULTILINE)
_HOOK: Final = re.compile(r"^ *-- @hook (\w+)$", re.MULTILINE)
_SCOPE: Final = re.compile(r"^-- @scope$", re.MULTILINE)

# Scripts that free memory or free someone who waits, and so must run when the server's memory is full.
# Each frees at least as much as it writes, but for a result that is kept. Those that only look, and what a worker
# needs to begin with, must run, too.
_RUN_WITHOUT_MEMORY: Final = {
    *("turn", "tend", "leave", "cancel", "purge", "join", "open", "watch", "stats", "inspect", "mend", "letters"),
    *("discard", "configure", "review", "policies"),
}


@attrs.frozen
class Script:
    """A script as it is sent: its text and the digest by which the server knows it."""

    name: str
    text: str
    sha: str


def source(path: str) -> str:
    """The text of a Lua file of this package, with its includes in place, each once."""
    return _include(_read(path))


def _include(text: str) -> str:
    seen: set[str] = set()

    def expand(match: re.Match[str]) -> str:
        included = match[1]
        if included in seen:
            return ""
        seen.add(included)
        return _INCLUDE.sub(expand, _read(included))

    return _INCLUDE.sub(expand, text)


@cache
def load(name: str, *, flags: bool, plugins: PluginLua = NO_PLUGIN_LUA) -> Script:
    """A script.

    Args:
        name: which; those of plugins are named ``plugin/script``.
        flags: whether the server knows script flags (Redis 7, Valkey).
        plugins: what plugins add.
    """
    shebang, opening = "", ""
    if flags:
        shebang = "#!lua flags=allow-oom\n" if name in _RUN_WITHOUT_MEMORY else "#!lua\n"
    elif name in _RUN_WITHOUT_MEMORY:
        opening = "redis.call('HDEL', META, '')\n"  # Redis 6.2 refuses none after a write that takes no memory
    text = _include(plugins.script(name)) if "/" in name else source(f"{name}.lua")
    text = _HOOK.sub(lambda hook: plugins.at_hook(hook[1]), opening + text)
    text = f"{shebang}local meta = KEYS[1]\n{_resolve(text, PLUGINS=repr(plugins.plugins))}"
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _resolve(text: str, **constants: str) -> str:
    """The text with names in capitals replaced by what they stand for, and with its scopes made functions.

    Raises:
        ValueError: a constant has two values.
    """
    resolved = replace_constants(text, keys.lua_names() | constants)
    resolved, scopes = _SCOPE.subn("return (function()", resolved)
    return resolved + "end)()\n" * scopes


@cache
def _read(path: str) -> str:
    return (files("fairactor") / "lua" / path).read_text(encoding="utf-8")


NAMES: Final = tuple(
    sorted(
        file.name.removesuffix(".lua") for file in (files("fairactor") / "lua").iterdir() if file.name.endswith(".lua")
    )
)
"""The transitions, a file each."""
