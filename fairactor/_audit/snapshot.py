"""Snapshots: the complete content of a shard at one moment, for the audit."""

from __future__ import annotations

from typing import Any, Final

import attrs

from fairactor._model import keys, record
from fairactor._model.counts import Counts
from fairactor._model.record import LIVE, SETTLED, Header
from fairactor._model.states import Priority
from fairactor._model.wire import GROUP_MARK, PackedPolicy, as_bytes, as_text, unpack_policy
from fairactor._store.shard import Shard

from .routes import route_text

# KEYS  1 META of the shard
# ARGV  1 the prefix of all keys of the namespace
# Reply {seconds, µs, {key, type, ms to live or -1, content} ...}; for a record only the header,
#        and if the task lives the beginning of its call
# It only reads, in one atomic step. It does not belong to the data model, so it is not in lua/.
_SCRIPT: Final = """
local call = redis.call
local head, LIVE, ROUTE = 15, 76, 2400
local records = KEYS[1] .. ':task:'
local readers = {
  hash = function(key) return call('HGETALL', key) end,
  set = function(key) return call('SMEMBERS', key) end,
  list = function(key) return call('LRANGE', key, 0, -1) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  string = function(key)
    if key:sub(1, #records) ~= records then return call('GET', key) end
    local start = call('GETRANGE', key, 0, head - 1)
    local name = (start:byte(head - 1) or 0) * 256 + (start:byte(head) or 0)
    return call('GETRANGE', key, 0, head - 1 + name + (start:byte() == LIVE and ROUTE or 0))
  end,
}
local reply, seen, cursor = call('TIME'), {}, '0'
local function add(key)
  local kind = call('TYPE', key).ok
  local read = key:sub(1, #KEYS[1]) == KEYS[1] and readers[kind]
  reply[#reply + 1] = { key, kind, call('PTTL', key), read and read(key) or '' }
end
repeat
  local found = call('SCAN', cursor, 'MATCH', ARGV[1] .. '*', 'COUNT', 1000)
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    if not seen[key] then add(key) end
    seen[key] = true
  end
until cursor == '0'
return reply
"""

_EXPIRES: Final = {"SENT", "COSTS", "RESERVED", "MENDING_LIST", "MOVER", "DEAD_OF", "DEAD_BY", "ENDED_LAST"}
_INDEXES: Final = {"DEAD_OF", "DEAD_BY", "ENDED_LAST"}
"""Those of them that the audit looks at."""
_MAY_EXPIRE: Final = {"TASK", "KEY", "MENDING", "MENDED"}
_STEP_BACK: Final = 1e6  # µs, as in lib/base.lua
_DAMAGED: Final = 3.16224e13
text: Final = as_text
_NO_COUNTS: Final = Counts.unpack(b"")


@attrs.frozen
class Snapshot:
    """The content of a shard at one moment."""

    meta: str
    """The META key of the shard, which all its keys start with."""
    now: float
    """The shard's time, unix seconds: the server's, unless its clock was set back."""
    fixed: dict[str, dict[str, Any]]
    """The content of each key in `keys.FIXED`: scores of a zset, values of a hash, members of a set."""
    records: dict[str, Header]
    """task -> the header of its record."""
    queues: dict[str, dict[str, float]]
    """tenant -> task -> place, in all lanes together."""
    delayed: dict[str, dict[str, float]]
    """tenant -> delayed task -> when it is due, unix ms."""
    claims: dict[str, dict[str, bytes]]
    """runtime -> task -> the mark of the claim, for `unpack_mark`."""
    cancels: dict[str, dict[str, bytes]]
    """runtime -> canceled task -> how long to keep its record, and its outcome."""
    keys: dict[str, tuple[str, int]]
    """deduplication key (the end of its Redis key) -> its task, and its time to live in ms, or -1."""
    malformed: list[str]
    """A message for each key or value that does not fit the data model."""
    others: list[str]
    """Keys of the namespace outside the shard."""
    counts: dict[str, Counts]
    """tenant -> its counts."""
    suspects: dict[str, dict[str, float]] = attrs.Factory(dict)
    """tenant -> suspect -> place."""
    groups: dict[str, dict[str, float]] = attrs.Factory(dict)
    """group -> tenant -> tag; its ring for the runtimes of kind 0."""
    mailboxes: dict[tuple[str, str], dict[str, float]] = attrs.Factory(dict)
    """(lane, tenant) -> task -> place."""
    routes: dict[str, str] = attrs.Factory(dict)
    """live task -> its route, as JSON text; '' if it cannot be read."""
    lanes_of: dict[str, dict[str, float]] = attrs.Factory(dict)
    """tenant -> lane, but the common one, in which it has queued tasks -> the place of the first."""
    in_lane: dict[str, dict[str, float]] = attrs.Factory(dict)
    """lane -> tenant with queued tasks there -> since when, unix ms."""
    kinds: dict[str, dict[str, bytes]] = attrs.Factory(dict)
    """number of a kind of runtimes -> what these can run, as lib/register.lua stores it."""
    kind_rings: dict[str, dict[str, float]] = attrs.Factory(dict)
    """number of a kind but 0 -> its ring."""
    kind_groups: dict[str, dict[str, bytes]] = attrs.Factory(dict)
    """number of a kind but 0 -> group with work -> virtual time of its ring."""
    kind_group_rings: dict[str, dict[str, float]] = attrs.Factory(dict)
    """number of a kind but 0, a colon, group -> its ring."""
    kind_idle: dict[str, dict[str, None]] = attrs.Factory(dict)
    """number of a kind but 0 -> the runtimes that can take more work of any tenant."""
    lines: dict[str, dict[str, float]] = attrs.Factory(dict)
    """number of a kind -> the limits of a line of its -> before when a turn need not look at it, unix ms."""
    lines_of: dict[str, dict[str, None]] = attrs.Factory(dict)
    """limit -> the lines in which tenants wait for it."""
    line: dict[str, dict[str, float]] = attrs.Factory(dict)
    """line -> tenant or group -> tag."""
    line_group: dict[str, dict[str, float]] = attrs.Factory(dict)
    """line, a colon, group -> tenant -> tag."""
    line_groups: dict[str, dict[str, bytes]] = attrs.Factory(dict)
    """line -> group -> virtual time of its tenants there."""
    assigned: dict[str, dict[str, None]] = attrs.Factory(dict)
    """runtime -> the tenants that it serves first."""
    steal: dict[str, dict[str, None]] = attrs.Factory(dict)
    """runtime -> the tenants that it serves while the first have nothing to do."""
    assigned_to: dict[str, dict[str, None]] = attrs.Factory(dict)
    """tenant -> the dedicated runtimes that serve it first, and perhaps some that are gone."""
    stolen_by: dict[str, dict[str, None]] = attrs.Factory(dict)
    leaving: dict[str, dict[str, None]] = attrs.Factory(dict)
    """Likewise, those that steal from it."""
    dead_of: dict[str, dict[str, float]] = attrs.Factory(dict)
    """tenant -> dead letter -> when its record expires, unix µs."""
    dead_by: dict[str, dict[str, float]] = attrs.Factory(dict)
    """actor, as JSON text -> likewise."""
    ended_of: dict[str, dict[str, None]] = attrs.Factory(dict)
    """tenant -> the tasks that have ended last."""

    @property
    def step(self) -> int:
        """The aging step between two priorities, in µs."""
        return int(self.fixed["META"].get("step", 60_000_000))

    @property
    def virtual(self) -> float:
        """The virtual time of the shard's ring."""
        return float(self.fixed["META"].get("virtual", 0))

    def counts_of(self, tenant: str) -> Counts:
        """Returns the counts of a tenant; all 0 if it is unknown."""
        return self.counts.get(tenant, _NO_COUNTS)

    def policy(self, tenant: str) -> PackedPolicy:
        """Returns the settings that were made for a tenant, without the defaults."""
        return unpack_policy(self.fixed["POLICY"].get(tenant, b""))

    def effective(self, tenant: str) -> PackedPolicy:
        """Returns the settings of a tenant, with the defaults for those that were not made."""
        return self.policy("") | self.policy(tenant)

    @property
    def due(self) -> dict[str, float]:
        """The delayed tasks, each with the time at which it is due, in unix ms."""
        return {task: at for tasks in self.delayed.values() for task, at in tasks.items()}

    @property
    def ring(self) -> dict[str, float]:
        """The tag of each tenant on the ring of kind 0, or of its group."""
        return self.tenants_on_ring("0")

    @property
    def numbers(self) -> list[str]:
        """The numbers of the kinds of runtimes that there are."""
        return text(self.fixed["META"].get("kinds", b"0")).split(",")

    def root_ring(self, kind: str) -> dict[str, float]:
        """Returns the ring of a kind."""
        ring: dict[str, float] = self.fixed["RING"] if kind == "0" else self.kind_rings.get(kind, {})
        return ring

    def group_rings(self, kind: str) -> dict[str, dict[str, float]]:
        """Returns the rings of the groups for a kind."""
        prefix = kind + ":"
        others = {name: ring for name, ring in self.kind_group_rings.items() if name.startswith(prefix)}
        return self.groups if kind == "0" else {name.removeprefix(prefix): ring for name, ring in others.items()}

    def group_times(self, kind: str) -> dict[str, bytes]:
        """Returns the groups with work for a kind, with the virtual times of their rings."""
        times: dict[str, bytes] = self.fixed["GROUPS"] if kind == "0" else self.kind_groups.get(kind, {})
        return times

    def tenants_on_ring(self, kind: str) -> dict[str, float]:
        """Returns the tag of each tenant on the ring of a kind, or of its group."""
        root = {member: tag for member, tag in self.root_ring(kind).items() if not member.startswith(GROUP_MARK)}
        return {tenant: tag for ring in (root, *self.group_rings(kind).values()) for tenant, tag in ring.items()}

    def tenants_in_lines(self, kind: str) -> dict[str, set[str]]:
        """Returns the tenants in each line of a kind, also those of groups."""
        found = {line: {name for name in ring if not name.startswith(GROUP_MARK)} for line, ring in self.line.items()}
        for name, ring in self.line_group.items():
            for line in found:
                if name.startswith(f"{line}:"):
                    found[line] |= ring.keys()
        return {line: names for line, names in found.items() if line.startswith(f"{kind}\x1f")}


async def take_snapshot(shard: Shard) -> Snapshot:
    """Reads the content of a shard, in one atomic step."""
    meta = shard.keys.meta
    prefix = meta[: meta.rindex("/") + 1]
    calls = shard._server.calls  # noqa: SLF001 - the audit reads the internals
    reply = await calls.execute(meta, "EVAL", _SCRIPT, *calls.keys(meta), prefix)
    snapshot = Snapshot(
        meta, int(reply[0]) + int(reply[1]) / 1e6, {name: {} for name in keys.FIXED}, {}, {}, {}, {}, {}, {}, [], [], {}
    )
    for key, kind, ttl, content in reply[2:]:
        _add(snapshot, text(key), text(kind), ttl, content)
    for (_, tenant), mailbox in snapshot.mailboxes.items():
        snapshot.queues.setdefault(tenant, {}).update(mailbox)
    for tenant, mailbox in snapshot.queues.items():
        snapshot.queues[tenant] = dict(sorted(mailbox.items(), key=_by_place))
    for tenant, packed in snapshot.fixed["COUNTS"].items():
        queued = len(snapshot.queues.get(tenant, ())) + len(snapshot.suspects.get(tenant, ()))
        snapshot.counts[tenant] = Counts.unpack(packed, queued=queued)
    return attrs.evolve(snapshot, now=snapshot.now + _behind(snapshot))


def _by_place(task: tuple[str, float]) -> tuple[float, bytes]:
    return task[1], as_bytes(task[0])


def _behind(snapshot: Snapshot) -> float:
    """Returns the seconds by which the server's clock is behind the shard's; see lib/base.lua."""
    meta = snapshot.fixed["META"]
    behind = int(meta.get("behind", b"0")) if meta.get("behind", b"0").isdigit() else 0
    stamp = int(meta.get("stamp", b"0")) if meta.get("stamp", b"0").isdigit() else 0
    ahead = stamp - snapshot.now * 1e6
    if ahead <= 0:
        return 0.0
    return (ahead if ahead - behind > _STEP_BACK and ahead < _DAMAGED else behind) / 1e6


def _add(snapshot: Snapshot, key: str, kind: str, ttl: int, content: Any) -> None:
    """Adds the content of one key to the snapshot."""
    if not key.startswith(snapshot.meta):
        snapshot.others.append(key)
        return
    suffix = key.removeprefix(snapshot.meta)
    if suffix.startswith((keys.PREFIXES["PLUGIN"], keys.PREFIXES["ASIDE"])):
        return  # only the plugin knows the types of its keys, and nothing reads what was set aside
    found = _find_in_model(suffix)
    if found is None:
        snapshot.malformed.append(f"{key!r}: no such key in the data model")
        return
    name, rest = found
    if kind != keys.TYPES[name]:
        snapshot.malformed.append(f"{key!r} is a {kind}, not a {keys.TYPES[name]}")
    elif name == "TASK":
        _add_record(snapshot, rest, content, ttl)
    elif name in keys.FIXED and (name not in _EXPIRES or name in _INDEXES):
        snapshot.fixed[name] = _items(kind, content)
    elif name == "KEY":
        snapshot.keys[rest] = text(content), ttl
    elif name not in _EXPIRES or name in _INDEXES:
        _add_to_map(snapshot, name, rest, _items(kind, content))
    if (ttl != -1) is not (name in _EXPIRES) and name not in _MAY_EXPIRE:
        snapshot.malformed.append(f"{key!r} {'expires' if ttl != -1 else 'never expires'}")


def _add_to_map(snapshot: Snapshot, name: str, rest: str, items: dict[str, Any]) -> None:
    """Adds the content of a key that exists once per tenant, runtime, lane or kind."""
    if name in {"QUEUE", "LANE_QUEUE"}:
        place = ("", rest) if name == "QUEUE" else _lane_and_tenant(rest)
        if place is None:
            snapshot.malformed.append(f"{rest!r} does not begin with the length of a lane's name")
        else:
            snapshot.mailboxes[place] = items
        return
    by_name: dict[str, dict[str, Any]] = {
        "LANES_OF": snapshot.lanes_of, "IN_LANE": snapshot.in_lane, "SUSPECTS": snapshot.suspects,
        "DELAYED": snapshot.delayed, "CLAIMS": snapshot.claims, "CANCELS": snapshot.cancels,
        "GROUP": snapshot.groups, "ASSIGNED": snapshot.assigned, "STEAL": snapshot.steal, "KIND": snapshot.kinds,
        "ASSIGNED_TO": snapshot.assigned_to, "STOLEN_BY": snapshot.stolen_by,
        "LEAVING": snapshot.leaving,
        "KIND_RING": snapshot.kind_rings, "KIND_GROUPS": snapshot.kind_groups,
        "KIND_GROUP": snapshot.kind_group_rings, "KIND_IDLE": snapshot.kind_idle, "LINES": snapshot.lines,
        "LINES_OF": snapshot.lines_of, "LINE": snapshot.line, "LINE_GROUP": snapshot.line_group,
        "LINE_GROUPS": snapshot.line_groups, "DEAD_OF": snapshot.dead_of, "DEAD_BY": snapshot.dead_by,
        "ENDED_OF": snapshot.ended_of,
    }  # fmt: skip
    by_name[name][rest] = items


def _find_in_model(suffix: str) -> tuple[str, str] | None:
    """Returns the name of a key in the data model, and the tenant, task or runtime that it belongs to."""
    for name, fixed in keys.FIXED.items():
        if suffix == fixed and name in keys.TYPES:
            return name, ""
    for name, prefix in keys.PREFIXES.items():
        if name in keys.TYPES and suffix.startswith(prefix):
            return name, suffix.removeprefix(prefix)
    return None


def _lane_and_tenant(rest: str) -> tuple[str, str] | None:
    """Splits the end of a mailbox's key, which `mailbox` in lib/base.lua makes; returns None if it does not fit."""
    length, _, names = as_bytes(rest).partition(b":")
    end = int(length) if length.isdigit() else len(names)
    return (text(names[:end]), text(names[end + 1 :])) if names[end : end + 1] == b":" else None


def _items(kind: str, content: list[bytes]) -> dict[str, Any]:
    if kind in {"set", "list"}:
        return dict.fromkeys(map(text, content))
    names, values = map(text, content[::2]), content[1::2]
    return dict(zip(names, map(float, values) if kind == "zset" else values, strict=True))


def _add_record(snapshot: Snapshot, task: str, packed: bytes, ttl: int) -> None:
    try:
        header, body = record.unpack(packed)
        Priority(header.priority)
    except ValueError as error:
        snapshot.malformed.append(f"task {task!r}: {error}")
        return
    if header.state != LIVE and header.state not in SETTLED:
        snapshot.malformed.append(f"task {task!r}: unknown state {header.state!r}")
        return
    if (header.state == LIVE) is not (ttl == -1):
        snapshot.malformed.append(f"task {task!r} in state {header.state!r} has a time to live of {ttl} ms")
    snapshot.records[task] = header
    if header.state == LIVE:
        snapshot.routes[task] = route_text(body)
