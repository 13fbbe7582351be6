"""For tests: an audit of everything that a namespace holds in Redis.

`check_invariants` reads the whole namespace, at a cost that grows with it, and holds the server up meanwhile. Use it
where that harms nobody: in tests, beside running workers if you like, since it reads each shard in one atomic step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from . import keys, record
from .record import LIVE, SETTLED, Header
from .shard import Counts, Shard
from .states import Priority

if TYPE_CHECKING:
    from .runtime import Runtime

# KEYS  1 META of the shard
# ARGV  1 what all keys of the namespace begin with
# Reply {seconds, µs, {key, type, ms to live or -1, content} ...}; of strings the header of a record only.
# Reads only, all in one step. It is no transition, so it does not stand among those in lua/.
_LOOK: Final = """
local call = redis.call
local head = 13
local readers = {
  hash = function(key) return call('HGETALL', key) end,
  set = function(key) return call('SMEMBERS', key) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  string = function(key)
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
    "PROGRESS": "hash", "IDLE": "set", "TASK": "string", "QUEUE": "zset", "CLAIMS": "hash",
}  # fmt: skip
_CRITICAL_JUMP: Final = 4e15  # as lua/lib/base.lua
_MARK: Final = 5  # bytes: number of the turn, priority
_NOTHING: Final = Counts.unpack(b"")


class InvariantViolation(AssertionError):
    """What a namespace holds does not fit together; ``violations`` says all that does not."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join([f"{len(self.violations)} violations:", *self.violations]))


async def check_invariants(runtime: Runtime, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> None:
    """Checks that all that the namespace of a runtime holds fits together, at this moment.

    It reads every key, so it is for tests only. Workers may go on meanwhile.

    Args:
        runtime: one that was entered, on the namespace to look at.
        overdue: report what should have been tended to more than this many seconds ago: claims of runtimes whose
            lease ran out, scheduled tasks that are due, totals past their time. Infinite: do not, since somebody has
            to be there to tend.
        lowered: tenants whose concurrency was set below what they had running: those may go on above it.

    Raises:
        InvariantViolation: it does not fit; lists everything that was found.
        RuntimeNotRunning: the runtime is not entered, or belongs to another event loop.
    """
    runtime.check()
    shards = runtime._shards  # noqa: SLF001 - the audit looks inside
    found: list[str] = []
    for number, shard in enumerate(shards):
        look = await look_at(shard)
        found += [f"{look.meta} {text}" for text in audit(look, overdue=overdue, lowered=lowered)]
        found += [f"{look.meta} {text}" for text in _misplaced(look, number, len(shards))]
    if found:
        raise InvariantViolation(found)


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
    """runtime -> task -> number of the turn, 4 bytes, priority, and name of the tenant."""
    strange: list[str]
    """What is no part of the data model."""
    others: list[str]
    """Keys of the namespace outside the shard."""
    counts: dict[str, Counts]
    """What is counted of each tenant."""

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

    def policy(self, tenant: str) -> dict[str, Any]:
        """The policy of a tenant, where one was configured."""
        packed = self.fixed["POLICY"].get(tenant)
        policy: dict[str, Any] = msgspec.msgpack.decode(packed) if packed else {}
        return policy


async def look_at(shard: Shard) -> Look:
    """Reads all that a shard holds, in one step."""
    meta = shard.keys.meta
    prefix = meta[: meta.rindex("/") + 1]
    reply = await shard._client.eval(_LOOK, 1, meta, prefix)  # noqa: SLF001 - the audit looks inside
    look = Look(meta, int(reply[0]) + int(reply[1]) / 1e6, {name: {} for name in keys.FIXED}, {}, {}, {}, [], [], {})
    for key, kind, ttl, content in reply[2:]:
        _take(look, _text(key), _text(kind), ttl, content)
    for tenant, packed in look.fixed["COUNTS"].items():
        look.counts[tenant] = Counts.unpack(packed, queued=len(look.queues.get(tenant, ())))
    return look


def audit(look: Look, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> list[str]:
    """What does not fit together in a shard. The arguments are those of `check_invariants`."""
    return [
        *look.strange,
        *_places(look),
        *_scores(look),
        *_counts(look),
        *_ring(look),
        *_caps(look, lowered),
        *_fleet(look),
        *_drained(look),
        *_notes(look),
        *_overdue(look, overdue),
    ]


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _take(look: Look, key: str, kind: str, ttl: int, content: Any) -> None:
    """Puts what one key holds in its place."""
    if not key.startswith(look.meta):
        look.others.append(key)
        return
    found = _name_of(key.removeprefix(look.meta))
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
    else:
        (look.queues if name == "QUEUE" else look.claims)[rest] = _items(kind, content)
    if name != "TASK" and ttl != -1:
        look.strange.append(f"{key!r} expires, in {ttl} ms")


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
        return dict.fromkeys(map(_text, content))
    names, values = map(_text, content[::2]), content[1::2]
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


def _standing(look: Look) -> Iterator[tuple[str, str, str, str | None]]:
    """Where ids stand: (task, state, where in words, whose it should be there, if that is said)."""
    for tenant, queue in look.queues.items():
        for task in queue:
            yield task, "queued", f"the queue of {tenant!r}", tenant
    for task in look.fixed["SCHEDULED"]:
        yield task, "scheduled", "the scheduled", None
    for runtime, claims in look.claims.items():
        for task, mark in claims.items():
            yield task, "started", f"the claims of {runtime!r}", _text(mark[_MARK:])


def _places(look: Look) -> Iterator[str]:
    """Each live record stands in one place, and in each place stands a live record of the right tenant."""
    places: dict[str, list[str]] = {}
    for task, _, where, tenant in _standing(look):
        places.setdefault(task, []).append(where)
        header = look.records.get(task)
        if header is None:
            yield f"task {task!r} in {where} has no record"
        elif header.state != LIVE:
            yield f"task {task!r} in {where} has ended: {header.state!r}"
        elif tenant not in (None, header.tenant):
            yield f"task {task!r} in {where} of {tenant!r} belongs to {header.tenant!r}"
    yield from (f"task {task!r} is in {' and '.join(found)}" for task, found in places.items() if len(found) > 1)
    nowhere: dict[str, list[str]] = {}
    for task, header in look.records.items():
        if header.state == LIVE and task not in places:
            nowhere.setdefault(header.tenant, []).append(task)
    for tenant, tasks in nowhere.items():
        deferred = look.counts_of(tenant).deferred
        if len(tasks) > deferred:
            yield f"tasks {tasks} of {tenant!r} live and are nowhere, and {deferred} are counted as deferred"


def _scores(look: Look) -> Iterator[str]:
    """Each task stands in its queue where its stamp and priority put it."""
    for tenant, queue in look.queues.items():
        for task, score in queue.items():
            header = look.records.get(task)
            if header is None:
                continue
            jump = _CRITICAL_JUMP if header.priority == Priority.CRITICAL else header.priority * look.step
            if score != header.stamp - jump:
                yield f"task {task!r} of {tenant!r} stands at {score:.0f} instead of {header.stamp - jump:.0f}"


def _live(counts: Counts) -> dict[str, int]:
    return {
        **{f"live at {priority}": number for priority, number in counts.by_priority.items() if number},
        **{state: number for state in ("scheduled", "deferred") if (number := getattr(counts, state))},
    }


def _counts(look: Look) -> Iterator[str]:
    """What is counted of each tenant is what is there; the shard's total is the sum."""
    found: dict[str, Counter[str]] = {}
    standing = {task: state for task, state, _, _ in _standing(look)}
    kept: Counter[tuple[str, str]] = Counter()
    for task, header in look.records.items():
        if header.state == LIVE:
            state = standing.get(task, "deferred")
            state = f"live at {header.priority}" if state in {"queued", "started"} else state
            found.setdefault(header.tenant, Counter())[state] += 1
        else:
            kept[header.tenant, SETTLED[header.state].value] += 1
    for tenant in found.keys() | look.counts.keys():
        counted, there = _live(look.counts_of(tenant)), dict(found.get(tenant, {}))
        if counted != there:
            yield f"of {tenant!r} are counted {counted}, and there are {there}"
    for (tenant, state), number in kept.items():
        counted_ended = getattr(look.counts_of(tenant), state)
        if counted_ended < number:
            yield f"of {tenant!r} {counted_ended} are counted as {state}, and {number} records are kept"
    yield from _total(look)


def _total(look: Look) -> Iterator[str]:
    total = Counts.unpack(look.fixed["META"].get("total", b""))
    live: Counter[str] = Counter()
    for counts in look.counts.values():
        live.update(_live(counts))
    if _live(total) != live:
        yield f"in total are counted {_live(total)}, and of the tenants together {dict(live)}"
    for state in ("finished", "failed", "canceled"):
        ended = sum(getattr(counts, state) for counts in look.counts.values())
        if getattr(total, state) < ended:
            yield f"in total {getattr(total, state)} are counted as {state}, and of the tenants together {ended}"


def _ring(look: Look) -> Iterator[str]:
    """A tenant is on the ring exactly when it is eligible; virtual time ends when nobody waits."""
    ring = look.fixed["RING"]
    for tenant in ring.keys() | look.counts.keys():
        counts, cap = look.counts_of(tenant), look.policy(tenant).get("concurrency", math.inf)
        eligible = counts.queued > 0 and counts.started < cap
        if eligible is not (tenant in ring):
            can, where = ("could", "not on") if eligible else ("cannot", "on")
            yield f"{tenant!r} {can} be served, and is {where} the ring"
    if not ring and look.virtual:
        yield f"nobody waits, yet virtual time is {look.virtual:g}"


def _caps(look: Look, lowered: Collection[str]) -> Iterator[str]:
    for tenant in look.fixed["POLICY"]:
        cap, started = look.policy(tenant).get("concurrency", math.inf), look.counts_of(tenant).started
        if started > cap and tenant not in lowered:
            yield f"{started} tasks of {tenant!r} run, and its concurrency is {cap:g}"


def _fleet(look: Look) -> Iterator[str]:
    """Whatever is kept of a runtime, it has a lease."""
    leases = look.fixed["LEASES"]
    kept = {"claims": look.claims} | {name.lower(): look.fixed[name] for name in ("SESSIONS", "FLEET", "IDLE")}
    for what, runtimes in kept.items():
        for runtime in runtimes:
            if runtime not in leases:
                yield f"{runtime!r} has no lease, and is in {what}"
    for runtime in leases:
        if runtime not in look.fixed["FLEET"]:
            yield f"{runtime!r} has a lease, and is not in fleet"


def _drained(look: Look) -> Iterator[str]:
    """A tenant without live tasks leaves its totals alone, and those are listed to be forgotten."""
    drained = look.fixed["DRAINED"]
    for tenant, packed in look.fixed["COUNTS"].items():
        until = int.from_bytes(packed[-4:], "big")
        if not _live(look.counts_of(tenant)) and drained.get(tenant) != until:
            found = drained.get(tenant, math.nan)
            yield f"{tenant!r} has no live task; its totals are kept until {until}, and it is drained until {found:.0f}"
    for tenant, until in drained.items():
        if tenant not in look.counts and until > look.now:
            yield f"{tenant!r} is drained, to be forgotten at {until:.0f}, and has no totals"


def _notes(look: Look) -> Iterator[str]:
    """Only live tasks are watched; only started ones have progress."""
    for task, packed in look.fixed["WATCHERS"].items():
        header = look.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} is watched, and {'has ended' if header else 'has no record'}"
        if not msgspec.msgpack.decode(packed):
            yield f"task {task!r} is watched by nobody"
    claimed = {task for claims in look.claims.values() for task in claims}
    yield from (
        f"task {task!r} has progress, and is not claimed" for task in look.fixed["PROGRESS"] if task not in claimed
    )


def _overdue(look: Look, patience: float) -> Iterator[str]:
    """What `tend` should have seen to."""
    for name, unit, what in (
        ("LEASES", 1000, "the lease of {!r} ran out {:.3f} s ago"),
        ("SCHEDULED", 1000, "task {!r} was due {:.3f} s ago"),
        ("DRAINED", 1, "the totals of {!r} should have been forgotten {:.3f} s ago"),
    ):
        for member, score in look.fixed[name].items():
            late = look.now - score / unit
            if late > patience:
                yield what.format(member, late)


def _misplaced(look: Look, number: int, shards: int) -> Iterator[str]:
    """Each tenant is in the shard of its name, and no key is outside of all shards."""
    for tenant in look.counts:
        if keys.shard_of(tenant, shards) != number:
            yield f"{tenant!r} belongs to shard {keys.shard_of(tenant, shards)}"
    prefix = look.meta[: look.meta.rindex("/") + 1]
    metas = tuple(f"{prefix}{other}}}" for other in range(shards))
    yield from (f"{key!r} is in none of the {shards} shards" for key in look.others if not key.startswith(metas))
