"""Compares a shard with the model, and copies the server's clock readings to the model."""

from __future__ import annotations

import json
import math
import re
import struct

import msgspec

from fairactor._audit.snapshot import Snapshot
from fairactor._model.counts import Counts
from fairactor._model.wire import sized, turn_mark, unpack_mark

from .comparison_kinds import compare_costs, compare_kinds, compare_rings
from .driver import ShardDriver, flat
from .model import Model
from .model_tasks import DIED, ENDED, LIVE, Task, pack


def learn(driver: ShardDriver, model: Model, before: Snapshot, snapshot: Snapshot, delay: float) -> None:
    """Copies the server's times from the snapshot to the model; asserts that they are possible. ``delay`` in ms."""
    clock = float(before.fixed["META"].get("stamp", 0))
    for task in model.tasks.values():
        if DIED in task.body:
            stored = driver.db.get(driver.keys.task(task.id))
            assert isinstance(stored, bytes)
            task.body = _with_deaths(task, stored.removeprefix(pack(task.letter, task, b"")))
    for task in model.tasks.values():
        if task.state == "started" and math.isnan(task.since):
            mark = unpack_mark(snapshot.claims[task.runtime][task.id])
            assert math.isclose(mark.charged, task.charged, rel_tol=1e-12)
            task.since, task.charged = mark.ms, mark.charged
        if task.state == "scheduled" and math.isnan(task.due):
            task.due = snapshot.due[task.id]
            said = task.due / 1000 - (delay / 1000 if task.due / 1000 > snapshot.now else 0)
            assert before.now - 0.001 <= said <= snapshot.now
        if math.isnan(task.stamp):
            task.stamp = snapshot.records[task.id].stamp
            if task.later and task.state == "deferred":
                task.due = task.stamp / 1000
            elif task.state == "scheduled":
                assert task.stamp == task.due * 1000
            else:
                assert task.stamp > clock
                clock = task.stamp
    assert float(snapshot.fixed["META"].get("stamp", 0)) >= clock


def _with_deaths(task: Task, stored: bytes) -> bytes:
    """Returns the stored body; asserts that it is the task's, apart from the times of its runtimes' deaths."""
    parts = task.body.split(DIED)
    pattern = b"".join(map(re.escape, parts[:1]))
    for runtime, rest in zip(parts[1::2], parts[2::2], strict=True):
        reason, _, name = runtime.decode().partition(" ")
        who, error = re.escape(_lua_json(name)), _ERRORS.get(reason, "WorkerDied")
        line = rf'\n\[{task.attempt},[\d.]+,0,{who},"{error}","[^"]+"\]'
        pattern += line.encode() + re.escape(rest)
    assert re.fullmatch(pattern, stored, re.DOTALL), f"{pattern!r} and {stored!r}"
    return stored


_ERRORS = {"silent": "LeaseLost", "refused": r"fairactor\.errors\.InvalidPayload"}


def _lua_json(text: str) -> str:
    """Encodes a string as Lua's cjson does."""
    return json.dumps(text, ensure_ascii=False).replace("/", "\\/").replace("\x7f", "\\u007f")


def compare(driver: ShardDriver, model: Model, before: Snapshot, snapshot: Snapshot) -> None:
    """Asserts that a shard holds what the model holds."""
    assert snapshot.fixed["LEASES"].keys() == model.leases.keys()
    turns = {
        who: turn_mark(number) + sized(model.handed.get(who, "").encode()) + msgspec.msgpack.encode([had, refused])
        for who, (number, refused, had) in model.turns.items()
    }
    assert snapshot.fixed["SESSIONS"] == turns
    assert {name: snapshot.policy(name) for name in snapshot.fixed["POLICY"]} == model.rules.policies
    _compare_tasks(model, snapshot)
    _compare_counts(model, snapshot)
    compare_kinds(model, before, snapshot)
    compare_rings(model, snapshot)
    _compare_limits(driver, model, snapshot)
    if model.rules.by_time:
        compare_costs(driver, model, before, snapshot)


def _compare_limits(driver: ShardDriver, model: Model, snapshot: Snapshot) -> None:
    rules = model.rules
    ahead = {name: math.ceil((due / 1e6 - snapshot.now) / 3600) for name, due in snapshot.fixed["RATES"].items()}
    found = {name: starts if starts >= 0 else -math.inf for name, starts in ahead.items()}
    assert found == rules.ahead, f"{found} and {rules.ahead}"
    assert snapshot.fixed["THROTTLED"].keys() == rules.throttled
    for name, until in snapshot.fixed["THROTTLED"].items():
        assert (until / 1000 <= snapshot.now) is model.rules.free(name), name
    prefix = f"{driver.keys.meta}:reserved:"
    reserved = {
        (key.decode().removeprefix(prefix), own.decode()): struct.unpack(">dd", packed)[0]
        for key in driver.db.keys(prefix + "*")
        for own, packed in driver.db.hgetall(key).items()
    }
    assert reserved == model.reserved


def _compare_tasks(model: Model, snapshot: Snapshot) -> None:
    queues: dict[tuple[str, str], list[str]] = {}
    for task in [task for name in model.tenants for task in model.queue(name)]:
        queues.setdefault((task.lane or "", task.tenant), []).append(task.id)
    found = {place: list(mailbox) for place, mailbox in snapshot.mailboxes.items()}
    assert found == queues, {
        place: (found.get(place), queues.get(place))
        for place in found | queues
        if found.get(place) != queues.get(place)
    }
    live = [task for task in model.tasks.values() if task.state in LIVE]
    assert snapshot.due == {task.id: task.due for task in live if task.state == "scheduled"}
    suspects = {name: [task.id for task in model.suspects(name)] for name in model.tenants}
    assert {name: list(ids) for name, ids in snapshot.suspects.items()} == {
        n: ids for n, ids in suspects.items() if ids
    }
    model.suspected = snapshot.fixed["SUSPECTED"]
    claims: dict[str, dict[str, tuple[bytes, int, bytes, bool]]] = {}
    for task in live:
        if task.state == "started":
            mark = turn_mark(task.turn), task.priority, task.tenant.encode(), task.alone
            claims.setdefault(task.runtime, {})[task.id] = mark
    marks = {who: {task: unpack_mark(mark) for task, mark in held.items()} for who, held in snapshot.claims.items()}
    assert {
        who: {task: (m.turn, m.priority, m.tenant, m.alone) for task, m in held.items()} for who, held in marks.items()
    } == claims
    watchers = {task.id: msgspec.msgpack.encode(task.watchers) for task in live if task.watchers}
    assert snapshot.fixed["WATCHERS"] == watchers
    assert snapshot.fixed["PROGRESS"] == {task.id: task.progress for task in live if task.progress}
    assert {task: runtime for runtime, cancels in snapshot.cancels.items() for task in cancels} == {
        task.id: task.runtime for task in live if task.canceling
    }
    letters = {task for task, until in snapshot.fixed["DEAD"].items() if until / 1e6 > snapshot.now}
    assert letters == {task.id for task in model.tasks.values() if task.state == "failed"}
    assert snapshot.fixed["DEAD"].keys() - letters == model.stale
    assert {key: (task, ttl != -1) for key, (task, ttl) in snapshot.keys.items()} == {
        f"{len(tenant.encode())}:{tenant}{key}": held for (tenant, key), held in model.keys.items()
    }
    assert {task: follower.decode() for task, follower in snapshot.fixed["AGAIN"].items()} == model.again
    assert snapshot.fixed["HELD"].keys() == {task.id for task in live if task.state == "deferred"}
    headers = {
        task_id: (h.state, h.deliveries, h.priority, h.attempt, h.stamp, h.tenant)
        for task_id, h in snapshot.records.items()
    }
    assert headers == {
        t.id: (t.letter, t.deliveries, t.priority, t.attempt, t.stamp, t.tenant) for t in model.tasks.values()
    }


def _compare_counts(model: Model, snapshot: Snapshot) -> None:
    counts = {name: counted for name in model.tenants if (counted := model.counts(name))}
    assert {name: flat(counted) for name, counted in snapshot.counts.items()} == counts
    total = flat(Counts.unpack(snapshot.fixed["META"].get("total", b"")))
    assert {state: number for state, number in total.items() if state in ENDED.values()} == +model.total
