"""Reading all that a shard holds, for the audit."""

from __future__ import annotations

from typing import Any, Final

import attrs

from . import keys, record
from .record import LIVE, SETTLED, Header
from .shard import Shard
from .states import Priority
from .wire import GROUP_MARK, Counts, PackedPolicy, unpack_policy

# KEYS  1 META of the shard
# ARGV  1 the prefix of all keys of the namespace
# Reply {seconds, µs, {key, type, ms to live or -1, content} ...}; the content of a record is its header
# Reads only, in one step. It is not a transition, so it is not in lua/.
_LOOK: Final = """
local call = redis.call
local head = 15
local records = KEYS[1] .. ':task:'
local readers = {
  hash = function(key) return call('HGETALL', key) end,
  set = function(key) return call('SMEMBERS', key) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  string = function(key)
    if key:sub(1, #records) ~= records then return call('GET', key) end
    local length = call('GETRANGE', key, head - 2, head - 1)
    return call('GETRANGE', key, 0, head - 1 + (length:byte(1) or 0) * 256 + (length:byte(2) or 0))
  end,
}
local reply = call('TIME')
for _, key in ipairs(call('KEYS', ARGV[1] .. '*')) do
  local kind = call('TYPE', key).ok
  local read = key:sub(1, #KEYS[1]) == KEYS[1] and readers[kind]
  reply[#reply + 1] = { key, kind, call('PTTL', key), read and read(key) or '' }
end
return reply
"""

_TYPES: Final = {
    "META": "hash", "RING": "zset", "COUNTS": "hash", "POLICY": "hash", "DRAINED": "zset",
    "SCHEDULED": "zset", "WATCHERS": "hash", "LEASES": "zset", "SESSIONS": "hash", "FLEET": "hash",
    "PROGRESS": "hash", "HELD": "hash", "IDLE": "set", "TASK": "string", "QUEUE": "zset", "CLAIMS": "hash",
    "CANCELS": "hash", "KEYED": "hash", "KEY": "string", "DEAD": "zset", "SENT": "string",
    "RATES": "zset", "THROTTLED": "zset", "GROUPS": "hash", "HOMES": "hash", "IDLE_HOMES": "set",
    "GROUP": "zset", "COSTS": "hash", "ASSIGNED": "set", "STEAL": "set", "RESERVED": "hash",
}  # fmt: skip
_EXPIRES: Final = {"SENT", "COSTS", "RESERVED"}
_MAY_EXPIRE: Final = {"TASK", "KEY"}
_NOTHING: Final = Counts.unpack(b"")


@attrs.frozen
class Look:
    """All that a shard holds, as it was at one moment."""

    meta: str
    now: float
    """The server's time, unix seconds."""
    fixed: dict[str, dict[str, Any]]
    """What stands in the keys of `keys.FIXED`, by their names: scores of a zset, values of a hash, members of a set."""
    records: dict[str, Header]
    queues: dict[str, dict[str, float]]
    """tenant -> task -> place."""
    claims: dict[str, dict[str, bytes]]
    """runtime -> task -> the mark of the claim, as `mark_of` reads it."""
    cancels: dict[str, dict[str, bytes]]
    """runtime -> task -> for how long to keep its record, and its outcome."""
    keys: dict[str, tuple[str, int]]
    """deduplication key, as its key in Redis ends -> the task, and ms to live or -1."""
    strange: list[str]
    """What is no part of the data model."""
    others: list[str]
    """Keys of the namespace outside the shard."""
    counts: dict[str, Counts]
    """What is counted of each tenant."""
    groups: dict[str, dict[str, float]] = attrs.Factory(dict)
    """group -> tenant -> tag, its ring."""
    assigned: dict[str, dict[str, None]] = attrs.Factory(dict)
    """runtime -> the tenants that it serves first."""
    steal: dict[str, dict[str, None]] = attrs.Factory(dict)
    """runtime -> those that it serves then."""

    @property
    def step(self) -> int:
        """The aging step of a priority, µs."""
        return int(self.fixed["META"].get("step", 60_000_000))

    @property
    def virtual(self) -> float:
        """Virtual time."""
        return float(self.fixed["META"].get("virtual", 0))

    def counts_of(self, tenant: str) -> Counts:
        """What is counted of a tenant; of nothing where it is unknown."""
        return self.counts.get(tenant, _NOTHING)

    def policy(self, tenant: str) -> PackedPolicy:
        """The settings that a tenant has of its own."""
        return unpack_policy(self.fixed["POLICY"].get(tenant, b""))

    def effective(self, tenant: str) -> PackedPolicy:
        """The settings that hold for a tenant."""
        return self.policy("") | self.policy(tenant)

    @property
    def ring(self) -> dict[str, float]:
        """Tenant -> tag, on the ring of the shard, or on that of its group."""
        root = {member: tag for member, tag in self.fixed["RING"].items() if not member.startswith(GROUP_MARK)}
        return {tenant: tag for ring in (root, *self.groups.values()) for tenant, tag in ring.items()}


async def look_at(shard: Shard) -> Look:
    """Reads all that a shard holds, in one step."""
    meta = shard.keys.meta
    prefix = meta[: meta.rindex("/") + 1]
    reply = await shard._server.execute("EVAL", _LOOK, 1, meta, prefix)  # noqa: SLF001 - the audit looks inside
    look = Look(
        meta, int(reply[0]) + int(reply[1]) / 1e6, {name: {} for name in keys.FIXED}, {}, {}, {}, {}, {}, [], [], {}
    )
    for key, kind, ttl, content in reply[2:]:
        _take(look, text(key), text(kind), ttl, content)
    for tenant, packed in look.fixed["COUNTS"].items():
        look.counts[tenant] = Counts.unpack(packed, queued=len(look.queues.get(tenant, ())))
    return look


def text(raw: bytes) -> str:
    """A name as it is stored, whatever bytes it holds."""
    return raw.decode(errors="surrogateescape")


def _take(look: Look, key: str, kind: str, ttl: int, content: Any) -> None:
    """Puts what one key holds in its place."""
    if not key.startswith(look.meta):
        look.others.append(key)
        return
    suffix = key.removeprefix(look.meta)
    if suffix.startswith(keys.PREFIXES["PLUGIN"]):
        return  # nobody knows but the plugin
    found = _name_of(suffix)
    if found is None:
        look.strange.append(f"{key!r}: no such key in the data model")
        return
    name, rest = found
    if kind != _TYPES[name]:
        look.strange.append(f"{key!r} is a {kind}, not a {_TYPES[name]}")
    elif name == "TASK":
        _take_record(look, rest, content, ttl)
    elif name in keys.FIXED:
        look.fixed[name] = _items(kind, content)
    elif name == "KEY":
        look.keys[rest] = text(content), ttl
    elif name not in _EXPIRES:
        of_each: dict[str, dict[str, Any]] = {
            "QUEUE": look.queues, "CLAIMS": look.claims, "CANCELS": look.cancels, "GROUP": look.groups,
            "ASSIGNED": look.assigned, "STEAL": look.steal,
        }  # fmt: skip
        of_each[name][rest] = _items(kind, content)
    if (ttl != -1) is not (name in _EXPIRES) and name not in _MAY_EXPIRE:
        look.strange.append(f"{key!r} {'expires' if ttl != -1 else 'never expires'}")


def _name_of(suffix: str) -> tuple[str, str] | None:
    """Which key of the model one is, and of what."""
    for name, fixed in keys.FIXED.items():
        if suffix == fixed and name in _TYPES:
            return name, ""
    for name, prefix in keys.PREFIXES.items():
        if name in _TYPES and suffix.startswith(prefix):
            return name, suffix.removeprefix(prefix)
    return None


def _items(kind: str, content: list[bytes]) -> dict[str, Any]:
    if kind == "set":
        return dict.fromkeys(map(text, content))
    names, values = map(text, content[::2]), content[1::2]
    return dict(zip(names, map(float, values) if kind == "zset" else values, strict=True))


def _take_record(look: Look, task: str, packed: bytes, ttl: int) -> None:
    try:
        header, _ = record.unpack(packed)
        Priority(header.priority)
    except ValueError as error:
        look.strange.append(f"task {task!r}: {error}")
        return
    if header.state != LIVE and header.state not in SETTLED:
        look.strange.append(f"task {task!r}: no such state as {header.state!r}")
        return
    if (header.state == LIVE) is not (ttl == -1):
        look.strange.append(f"task {task!r} in state {header.state!r} has a time to live of {ttl} ms")
    look.records[task] = header
