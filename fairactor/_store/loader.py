"""Loads the Lua scripts: inserts included parts, key names, constants, and the flags that the server supports.

``-- @include PATH`` is replaced by that part, once in each script, and ``-- @hook PLACE`` by the Lua of plugins.
``-- @scope`` makes the rest of the script a nested function. ``-- @takes NAME from PART`` only tells readers, and a
test, where a name comes from.

Redis runs a script from its first line with each call, and most of that time goes into creating functions. For each
outer local that a function uses, Lua walks a list of all locals that are used in this way. Two things keep the list
short: names in capitals (the keys of `keys.py`, and locals that are set to literals) are replaced by their values, and
scopes divide the script. Both also help with Lua's limit of 200 locals in a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

import attrs

from fairactor._model import keys

from .library import to_library
from .plugin_lua import NO_PLUGIN_LUA, PluginLua, replace_constants

_INCLUDE: Final = re.compile(r"^( *)-- @include (\S+)$", re.MULTILINE)
_HOOK: Final = re.compile(r"^( *)-- @hook (\w+)$", re.MULTILINE)
_SCOPE: Final = re.compile(r"^-- @scope$", re.MULTILINE)

# Scripts that must run even if the server's memory is full: those that free memory or release somebody who waits, those
# that only read, and those that a worker needs to start. Except for results that are kept, each frees at least as much
# memory as it writes.
_RUN_WITHOUT_MEMORY: Final = {
    *("turn", "tend", "leave", "cancel", "purge", "join", "open", "watch", "stats", "health", "inspect", "mend"),
    *("letters", "pieces", "discard", "configure", "review", "policies", "renew", "declare", "fill", "sort", "expire"),
    *("limit", "limits", "declare_limits", "reopen", "charge", "mend_places", "mend_rings"),
    *("tasks", "details", "index_letters", "forget"),
    *("depart", "welcome", "export", "exported", "past", "grow", "lead"),
}


_AS_FUNCTIONS: Final = {"send", "turn"}
"""Scripts that are called so often that they are loaded as functions, too."""


@attrs.frozen
class Script:
    """A script as it is sent to the server: its text, and the digest that identifies it there."""

    name: str
    text: str
    sha: str
    function: str = ""
    """The name of the function that does the same, and of its library; '' if there is none."""
    library: Callable[[], str] = str
    """Returns the text of that library."""


def source(path: str) -> str:
    """Returns a Lua file of this package with its includes inserted, each once."""
    return _include(_read(path))


def _include(text: str) -> str:
    seen: set[str] = set()

    def expand(match: re.Match[str]) -> str:
        indent, included = match.groups()
        if included in seen:
            return ""
        seen.add(included)
        return _indented(_INCLUDE.sub(expand, _read(included)), indent)

    return _INCLUDE.sub(expand, text)


def _indented(text: str, indent: str) -> str:
    return indent + text.replace("\n", "\n" + indent) if indent else text


@cache
def load(name: str, *, flags: bool, plugins: PluginLua = NO_PLUGIN_LUA) -> Script:
    """Loads a script.

    Args:
        name: the name of the script; those of plugins are ``plugin/script``.
        flags: whether the server supports script flags (Redis 7 and Valkey do).
        plugins: the Lua of plugins.
    """
    shebang, opening = "", ""
    if flags:
        shebang = "#!lua flags=allow-oom\n" if name in _RUN_WITHOUT_MEMORY else "#!lua\n"
    elif name in _RUN_WITHOUT_MEMORY:
        opening = "redis.pcall('HDEL', META, '')\n"  # after a write that needs no memory, Redis 6.2 allows all others
    text = _include(plugins.script(name)) if "/" in name else source(f"{name}.lua")
    text = _HOOK.sub(lambda hook: _indented(plugins.at_hook(hook[2]), hook[1]), opening + text)
    constants = {"PLUGINS": repr(plugins.plugins), "PLUGIN_TYPES": plugins.key_types}
    resolved = "local meta = KEYS[1]\n" + replace_constants(text, keys.lua_names() | constants)
    text = shebang + _nest_scopes(resolved)
    sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
    function = f"fairactor_{name}_{sha[:16]}" if name in _AS_FUNCTIONS else ""
    allowed = ["allow-oom"] if name in _RUN_WITHOUT_MEMORY else []
    return Script(name, text, sha, function, cache(lambda: to_library(function, resolved, allowed)))


def _nest_scopes(text: str) -> str:
    """Makes scopes functions."""
    nested, scopes = _SCOPE.subn("return (function()", text)
    return nested + "end)()\n" * scopes


@cache
def _read(path: str) -> str:
    return (files("fairactor") / "lua" / path).read_text(encoding="utf-8")


NAMES: Final = tuple(
    sorted(
        file.name.removesuffix(".lua") for file in (files("fairactor") / "lua").iterdir() if file.name.endswith(".lua")
    )
)
"""The names of the transitions, the scripts of this package. Each is a file."""
