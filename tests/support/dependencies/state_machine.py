"""Compares dependent tasks on two shards with the model of `tests.support.dependencies.model`.

``python -m tests.support.dependencies.state_machine URL STEPS`` takes at least STEPS steps on the server at URL, which
must be empty.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from fairactor_dependencies._options import RULES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from fairactor._model import record
from fairactor._model.wire import Settlement, turn_mark
from tests.support.shard.state_machine_base import pairs

from .model import LIVE, Step
from .state_machine_base import CANCELED, HOUR, RESULTS, TENANTS, TwoShardsMachineBase
from .two_shards import TwoShards


class TwoShardsMachine(TwoShardsMachineBase):
    """Runs every operation on the scripts and on the model, and compares them."""

    @initialize(
        few=st.sampled_from([None, None, (1, 1, 1, 1), (2, 2, 1, 1), (3, 2, 2, 2), (2, 100, 50, 10)]),
        asks=st.booleans(),
    )
    def open(self, few: tuple[int, int, int, int] | None, asks: bool) -> None:
        self.shards.open(few)
        self.model.under_way, self.model.asks = self.shards.under_way, self.shards.asks
        self.join(0)
        self.join(1)
        if asks:  # a task on the other shard depends on one of a shard without dependent tasks
            self.send([("t", "all_done", [], 0, False, 3)], gated=False, keep=True)
            self.send([("u", "all_done", [0], 3, False, 3)], gated=False, keep=True)
            self.carry_all()

    @rule(operation=st.deferred(lambda: st.one_of(*OPERATIONS)))
    def do(self, operation: tuple[str, tuple[Any, ...]]) -> None:
        name, arguments = operation
        self.failed = True
        getattr(self, name)(*arguments)
        self.failed = False

    def teardown(self) -> None:
        """Ends all tasks, and asserts that none waits forever and that the plugin leaves no keys behind."""
        if not self.numbers or self.failed:
            return
        for run in list(self.calls):
            self.send_on(run, 0)
        while any(self.items.values()):
            self.send_items(0, 100)
        for _ in range(200):
            self.carry_all()
            if not self.model.of(*LIVE):
                break
            for shard in (0, 1):
                self.wake(shard)
                self.turn(shard, 50, [(0, "F", 0, True)] * 50)
        assert not self.model.of(*LIVE)
        for driver, keys in zip(self.shards.drivers, self.shards.keys, strict=True):
            left = {
                key
                for key in keys
                if key != "remote" and not key.startswith(("gate:", "early:", "map:", "end:", "fill:"))
            }
            assert not left, f"all has ended, and {driver.keys.meta} has {left}"

    # Running

    def turn(self, shard: int, want: int, ended: list[tuple[int, str, int, bool]]) -> None:
        driver, runtime = self.shards.drivers[shard], self.runtime(shard)
        held = [one for one in self.model.of("started") if one.runtime == runtime]
        settled: dict[str, Settlement] = {}
        after: list[Callable[[], None]] = []
        for which, letter, result, keep in ended:
            left = [one for one in held if one.id not in settled]
            if left:
                one = left[which % len(left)]
                settled[one.id], change = self.settle(one, letter, RESULTS[result % len(RESULTS)], keep)
                after.append(change)
        number = self.numbers[shard, runtime] = self.numbers[shard, runtime] + 1
        turn = driver.turn(runtime, number, want, list(settled.values()))
        assert turn is not None
        assert not turn.refused
        for change in after:
            change()
        claimed = [task.decode() for task in turn.claims[::2]]
        assert all(self.model.steps[task].state in ("queued", "deferred") for task in claimed)
        for task in claimed:
            if self.model.steps[task].state == "queued":
                self.model.steps[task].state = "started"
                self.model.steps[task].runtime = runtime
        self.compare()
        for task in claimed:
            self.model.steps[task].turn = number
        again = driver.turn(runtime, number, want, list(settled.values()))
        assert again is not None
        assert pairs(again) == pairs(turn)

    def settle(self, one: Step, letter: str, result: str, keep: bool) -> tuple[Settlement, Callable[[], None]]:
        """Returns a settlement for a claim, and the function that applies it to the model."""
        packed = self.shards.record(one)
        header, body = record.unpack(packed)
        ms = HOUR if keep or letter in "RX" else 0
        canceled = one.canceling is not None and letter in "RB"

        def change() -> None:
            if canceled:
                self.model.end(one, "canceled", "C", kept=bool(one.canceling))
            elif letter == "F":
                one.result = result
                self.model.end(one, "finished", "F", kept=keep)
            elif letter == "X":
                self.model.end(one, "failed", "X", kept=True)
            else:
                one.state = "scheduled" if letter == "R" else "queued"
                one.deliveries *= letter != "R"  # an attempt that has ended clears a suspect

        if letter == "F":
            outcome = record.Outcome("step", record.msgspec.Raw(result.encode()), None, 1.5, 2.5)
            packed = record.pack_settled("F", header.rest, outcome, record.without_call(body))
        elif letter == "X":
            packed = record.pack_settled("X", header.rest, record.Outcome("step", error=record.Error("E", "no")), body)
        elif letter == "R":
            packed = record.pack_retried(header, body, record.Attempt(header.attempt, 1.0, 0.5, "r", "E", "again"))
            one.body += b"\n" + record.encode(record.Attempt(header.attempt, 1.0, 0.5, "r", "E", "again"))
        return Settlement(one.id, turn_mark(one.turn), letter, ms, packed), change

    def work(self, shard: int, letters: str, result: int) -> None:
        """Ends the claimed tasks and claims more."""
        self.turn(shard, 4, [(0, letters[n % len(letters)], result + n, n != 3) for n in range(6)])

    def wake(self, shard: int) -> None:
        for one in self.model.of("scheduled"):
            if one.shard == shard:
                self.shards.drivers[shard].make_due(one.id)
                one.state = "queued"
        self.shards.drivers[shard].maintain()
        self.compare()

    def die(self, shard: int, deliveries: int, leaves: bool) -> None:
        driver, runtime = self.shards.drivers[shard], self.runtime(shard)
        if leaves:
            driver.run(driver.shard.leave(runtime))
        else:
            driver.lapse(runtime)
            driver.maintain(deliveries=deliveries)
        for one in self.model.of("started"):
            if one.runtime == runtime:
                one.deliveries += not leaves
                one.runtime = ""
                if one.canceling is not None:
                    self.model.end(one, "canceled", "C", kept=one.canceling)
                elif not leaves and one.deliveries >= (deliveries if deliveries == 1 else 2 * deliveries):
                    self.model.end(one, "failed", "X", kept=True)
                else:
                    one.state = "queued"
        self.join(shard)
        self.compare()

    def redrive(self, which: int) -> None:
        one = self.pick(self.model.of("failed"), which)
        if one and one.kept:
            while f"t{one.id}" in self.shards.rest[one.shard]:  # otherwise its two outcomes would be indistinguishable
                self.take(one.shard, 0)
            assert self.shards.drivers[one.shard].run(
                self.shards.drivers[one.shard].shard.redrive([(one.id, b"")])
            ) == [True]
            self.model.redrive(one)
            self.compare()

    # Ending

    def run_out(self, which: int) -> None:
        """Lets the time of a gate run out."""
        if self.calls:
            run = self.pick(list(self.calls), which)
            self.due.add(run.id)
            self.shards.plugins[run.shard].set_due(run.id)
            self.take(run.shard, 5)

    def cancel(self, which: int, state: str, keep: bool) -> None:
        one = self.pick(self.model.of(state) or list(self.model.steps.values()), which)
        if one is None:
            return
        driver = self.shards.drivers[one.shard]
        found = driver.run(driver.shard.cancel(one.id, ttl=HOUR / 1000 if keep else 0, body=CANCELED))
        assert found == (one.state if one.kept else "missing")
        if found == "started":
            one.canceling = keep
        elif one.live:
            self.model.end(one, "canceled", "C", kept=True)
        self.compare()

    def purge(self, tenant: str, keep: bool) -> None:
        driver = self.shards.drivers[TENANTS[tenant]]
        driver.run(driver.shard.purge(tenant, ttl=HOUR / 1000 if keep else 0, body=CANCELED))
        for one in self.model.of("queued", "scheduled"):
            if one.tenant == tenant:
                self.model.end(one, "canceled", "C", kept=keep)
        self.compare(tenant)

    def expire(self, which: int) -> None:
        one = self.pick([one for one in self.model.steps.values() if not one.live and one.kept], which)
        if one:
            self.shards.drivers[one.shard].expire(one.id)
            self.model.expire(one)
            self.compare()

    def mend(self, shard: int) -> None:
        self.shards.drivers[shard].run(self.shards.drivers[shard].shard.repair())
        self.compare()

    # Delivery between shards

    def take(self, shard: int, most: int) -> int:
        more, _, *messages = self.shards.drivers[shard].run(
            self.shards.call(shard, "take", max(most, 1), 0 if most % 2 else HOUR)
        )
        assert (more == -1) is (not messages and not self.shards.used(shard))
        self.shards.air[shard] += messages[:most]
        gates = self.shards.plugins[shard].gates()
        for run in self.model.runs:
            if run.shard == shard and not run.ended and run.id not in gates:
                assert run.id in self.due, "it was shut before its time"
                run.ended = "C"
        self.compare()
        return int(more)

    def carry(self, shard: int, which: int, lost: bool) -> None:
        """Delivers some of the messages that were taken, in any order; with ``lost`` they are delivered again later."""
        air = self.shards.air[shard]
        chosen = [air[(which * 7 + n) % len(air)] for n in range(1 + which % 3)] if air else []
        self.deliver(shard, list(dict.fromkeys(chosen)), lost)

    def deliver(self, shard: int, messages: list[bytes], lost: bool = False) -> None:
        for to in (0, 1):
            some = [message for message in messages if int.from_bytes(message[:2], "big") == to]
            while some:
                del some[: self.shards.drivers[to].run(self.shards.call(to, "arrive", *some))]
                self.compare()
        if messages and not lost:
            self.shards.drivers[shard].run(self.shards.call(shard, "ack", *messages))
            self.shards.air[shard] = [message for message in self.shards.air[shard] if message not in messages]
            self.compare()

    def carry_all(self) -> None:
        """Delivers messages until none is left."""
        for _ in range(1000):
            for shard in (0, 1):
                self.shards.plugins[shard].make_due()
                self.take(shard, 100)
                self.deliver(shard, list(dict.fromkeys(self.shards.air[shard])))
            if not (any(self.shards.rest) or any(self.shards.outbox) or any(self.shards.air)):
                return
        raise AssertionError("it does not end")


def operations(share: int, name: str, *arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(name), st.tuples(*arguments)) for _ in range(share)]


pick, shard = st.integers(0, 99), st.sampled_from([0, 0, 1])
tenants = st.sampled_from(list(TENANTS))
tasks = st.tuples(
    tenants,
    st.sampled_from(["all_success", *RULES]),
    st.lists(pick, max_size=3),
    st.integers(0, 12),
    st.sampled_from([False, False, False, False, True]),
    st.sampled_from([3, 3, 1, 6]),
)
outcomes = st.tuples(pick, st.sampled_from("FFFXXRB"), pick, st.sampled_from([True, True, True, False]))
OPERATIONS: Final = [
    *operations(
        6, "send", st.lists(tasks, min_size=1, max_size=7), st.sampled_from([False, False, True]), st.booleans()
    ),
    *operations(3, "more", pick),
    *operations(1, "shut", pick),
    *operations(1, "run_out", pick),
    *operations(1, "map", pick, st.integers(1, 4)),
    *operations(2, "send_items", pick, st.integers(1, 3)),
    *operations(1, "stop", pick),
    *operations(5, "turn", shard, st.integers(0, 4), st.lists(outcomes, max_size=4)),
    *operations(5, "work", shard, st.sampled_from(["F", "F", "FX", "X", "FFX", "R"]), pick),
    *operations(1, "wake", shard),
    *operations(1, "die", shard, st.sampled_from([1, 2, 5]), st.booleans()),
    *operations(1, "redrive", pick),
    *operations(4, "cancel", pick, st.sampled_from(["", "deferred", "deferred", "queued", "started"]), st.booleans()),
    *operations(1, "purge", tenants, st.booleans()),
    *operations(1, "expire", pick),
    *operations(1, "mend", shard),
    *operations(4, "take", shard, st.integers(0, 5)),
    *operations(4, "carry", shard, pick, st.booleans()),
    *operations(1, "carry_all"),
]


def drive(url: str, steps: int) -> int:
    """Runs the machine until it has taken at least ``steps`` steps; returns their number."""
    TwoShardsMachine.shards, TwoShardsMachine.steps = TwoShards(url), 0
    how = settings(stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        while (left := steps - TwoShardsMachine.steps) > 0:
            examples = min(30, left // 60 + 1)
            run_state_machine_as_test(TwoShardsMachine, settings=settings(how, max_examples=examples))
    finally:
        TwoShardsMachine.shards.close()
    return TwoShardsMachine.steps


if __name__ == "__main__":
    print(drive(sys.argv[1], int(sys.argv[2])))  # noqa: T201 - asked for on the command line
