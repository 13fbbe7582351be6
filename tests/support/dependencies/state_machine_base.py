"""The base of the dependencies' state machine: its state, and the operations that send batches of dependent tasks."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fairactor_dependencies import result_of, results
from fairactor_dependencies._batch import BatchItem, hold_behind_gate, index_by_id, resolve_parents
from fairactor_dependencies._options import Parents
from fairactor_dependencies._placeholders import ResultOf, Selection
from hypothesis.stateful import RuleBasedStateMachine

from fairactor import Message, actor
from fairactor._client.envelope import encode_message
from fairactor._model.wire import Item

from .model import Model, Run, Step
from .two_shards import TwoShards

HOUR: Final = 3_600_000  # ms
TENANTS: Final = {"t": 0, "ż:'\"*": 0, "u": 1}
"""The tenants and their shards."""
ODD: Final = ("", "", "", " failed", "'\"\n", "ñ☃")
RESULTS: Final = (
    "1", '"x"', '{"a":[1,{"started_at":2}],"result":"\\"result\\":5","started_at":3}', '"%1 %%"', "[]", '"a\\nb ☃"',
)  # fmt: skip
CANCELED: Final = b'{"error":{"type":"TaskCanceled","message":"by hand"}}'


@actor(name="step")
async def step(*arguments: Any) -> None:
    """Is never run."""


class TwoShardsMachineBase(RuleBasedStateMachine):
    """Holds the scripts and the model, and sends the same batches to both."""

    shards: TwoShards
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.calls: dict[Run, list[list[tuple[Step, Item]]]] = {}  # not sent yet
        self.following: dict[Run, list[tuple[Step, BatchItem]]] = {}  # those whose parents are sent after them
        self.numbers: dict[tuple[int, str], int] = {}  # the last turn of each runtime
        self.count = 0
        self.failed = False
        self.items: dict[str, list[int]] = {}  # joining task -> the items that are still to be sent
        self.stopped: set[str] = set()  # joining tasks whose other items are refused
        self.due: set[str] = set()  # gates whose time has run out

    def compare(self, purged: str = "") -> None:
        """Compares the shards with the model; called after each step."""
        type(self).steps += 1
        self.shards.snapshot()
        self.shards.learn(self.model, purged)
        self.shards.compare(self.model)

    # State

    def pick(self, found: list[Any], which: int) -> Any:
        """Picks one of the latest 12 items; None if ``found`` is empty."""
        return found[-1 - which % min(len(found), 12)] if found else None

    def join(self, shard: int) -> None:
        runtime = f"r{len(self.numbers)}"
        self.numbers[shard, runtime] = 0
        self.shards.drivers[shard].join(runtime)

    def runtime(self, shard: int) -> str:
        return [runtime for of, runtime in self.numbers if of == shard][-1]

    # Sending

    def send(self, planned: list[tuple[Any, ...]], gated: bool, keep: bool) -> None:
        batch, steps = [], []
        for tenant, trigger, picks, wants, delayed, priority in planned:
            self.count += 1
            task_id = f"{self.count}{ODD[self.count % len(ODD)]}"
            parents = list(dict.fromkeys(parent for pick in picks if (parent := self.parent(pick, steps))))
            made = Step(
                task_id,
                tenant,
                TENANTS[tenant],
                trigger if parents else "all_success",
                parents,
                b"",
                delayed=delayed,
                keep=keep,
            )
            options = {"delay": HOUR / 1000} if delayed else {}
            message: Message[Any] = step(*self.arguments(wants, parents)).options(
                id=task_id, depends_on=parents, trigger_rule=trigger, priority=priority, **options
            )
            tenants = {each.id: each.tenant for each in (*self.model.steps.values(), *steps) if each.id in parents}
            batch.append(BatchItem(tenant, message, made.shard, Parents(parents, tenants)))
            steps.append(made)
        self.post(batch, steps, gated, HOUR if keep else 0)

    def parent(self, pick: int, steps: list[Step]) -> str:
        found = steps if pick % 2 and steps else list(self.model.steps.values())
        return self.pick(found, pick // 2).id if found else ""

    def arguments(self, wants: int, parents: list[str]) -> list[Any]:
        if not parents or wants < 3:
            return [wants]
        one = result_of(parents[wants % len(parents)])
        return [[one], [results()], [ResultOf(Selection.ALL_BUT_FIRST), one], [one, one, results()]][wants % 4]

    def post(self, batch: list[BatchItem], steps: list[Step], gated: bool, keep: int) -> None:
        of_batch = index_by_id(batch)
        homes = {
            parent: self.model.steps[parent].shard
            for each in steps
            for parent in each.parents
            if parent not in of_batch
        }
        self.check_unknown(homes)
        for each in batch:
            each.follow = gated and len(each.parents) > 1
            resolve_parents(each, batch, of_batch, homes, keep)
        within = any(parent in of_batch for each in batch for parent in each.parents)
        run = None
        if gated or (within and len({each.shard for each in batch}) > 1):
            run = Run(f"run{self.count}", steps[0].shard)
            hold_behind_gate(batch, of_batch, run.id, keep)
            self.shards.drivers[run.shard].run(self.shards.call(run.shard, "gate", run.id, HOUR, 1 - run.shard))
        calls: dict[int, list[tuple[Step, Item]]] = {0: [], 1: []}
        for each, made in zip(batch, steps, strict=True):
            made.follows = each.follow
            made.told = frozenset(
                parent
                for parent in made.parents
                if parent in of_batch and batch[of_batch[parent]].shard != made.shard and not each.follow
            )
            made.run = run if "gate" in each.script_input else None
            made.gate = "c" if made.run else "o"
            item = encode_message(*each.addressed(), watch=False, max_payload=1 << 20)
            if run is None and not within and not any(one.parents for one in batch):
                item = item._replace(extra=b"")  # no dependent tasks: it is sent as without the plugin
            made.body, made.token = item.body, each.script_input.get("token", "")
            calls[made.shard].append((made, item))
        if run is None:
            for call in calls.values():
                self.send_call(call)
            return
        halves = [half for call in calls.values() for half in (call[: len(call) // 2], call[len(call) // 2 :]) if half]
        self.calls[run] = halves
        self.following[run] = [pair for pair in zip(steps, batch, strict=True) if pair[1].follow]
        self.model.runs.append(run)
        self.compare()

    def check_unknown(self, homes: dict[str, int]) -> None:
        for shard in (0, 1):
            asked = [parent for parent, home in homes.items() if home == shard]
            steps = [self.model.steps[each] for each in asked]
            for whose in ("", "its own", "no one"):
                pairs = [part for step in steps for part in (step.id, step.tenant if whose == "its own" else whose)]
                known = self.shards.drivers[shard].run(self.shards.call(shard, "known", 1, *pairs)) if asked else []
                assert known == [int(step.kept and whose != "no one") for step in steps]
            for step in steps:
                self.model.ask(step)

    def send_call(self, call: list[tuple[Step, Item]]) -> None:
        if call:
            driver, items = self.shards.drivers[call[0][0].shard], [item for _, item in call]
            assert driver.send(*items) == [item.id for item in items]
            assert driver.send_again(*items) == [item.id for item in items]
            for made, _ in call:
                self.model.add(made)
            self.compare()

    def send_on(self, run: Run, which: int) -> None:
        """Sends the next call of a run; opens its gate after the last one."""
        calls = self.calls[run]
        if calls:
            last = next(n for n, call in enumerate(calls) if call[0][0].shard == calls[-1][0][0].shard)
            self.send_call(calls.pop(which % 2 and last))
        if not calls:
            del self.calls[run]
            self.send_parents(run)
            self.open_gate(run, "F")
        elif which == 0:
            self.send_on(run, 0)

    def send_parents(self, run: Run) -> None:
        """Sends the parents of those tasks that were sent without them."""
        for made, each in self.following.pop(run):
            for parent in [self.model.steps[parent] for parent in made.parents]:
                if parent.shard != made.shard and parent.run is run:
                    self.shards.run(parent.shard, "known", 1, parent.id, parent.tenant)
                    self.model.ask(parent)
            left = [msgspec.msgpack.encode(awaited) for awaited in each.awaited]
            while left:
                del left[: self.shards.run(made.shard, "fill", run.id, made.shard, *left)]
                made.follows = bool(left)
                self.compare()

    def more(self, which: int) -> None:
        if self.calls:
            self.send_on(self.pick(list(self.calls), which), 1 + which)

    def open_gate(self, run: Run, letter: str) -> None:
        ended = self.shards.drivers[run.shard].run(self.shards.call(run.shard, "open", run.id, letter)).decode()
        assert ended == (run.ended or letter)
        run.ended = ended
        self.compare()

    def shut(self, which: int) -> None:
        """Shuts the gate of a run whose sender gives up; its other calls may still arrive."""
        if self.calls:
            self.open_gate(self.pick(list(self.calls), which), "C")

    def map(self, which: int, many: int) -> None:
        """Makes a task wait for items that are sent later."""
        found = [one for one in self.model.of("deferred") if len(one.parents) == 1 and one.id not in self.items]
        child = self.pick(found, which)
        if child is None:
            return
        for _ in range(2):
            assert self.shards.run(child.shard, "map", child.id, many) == [1, 0]
        self.model.grow(child, [f"{child.id}/{number}" for number in range(many)])
        self.items[child.id] = list(range(many))
        self.compare()

    def send_items(self, which: int, many: int) -> None:
        """Sends the next items of a map, in a batch of their own."""
        joined = self.pick([one for one, left in self.items.items() if left], which)
        if joined is None:
            return
        join = self.model.steps[joined]
        numbers, self.items[joined] = self.items[joined][:many], self.items[joined][many:]
        call: list[tuple[Step, Item]] = []
        for number in numbers:
            item = BatchItem(join.tenant, step(number).options(id=f"{joined}/{number}"), join.shard, Parents())
            item.script_input |= {"item": (joined, number + 1), "keep": HOUR}
            packed = encode_message(*item.addressed(), watch=False, max_payload=1 << 20)
            made = Step(item.id, join.tenant, join.shard, "all_success", [], packed.body)
            made.refused = joined in self.stopped
            call.append((made, packed))
        self.send_call(call)

    def stop(self, which: int) -> None:
        """Stops a map: its other items are refused."""
        joined = self.pick(list(self.items), which)
        if joined is not None:
            sent = self.shards.run(self.model.steps[joined].shard, "mapped", joined, 1)[1]
            assert sent == self.shards.run(self.model.steps[joined].shard, "mapped", joined, 0)[1]
            self.stopped.add(joined)
            self.compare()
