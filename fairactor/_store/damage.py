"""Damage: what a repair did about it, and which key it is that keeps scripts from running."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import attrs

from fairactor._model import keys
from fairactor._server.connection import Server

ADVICE: Final = "call `await runtime.repair()`, from a Runtime(workers=0) if no other can be entered"

_MOST_NAMES: Final = 100
"""How many arguments of a call are looked at as names of tasks, tenants and runtimes."""

# KEYS  1 META of the shard
# ARGV  1 JSON: {types of fixed keys by suffix, [[prefix, type], …], names}
# Reply {key, type that it has, type that it should have} of the first key with another type, or {}
# It only reads, and not much: the fixed keys, those of the given names and of the first tenants and runtimes, and some
# thousand more.
_SCRIPT: Final = """
local meta, asked = KEYS[1], cjson.decode(ARGV[1])
local fixed, prefixes, names = asked[1], asked[2], asked[3]
local function wrong(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then return { key, found, kind } end
end
for suffix, kind in pairs(fixed) do
  local found = wrong(meta .. suffix, kind)
  if found then return found end
end
for _, suffix in ipairs({ ':ring', ':leases', ':scheduled' }) do
  for _, name in ipairs(redis.call('ZRANGE', meta .. suffix, 0, 99)) do names[#names + 1] = name end
end
for _, name in ipairs(names) do
  for _, prefix in ipairs(prefixes) do
    local found = wrong(meta .. prefix[1] .. name, prefix[2])
    if found then return found end
  end
end
local cursor = '0'
for _ = 1, 10 do
  local found = redis.call('SCAN', cursor, 'MATCH', meta .. ':*', 'COUNT', 500)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    for _, prefix in ipairs(prefixes) do
      local begin = meta .. prefix[1]
      local other = key:sub(1, #begin) == begin and wrong(key, prefix[2])
      if other then return other end
    end
  end
  if cursor == '0' then break end
end
return {}
"""


@attrs.frozen
class Repairs:
    """What `Runtime.repair` has done."""

    repaired: Sequence[str]
    """A message for each thing that was damaged and has been rebuilt, or dropped because nothing depends on it."""
    set_aside: Sequence[str]
    """A message for each key or value that could not be used. It is kept under a key with ``:aside:`` in its name,
    which nothing reads: look at it, and delete it."""

    def __bool__(self) -> bool:
        """Whether something was damaged."""
        return bool(self.repaired or self.set_aside)


def read_repairs(reply: Sequence[Any]) -> Repairs:
    """Reads what was done from the reply of mend.lua."""
    return Repairs(*(tuple(line.decode(errors="replace") for line in lines) for lines in reply[1:3]))


async def find_wrong_type(server: Server, meta: str, arguments: Sequence[Any]) -> str | None:
    """Describes a key of a shard that has another type than the data model says; returns None if it finds none.

    Args:
        server: the server.
        meta: the META key of the shard.
        arguments: the arguments of the script that has met the key.
    """
    names = [name for name in arguments[:_MOST_NAMES] if isinstance(name, str)]
    fixed = {suffix: keys.TYPES[name] for name, suffix in keys.FIXED.items()}
    prefixes = [(prefix, keys.TYPES[name]) for name, prefix in keys.PREFIXES.items() if name in keys.TYPES]
    found = await server.calls.execute(
        meta, "EVAL", _SCRIPT, *server.calls.keys(meta), json.dumps([fixed, prefixes, names])
    )
    if not found:
        return None
    key, stored, right = (part.decode(errors="replace") for part in found)
    return f"the key {key!r} is a {stored}, but must be a {right}"
