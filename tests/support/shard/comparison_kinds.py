"""Compares what a shard keeps by kind of runtimes with the model: lanes, rings, homes, debts."""

from __future__ import annotations

import math
import struct

from fairactor._audit.routes import MARK
from fairactor._audit.snapshot import Snapshot

from .driver import ShardDriver
from .model import Model
from .model_ring import Ring, Service
from .model_rules import GROUP, Costs


def compare_kinds(model: Model, before: Snapshot, snapshot: Snapshot) -> None:
    """Compares the kinds of runtimes, and which lanes they serve. Copies since when a lane is not served."""
    lanes, fixed = model.lanes, snapshot.fixed
    assert snapshot.numbers == list(lanes.kinds)
    assert {who: kind.decode() for who, kind in fixed["KIND_OF"].items()} == lanes.kind_of
    for number, kind in lanes.kinds.items() if lanes.known else ():
        queues = dict.fromkeys([MARK, *map(MARK.__add__, kind.queues)], "1") if kind.queues is not None else {}
        filling = {f"{MARK}{MARK}filling"} & snapshot.kinds[number].keys()
        assert {actor: said.decode() for actor, said in snapshot.kinds[number].items() if actor not in filling} == {
            **kind.actors, **queues,
        }  # fmt: skip
        assert bool(filling) is (number in model.filling)
    assert fixed["ROUTES"].keys() == lanes.routes
    assert fixed["LANES"].keys() == lanes.unserved.keys()
    for lane, since in fixed["LANES"].items():
        told, now = lanes.unserved[lane], snapshot.now * 1000
        # If one tenant's tasks leave the lane and those of another come, it may be as if the lane were new.
        is_new = math.isnan(told) or told > 0
        assert float(since) == told or (is_new and before.now * 1000 - 1 <= float(since) <= now), lane
        lanes.unserved[lane] = float(since)
    assert lanes.sorting is ("sorting" in fixed["META"])
    assert lanes.used is (fixed["META"].get("lanes") == b"1")


def adopt(found: dict[str, float], told: dict[str, float]) -> None:
    """Asserts that the numbers agree up to floating-point rounding, then copies the shard's numbers to the model."""
    assert found.keys() == told.keys()
    for name, number in found.items():
        assert math.isclose(number, told[name], rel_tol=1e-12, abs_tol=1e-9), f"{name!r}: {number} and {told[name]}"
    told.update(found)


def compare_rings(model: Model, snapshot: Snapshot) -> None:
    for kind in snapshot.numbers:
        service = model.service_of(kind)
        if kind in model.filling:  # which tenants join it before it is filled is up to the server
            _adopt_ring(service, snapshot)
        elif (
            model.lanes.made and not service.root.tags
        ):  # the next script for the kind restarts its time, or a later one
            _adopt_times(service, snapshot)
        _compare_ring(service, snapshot)
    assert model.services.keys() <= set(snapshot.numbers)
    homes = model.homes
    times = {runtime: home.virtual for runtime, home in homes.items()}
    adopt({runtime: float(time) for runtime, time in snapshot.fixed["HOMES"].items()}, times)
    for runtime, home in homes.items():
        home.virtual = times[runtime]
        assert snapshot.assigned.get(runtime, {}).keys() == home.assigned
        assert snapshot.steal.get(runtime, {}).keys() == home.steal
    assert snapshot.assigned.keys() | snapshot.steal.keys() <= homes.keys()
    assert snapshot.fixed["INDEXED"].keys() == homes.keys()
    for index in (snapshot.assigned_to, snapshot.stolen_by):
        assert set().union(*index.values()) <= homes.keys()
    assert int(snapshot.fixed["META"].get("stolen", 0)) == model.rules.stolen


def _suffix(kind: str) -> str:
    return "" if kind == "0" else f":{kind}"


def _adopt_ring(service: Service, snapshot: Snapshot) -> None:
    service.root.tags = dict(snapshot.root_ring(service.kind))
    times = snapshot.group_times(service.kind)
    rings = snapshot.group_rings(service.kind)
    service.groups = {GROUP + group: Ring(float(times[group]), dict(ring)) for group, ring in rings.items()}


def _adopt_times(service: Service, snapshot: Snapshot) -> None:
    service.root.virtual = float(snapshot.fixed["META"].get("virtual" + _suffix(service.kind), 0))
    for runtime, home in service.homes.items():
        home.virtual = float(snapshot.fixed["HOMES"][runtime])


def _compare_ring(service: Service, snapshot: Snapshot) -> None:
    kind = service.kind
    virtual = {"": float(snapshot.fixed["META"].get("virtual" + _suffix(kind), 0))}
    rings = {"": snapshot.root_ring(kind)}
    told = {"": service.root} | service.groups
    for group, ring in snapshot.group_rings(kind).items():
        virtual[GROUP + group], rings[GROUP + group] = float(snapshot.group_times(kind)[group]), ring
    assert rings.keys() == told.keys()
    for name, ring in rings.items():
        assert math.isclose(told[name].virtual, virtual[name], rel_tol=1e-12, abs_tol=1e-9), f"{name!r} of kind {kind}"
        told[name].virtual = virtual[name]
        adopt(ring, told[name].tags)


def _period(kind: str, snapshot: Snapshot) -> int:
    """Returns how often the virtual time of a kind has restarted."""
    return int(snapshot.fixed["META"].get("period" + _suffix(kind), 0))


def _forgive(model: Model, before: Snapshot, snapshot: Snapshot) -> None:
    """Clears all debts to a kind once no tenant waits; asserts that the server did so at a possible moment."""
    for kind in snapshot.numbers:
        grown = _period(kind, snapshot) - _period(kind, before)
        now, then = snapshot.root_ring(kind), before.root_ring(kind)
        if len(snapshot.numbers) == len(before.numbers) == 1 and model.scripts == 1:
            assert grown == 0 if now else grown == 1 if then else grown in {0, 1}
        if grown:
            model.service_of(kind).forgive()


def compare_costs(driver: ShardDriver, model: Model, before: Snapshot, snapshot: Snapshot) -> None:
    _forgive(model, before, snapshot)
    told = model.rules.costs
    prefix = driver.keys.meta.encode() + b":costs:"
    kept = {key.removeprefix(prefix).decode(errors="surrogateescape"): key for key in driver.db.keys(prefix + b"*")}
    assert kept.keys() <= told.keys()
    for name in told:
        costs = _read_costs(driver, kept[name], snapshot) if name in kept else Costs()
        adopt(costs.actors, told[name].actors)
        assert costs.average is told[name].average is None or math.isclose(costs.average or 0, told[name].average or 0)
        for kind in snapshot.numbers:
            adopt({kind: costs.debts.get(kind, 0.0)}, {kind: told[name].debts.get(kind, 0.0)})
        told[name] = costs


def _read_costs(driver: ShardDriver, key: bytes, snapshot: Snapshot) -> Costs:
    costs = Costs()
    for field, packed in driver.db.hgetall(key).items():  # type: ignore[union-attr]  # the client is synchronous
        if field and field[:1] != MARK.encode():
            (costs.actors[field.decode()],) = struct.unpack(">d", packed)
            continue
        kind = field[1:].decode() or "0"
        average, debt, period = struct.unpack(">ddd", packed)
        if not field:
            costs.average = None if average < 0 else average
        if kind in snapshot.numbers and period == _period(kind, snapshot):
            costs.debts[kind] = debt
    return costs
