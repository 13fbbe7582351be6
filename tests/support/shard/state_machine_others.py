"""Operations of the state machine beside sending and what runtimes do: canceling, configuring, asking, waiting."""

from __future__ import annotations

from typing import Any

from fairactor._model.counts import Counts

from .driver import flat
from .model_rules import GROUP
from .model_tasks import LIVE
from .operations import HOUR, OWN, RARE, TENANTS
from .state_machine_base import ShardMachineBase, packed_key


class OtherOperations(ShardMachineBase):
    def whose(self, task_id: str, who: str) -> str:
        """Returns the tenant on whose behalf to ask for a task: its own, '' for any, or the given one."""
        task = self.model.tasks.get(task_id)
        return task.tenant if who == OWN and task else who

    def cancel(self, which: int, who: str, keep: bool) -> None:
        self.cancel_task(self.task(which), keep, who)

    def cancel_task(self, task_id: str, keep: bool, who: str = "") -> None:
        tenant, ttl = self.whose(task_id, who), HOUR / 1000 if keep else 0
        found = self.driver.run(self.driver.shard.cancel(task_id, tenant, ttl=ttl, body=b"canceled"))
        assert found == self.model.cancel(task_id, b"canceled", tenant, keep=keep)
        self.compare()

    def cancel_many(self, tasks: list[tuple[int, str]], keep: bool) -> None:
        """Cancels several tasks in one call, some of them perhaps twice."""
        asked = [(task_id, self.whose(task_id, who)) for task_id, who in ((self.task(n), who) for n, who in tasks)]
        ttl = HOUR / 1000 if keep else 0
        found = self.driver.run(self.driver.shard.cancel_many(asked, ttl=ttl, body=b"canceled"))
        assert found == self.model.cancel_many(asked, b"canceled", keep=keep)
        self.compare()

    def cancel_all(self, which: int, keep: bool) -> None:
        """Cancels all waiting tasks of one tenant, one by one."""
        if waiting := list(self.model.served):
            for task in self.model.queue(waiting[which % len(waiting)]):
                self.cancel_task(task.id, keep)

    def purge(self, tenant: str, keep: bool) -> None:
        number = self.driver.run(self.driver.shard.purge(tenant, ttl=HOUR / 1000 if keep else 0, body=b"canceled"))
        assert number == self.model.purge(tenant, b"canceled", keep=keep)
        self.compare()

    def configure(self, which: int, changes: dict[str, Any]) -> None:
        served = self.model.served
        names = [name for name in self.model.tenants if self.model.of(name, "queued") and name not in served]
        tenant = names[which % len(names)] if names and which % 2 else TENANTS[which % len(TENANTS)]
        assert self.driver.configure(tenant, **changes) == self.model.configure(tenant, changes)
        self.compare_configured()

    def configure_defaults(self, changes: dict[str, Any]) -> None:
        found = self.driver.configure("", **changes)
        self.driver.run(self.driver.shard.review())
        assert found == self.model.configure("", changes)
        self.compare_configured()

    def configure_group(self, group: str, weight: float | None) -> None:
        found = self.driver.configure(b"\xff" + group.encode(), weight=weight)
        assert found == self.model.configure(GROUP + group, {"weight": weight})
        self.compare()

    def watch(self, who: str, tasks: list[tuple[int, str, str]]) -> None:
        asked = [
            (task_id, self.whose(task_id, of), inside)
            for task_id, of, inside in ((self.task(which), of, inside) for which, of, inside in tasks)
        ]
        assert self.driver.run(self.driver.shard.watch(who, asked)) == self.model.watch(who, asked)
        self.compare()

    def progress(self, who: int, which: int) -> None:
        runtime = self.runtime(who)
        held = [task.id for task in self.model.claims(runtime)]
        task_id = held[which % len(held)] if held and which < RARE else self.task(which)
        noted = self.driver.run(self.driver.shard.progress(runtime, task_id, b"[0.5]"))
        assert noted is self.model.note(runtime, task_id, b"[0.5]")
        self.compare()

    def ask(self, which: int, tenant: str) -> None:
        """Makes calls that only read."""
        task_id = self.task(which)
        task = self.model.tasks.get(task_id)
        found = self.driver.run(self.driver.shard.inspect(task_id, tenant))
        assert (found == []) is (task is None or task.tenant != tenant)
        found = self.driver.run(self.driver.shard.inspect(task_id))
        if task is None:
            assert found == []
        else:
            state = task.state if task.state in LIVE else "settled"
            due = float(found[2]) if found[2] else 0.0
            assert found[:2] == [state.encode(), task.record]
            assert due == (task.due - self.driver.behind if state == "scheduled" else 0.0)
            assert found[3].decode() == (task.runtime if state == "started" else "")
            assert (found[4] == -1) is (state != "settled")
            assert found[5] == (task.progress or b"")
        counts = self.driver.run(self.driver.shard.tenant_stats(tenant))
        assert flat(counts) == self.model.counts(tenant)
        assert counts.queued == len(self.model.of(tenant, "queued"))
        assert counts.started == len(self.model.of(tenant, "started"))
        stats = self.driver.run(self.driver.shard.stats())
        rules, total = self.model.rules, self.snapshot.fixed["META"].get("total", b"")
        started = sum(task.state == "started" for task in self.model.tasks.values())
        waiting = max(len(self.snapshot.root_ring(kind)) for kind in self.snapshot.numbers)
        assert stats.counts == Counts.unpack(total, started=started)
        assert (stats.stolen, stats.throttled) == (rules.stolen, len(rules.throttled))
        assert {name.decode() for name in stats.unassigned} == self.model.homeless()
        assert (stats.waiting, stats.known) == (waiting, len(self.snapshot.counts))
        assert stats.due == sum(at <= self.snapshot.now * 1000 for at in self.snapshot.due.values())
        assert stats.dead == len(self.list_dead_letters())
        assert {name.decode() for name, *_ in stats.runtimes} == self.model.leases.keys()

    # Dead letters

    def list_dead_letters(self) -> list[str]:
        return [task.id for task in self.model.tasks.values() if task.state == "failed"]

    def redrive(self, tenant: str, asked: list[tuple[int, str, bool]]) -> None:
        dead = self.list_dead_letters()
        tasks = [
            (dead[which % len(dead)] if dead and which < RARE else self.task(which), key, window and bool(key))
            for which, key, window in asked
        ]
        packed = [(task, packed_key(key, window)) for task, key, window in tasks]
        assert self.driver.run(self.driver.shard.redrive(packed, tenant)) == self.model.redrive(tasks, tenant)
        self.compare()

    def discard(self, tenant: str, asked: list[int]) -> None:
        dead = self.list_dead_letters()
        tasks = [dead[which % len(dead)] if dead and which < RARE else self.task(which) for which in asked]
        assert self.driver.run(self.driver.shard.discard(tasks, tenant)) == self.model.discard(tasks, tenant)
        self.compare()

    def read_letters(self) -> None:
        """Reads all dead letters, two at a time."""
        met: dict[str, bytes] = {}
        place = 0
        while True:
            _, page, more = self.driver.run(self.driver.shard.list_dead_letters(place, 3))
            met |= {letter.id: letter.record for letter in page if letter.record}
            if not more or page[-1].place == place:
                break
            place = page[-1].place
        if all(place > 1 for place in self.snapshot.fixed["DEAD"].values()):  # else one place holds more than a page
            assert met == {task: self.model.tasks[task].record for task in self.list_dead_letters()}

    def mend(self) -> None:
        """Repairs a shard without damage; nothing may change."""
        self.driver.run(self.driver.shard.repair())
        self.model.mend()
        self.compare()

    # The passing of time

    def forget_key(self, which: int) -> None:
        if left := [key for key, (_, ended) in self.model.keys.items() if ended]:
            self.driver.forget_key(*left[which % len(left)])
            self.model.forget_key(*left[which % len(left)])
            self.compare()

    def make_due(self, which: int, at: int) -> None:
        if waiting := [task for task in self.model.tasks.values() if task.state == "scheduled"]:
            task = waiting[which % len(waiting)]
            task.due = at
            self.driver.make_due(task.id, at)
            self.compare()

    def let_start(self, which: int) -> None:
        ahead = list(self.model.rules.ahead)
        if held := (self.model.rules.throttled & set(ahead) if which % 3 else None):
            ahead = sorted(held)
        if ahead:
            tenant = ahead[which % len(ahead)]
            if self.model.rules.ahead[tenant] >= 1:
                self.driver.let_start(tenant)
            else:
                self.driver.db.zadd(self.driver.keys.fixed("RATES"), {tenant: 1})
            self.model.let_start(tenant)
            self.compare()

    def lapse(self, who: int) -> None:
        runtime = self.runtime(who % RARE)
        self.driver.lapse(runtime)
        self.model.lapse(runtime)
        self.compare()

    def expire(self, which: int) -> None:
        if settled := [task_id for task_id, task in self.model.tasks.items() if task.state not in LIVE]:
            self.driver.expire(settled[which % len(settled)])
            self.model.expire(settled[which % len(settled)])
            self.compare()

    def outlive(self, tenant: str) -> None:
        kept = [task for task in self.model.tasks.values() if task.tenant == tenant and task.state not in LIVE]
        if self.model.counts(tenant) and not kept:
            self.driver.outlive(tenant)
            self.model.outlive(tenant)
            self.compare()
