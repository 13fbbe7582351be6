"""Damage: what a repair did about it, and which key it is that keeps scripts from running."""

from __future__ import annotations

import enum
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
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


class Progress(enum.Enum):
    """What calls of the scripts of the repair have achieved."""

    DONE = "they have completed the repair"
    WHOLE = "there is nothing to do (any more)"
    LEFT = "there is more to do"
    BUSY = "another client repairs the shard"


Call = Callable[[str, tuple[Any, ...]], Awaitable[Any]]
"""Calls a script with arguments."""


async def mend(call: Call, how: str, client: str, fixed: Sequence[Any], until: float = math.inf) -> Progress:
    """Repairs a shard step by step, until it is whole, or until a time of `time.monotonic`.

    Args:
        call: calls a script.
        how: ``torn`` to repair what a script left half written, ``all`` to begin anew with everything.
        client: a name of this client. Only one at a time does the steps.
        fixed: the fixed settings of the shard, as mend.lua takes them.
        until: when to stop.
    """
    script, arguments = "mend", (how, client, *fixed)
    while True:
        reply = (await call(script, arguments)).decode()
        if reply in _ENDS:
            return _ENDS[reply]
        script, arguments = reply, ("torn", client, *fixed) if reply == "mend" else (client,)
        if time.monotonic() > until:
            return Progress.LEFT


_ENDS: Final = {"done": Progress.DONE, "": Progress.WHOLE, "busy": Progress.BUSY}


async def read_repairs(call: Call) -> tuple[Repairs, list[tuple[bytes, bytes]]]:
    """Returns what the last repair has done, and the tasks to cancel again with their cancellations as stored."""
    lines: dict[bytes, list[bytes]] = {}
    for line in await call("mend", ("report", "")):
        lines.setdefault(line[:1], []).append(line[1:])
    repaired, set_aside = (
        tuple(line.decode(errors="replace") for line in lines.get(kind, ())) for kind in (b"r", b"s")
    )
    found = [
        (line[2 : 2 + size], line[2 + size :]) for line in lines.get(b"c", ()) for size in (int.from_bytes(line[:2]),)
    ]
    return Repairs(repaired, set_aside), found


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
