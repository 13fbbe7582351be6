"""The workload of a seed on a group of servers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from fairactor._model.keys import shard_of
from fairactor.errors import NotReplicated, ServerError, TaskNotFound
from tests.support.polling import until
from tests.support.proxy import Proxy

from . import actors
from .disturber import Disturber
from .group_plan import SHARDS
from .growing import is_withdrawn
from .harness_client import HarnessClient
from .pipelines import Ends, Pipeline, Step
from .plan import Job, Plan
from .schedules import PlannedSchedule
from .workload import Serving, Workload

_PROBE_EACH = 0.1
"""Seconds between two probes of a shard."""
_RETRY = 0.2
"""Seconds until a send is tried again that too few replicas have confirmed."""


class GroupWorkload(Workload):
    """Runs the workload of one seed on a group of servers, which is disturbed meanwhile.

    What a primary may take with it when it dies is told apart: without replication tasks that it had just accepted, in
    any case what became of tasks in its last moments. That is done again, perhaps with another end.
    """

    def __init__(
        self,
        plan: Plan,
        harness: HarnessClient,
        before: Proxy,
        serving: Serving,
        note: Callable[[str], None],
        disturber: Disturber,
    ) -> None:
        super().__init__(plan, harness, before, serving, note)
        self._disturber = disturber
        disturber.last_fault = lambda: self._injector.last
        self._times: dict[str, list[float]] = {}  # when something about a task was acknowledged
        self._taken: set[str] = set()
        self._rolled_back: set[str] = set()
        self._withdrawn = 0
        self.facts.excuse = self._excuse
        self.facts.forgone = self._forgone

    def verdict(self) -> dict[str, Any]:
        found = super().verdict()
        more = self._disturber
        return found | {
            "violations": found["violations"] + more.violations,
            "faults": found["faults"] + more.counts,
            "taken": len(self._taken),
            "rolled_back": len(self._rolled_back),
            "withdrawn": self._withdrawn,
            "disturbed": len(more.resumed),
            "resumed": more.resumed,
        }

    async def _configure(self) -> None:
        await super()._configure()
        for schedule in self._plan.schedules:
            await self._again([schedule], self._add_schedule)
        await self._disturber.settle()  # settings are not what may get lost here

    def _later_schedules(self) -> Sequence[PlannedSchedule]:
        return ()

    async def _storm(self, watching: TaskGroup) -> None:
        watching.start_soon(self._disturber.watch)
        await super()._storm(watching)

    async def _disturb(self) -> None:
        async with anyio.create_task_group() as probing:
            for shard in range(SHARDS[self._plan.setup]):
                probing.start_soon(self._probe, shard)
            for planned in self._plan.disturbances:
                await self._disturber.disturb(planned)
            self._probing = False

    # Probes

    _probing = True

    async def _probe(self, shard: int) -> None:
        """Asks a shard again and again, and notes when it has answered."""
        shards = SHARDS[self._plan.setup]
        tenant = next(name for name in map("probe:{}".format, range(1000)) if shard_of(name, shards) == shard)
        number = 0
        while self._probing:
            name = f"probe {shard} {number}"
            message = actors.echo(number, 0.0).options(id=name, durability="server")
            job = Job(name, 0.0, tenant, message, number, "ask", awaited=True)
            self._plan.jobs.append(job)
            await self._again([job], self._ask)
            self._disturber.served[shard] = anyio.current_time()
            number += 1
            await anyio.sleep(_PROBE_EACH)

    # What is acknowledged, and what a primary takes with it

    def _saw(self, jobs: Sequence[Any]) -> None:
        now = anyio.current_time()
        for job in jobs:
            self._times.setdefault(job.id, []).append(now)

    async def _send_pipeline(self, at: float, pipeline: Pipeline, sending: TaskGroup) -> None:
        """Sends a graph between two disturbances: one over several shards is withdrawn if a call fails midway."""
        await anyio.sleep_until(at)
        await until(lambda: self._disturber.peace, math.inf)
        await super()._send_pipeline(at, pipeline, sending)

    async def _send_many(self, jobs: Sequence[Job | Step]) -> None:
        await super()._send_many(jobs)
        self._saw(jobs)

    async def _ask(self, jobs: Sequence[Job]) -> None:
        await super()._ask(jobs)
        self._saw(jobs)

    async def _cancel(self, jobs: Sequence[Job | Step]) -> None:
        try:
            await super()._cancel(jobs)
        except TaskNotFound:
            self._note(f"{jobs[0].id}: there is no such task to cancel")
        self._saw(jobs)

    async def _await(self, job: Job | Step) -> None:
        await super()._await(job)
        self._saw([job])

    async def _refused(self, error: ServerError, what: str) -> None:
        if isinstance(error, NotReplicated):
            self._note(f"{what}: {error}")
            await anyio.sleep(_RETRY)
        else:
            await super()._refused(error, what)

    def _carried_out(self, ends: Ends) -> list[Pipeline]:
        """Leaves out graphs over several shards that their sender withdrew because a call failed midway."""
        return [each for each in self._plan.pipelines if not self._is_withdrawn(each, ends)]

    def _is_withdrawn(self, pipeline: Pipeline, ends: Ends) -> bool:
        withdrawn = is_withdrawn(self.facts, pipeline, ends)
        if withdrawn:
            self._withdrawn += 1
            self._note(f"the graph of {pipeline.steps[0].id} was withdrawn, and what was sent again was not accepted")
        return withdrawn

    def _forgone(self) -> int:
        """Returns how many tasks without a record a primary may have taken with it, and what became of them."""
        jobs = () if self._plan.replicated else self._plan.jobs
        return sum(job.forgotten and any(map(self._disturber.may_be_gone, self._times.get(job.id, ()))) for job in jobs)

    def _excuse(self, task: str, text: str) -> bool:
        """Whether what is wrong with a task is what a primary may take with it."""
        lost = "lost" in text
        if lost and self._plan.replicated and not task.startswith("probe "):
            return False
        if not any(map(self._disturber.may_be_gone, self._times.get(task, ()))):
            return False
        (self._taken if lost else self._rolled_back).add(task)
        self._note(f"{task} is the price of a primary's death: {text}")
        return True
