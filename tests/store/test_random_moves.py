"""Random sends, cancels and turns while tenants move between two shards, with steps that are repeated and interrupted.

Whatever happens, each task is on one shard, or has ended once, and tasks of a tenant start in their order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from fairactor._model.arrival import Arrival
from fairactor._model.keys import Keys
from fairactor._model.layout import Layout
from fairactor._model.wire import pack_key
from fairactor._store.migration import Departure
from fairactor._store.script_runner import Elsewhere
from tests.support.shard.driver import ShardDriver, item, outcome

TENANTS: Final = ("a", "b", "c")
KEYS: Final = ("", "", "", "k1", "k2")


class Move:
    """The steps of a move, as the mover takes them. It may die after each, and another one begins again."""

    def __init__(self, world: World, tenant: str) -> None:
        self._world = world
        self._tenant = tenant
        self._steps = self._go()

    def step(self) -> bool:
        """Takes the next step, some twice; returns whether it was the last."""
        return next(self._steps, True)

    def _go(self) -> Iterator[bool]:
        old, new, tenant = self._world.old, self._world.new, self._tenant
        departure = self._twice(lambda: old.run(old.shard.depart(tenant, "hold")))
        yield False
        if departure.state != "gone":
            counts = old.run(old.shard.tenant_stats(tenant))
            if counts.started:
                old.run(old.shard.depart(tenant, "free"))
                return
            self._twice(lambda: new.run(new.shard.welcome(tenant, "arriving", departure)))
            yield False
        departure = self._twice(lambda: old.run(old.shard.depart(tenant, "go")))
        yield False
        if departure.state != "gone":
            old.run(old.shard.depart(tenant, "free"))
            return
        while tasks := self._twice(lambda: old.run(old.shard.export(tenant))):
            yield False
            yield from self._hand_over(tasks, departure)
        self._twice(lambda: new.run(new.shard.welcome(tenant, "served", departure)))
        self._world.moved.add(tenant)
        yield True

    def _hand_over(self, tasks: list[Arrival], departure: Departure) -> Iterator[bool]:
        old, new, tenant = self._world.old, self._world.new, self._tenant
        assert self._twice(lambda: new.run(new.shard.import_tasks(tenant, tasks))) == []
        yield False
        self._twice(lambda: old.run(old.shard.exported(tenant, [task.id for task in tasks])))
        yield False

    def _twice(self, call: Any) -> Any:
        found = call()
        return call() if self._world.random.random() < 0.3 else found


class World:
    """Two shards, and what is known of each task."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.old, self.new = ShardDriver(url), ShardDriver(url)
        self.new.keys = Keys("test", 1)
        self.new.load_plugins(self.new.shard._runner._plugins)
        self.old.open()
        self.new.run(self.new.shard.open(shards=None, aging=60.0))
        self.shards = (self.old, self.new)
        self.sent: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.moved: set[str] = set()
        self.moves: dict[str, Move] = {}
        self.claims: dict[ShardDriver, dict[str, int]] = {self.old: {}, self.new: {}}
        self.turns = {self.old: 0, self.new: 0}
        for shard in self.shards:
            shard.shard._runner._layout.epoch = 1
            shard.run(shard.shard.grow(Layout((1, 2), growing=True)))
            shard.join("r")
            for tenant in TENANTS:
                if shard is self.old:
                    shard.configure(tenant, concurrency=1)

    def close(self) -> None:
        self.new.close()
        self.old.close()

    def send(self) -> None:
        tenant, name = self.random.choice(TENANTS), f"t{len(self.numbers)}"
        self.numbers[name] = len(self.numbers)
        key, due = self.random.choice(KEYS), "+3600000" if self.random.random() < 0.15 else ""
        if self.random.random() < 0.1 and self.sent:
            name = self.random.choice(list(self.sent))
            tenant = self.sent[name]
        for shard in self.shards:
            packed = pack_key(f"{tenant}{key}", 0.0) if key else b""
            sent = item(name, tenant, due=due, key=packed)
            if shard is self.new:
                (found,) = self.old.run(self.old.shard.past(tenant, [(name, packed)]))
                if found:
                    return
            shard.batch += 1
            receipt = shard.run(shard.shard.send([sent], "sender", shard.batch))
            if any(isinstance(error, Elsewhere) for error in receipt.refused.values()):
                assert shard is self.old
                continue
            if receipt.ids == [name]:
                assert name not in self.sent, "it was accepted twice"
                self.sent[name] = tenant
            return

    def cancel(self) -> None:
        if not self.sent:
            return
        name = self.random.choice(list(self.sent))
        for shard in self.shards:
            (state,) = shard.run(shard.shard._run("cancel", 3_600_000, b"{}", name, self.sent[name]))
            if state == b"moving":
                return
            if state in {b"queued", b"scheduled"}:
                self._end(name, "canceled")
            if state != b"missing":
                return

    def purge(self) -> None:
        tenant = self.random.choice(TENANTS)
        if tenant in self.old.snapshot().leaving:
            return  # it waits until these have moved
        for shard in self.shards:
            before = {task for task, header in shard.snapshot().records.items() if header.state == b"L"}
            shard.run(shard.shard._run("purge", tenant, 3_600_000, b"{}", b"0"))
            after = {task for task, header in shard.snapshot().records.items() if header.state == b"L"}
            for name in before - after:
                self._end(name, "canceled")

    def turn(self) -> None:
        shard = self.random.choice(self.shards)
        held = self.claims[shard]
        done = [task for task in held if self.random.random() < 0.7]
        self.turns[shard] += 1
        ended = [outcome(task, held[task], tenant=self.sent[task]) for task in done]
        claimed = shard.claim("r", self.turns[shard], self.random.randint(0, 3), ended)
        for task in done:
            del held[task]
            self._end(task, "finished")
        for task in claimed:
            assert task not in self.ended, "it runs after its end"
            assert all(task not in each for each in self.claims.values()), "it runs twice"
            assert self.sent[task] not in {self.sent[each] for each in held}, "above its concurrency"
            held[task] = self.turns[shard]

    def move(self) -> None:
        tenant = self.random.choice(TENANTS)
        move = self.moves.get(tenant)
        if move is None or self.random.random() < 0.1:  # the one that leads has died
            move = self.moves[tenant] = Move(self, tenant)
        if move.step():
            del self.moves[tenant]

    def _end(self, task: str, how: str) -> None:
        assert task not in self.ended, f"{task} has {how}, and {self.ended[task]}"
        self.ended[task] = how

    def check(self) -> None:
        """Checks that each task is where it has to be. One on its way may be on both shards."""
        found: dict[str, list[ShardDriver]] = {}
        leaving: set[str] = set()
        for shard in self.shards:
            snapshot = shard.check()
            leaving.update(*snapshot.leaving.values())
            for task, header in snapshot.records.items():
                if header.state == b"L":
                    found.setdefault(task, []).append(shard)
        for task, places in found.items():
            assert len(places) == 1 or task in leaving, task
            assert task not in self.ended, task
        assert self.sent.keys() - self.ended.keys() <= found.keys(), "a task is lost"

    def finish(self) -> list[str]:
        """Completes all moves, and runs all tasks; returns the order in which they ran on the new shard."""
        for tenant in TENANTS:
            for _ in range(100):
                if tenant in self.moved:
                    break
                self.turns[self.old] += 1
                held = self.claims[self.old]
                self.old.claim(
                    "r", self.turns[self.old], 0, [outcome(t, n, tenant=self.sent[t]) for t, n in held.items()]
                )
                for task in held:
                    self._end(task, "finished")
                held.clear()
                move = Move(self, tenant)
                while not move.step():
                    pass
            assert tenant in self.moved
        order: list[str] = []
        held = self.claims[self.new]
        while True:
            self.turns[self.new] += 1
            ended = [outcome(task, number, tenant=self.sent[task]) for task, number in held.items()]
            claimed = self.new.claim("r", self.turns[self.new], 5, ended)
            for task in held:
                self._end(task, "finished")
            held.clear()
            if not claimed:
                break
            held.update(dict.fromkeys(claimed, self.turns[self.new]))
            order += claimed
        return order


def play(url: str, seed: int, steps: int) -> None:
    world = World(url, seed)
    try:
        for _ in range(steps):
            doing = world.random.choices(
                (world.send, world.cancel, world.turn, world.move, world.purge), (8, 1, 3, 6, 0.1)
            )[0]
            doing()
            world.check()
        order = world.finish()
        world.check()
        for tenant in TENANTS:
            numbers = [world.numbers[task] for task in order if world.sent[task] == tenant]
            assert numbers == sorted(numbers), f"the order of {tenant} has changed"
        snapshot = world.new.check()
        left = set(snapshot.due)
        assert world.sent.keys() == world.ended.keys() | left
        assert not [task for task, header in world.old.check().records.items() if header.state == b"L"]
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(12))
def test_each_task_is_on_one_shard_or_has_ended_once(url: str, seed: int) -> None:
    play(url, seed, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_each_task_is_on_one_shard_or_has_ended_once_for_long(url: str, seed: int) -> None:
    play(url, seed, 400)
