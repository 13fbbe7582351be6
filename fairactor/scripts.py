"""Loads the Lua scripts: puts in what they include, gives them the key names, and flags for the server at hand."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

import attrs

from . import keys

_INCLUDE: Final = re.compile(r"^-- @include (\S+)$", re.MULTILINE)

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
    seen: set[str] = set()

    def expand(match: re.Match[str]) -> str:
        included = match[1]
        if included in seen:
            return ""
        seen.add(included)
        return _INCLUDE.sub(expand, _read(included))

    return _INCLUDE.sub(expand, _read(path))


@cache
def load(name: str, *, flags: bool) -> Script:
    """The script of that name; ``flags``: whether the server knows script flags (Redis 7, Valkey)."""
    shebang, opening = "", ""
    if flags:
        shebang = "#!lua flags=allow-oom\n" if name in _RUN_WITHOUT_MEMORY else "#!lua\n"
    elif name in _RUN_WITHOUT_MEMORY:
        opening = "redis.call('HDEL', META, '')\n"  # Redis 6.2 refuses none after a write that takes no memory
    body = source(f"{name}.lua")
    text = f"{shebang}{keys.lua_prelude(body)}\n{opening}{body}"
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _read(path: str) -> str:
    return (files("fairactor") / "lua" / path).read_text(encoding="utf-8")


NAMES: Final = tuple(
    sorted(
        file.name.removesuffix(".lua") for file in (files("fairactor") / "lua").iterdir() if file.name.endswith(".lua")
    )
)
"""The transitions, a file each."""
