"""The workload of a seed: sends the tasks, injects the faults, and checks the results."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeVar

import anyio
import attrs
import redis
from anyio.abc import TaskGroup

from fairactor import Handle, Runtime, TaskCanceled
from fairactor.errors import FairactorError, NotReplicated, ServerError, ServerUnavailable
from tests.support.polling import until
from tests.support.proxy import Proxy

from .checks import Observations, check_places, check_tasks, ended_wrongly
from .fault_injector import FaultInjector
from .harness_client import HarnessClient, Worker
from .limits import SETTINGS, ClaimsMonitor, Pause
from .pipelines import Ends, Pipeline, Step, check_pipelines
from .plan import CAPS, Job, Plan
from .schedules import PlannedSchedule, check_schedules
from .shards import Shards

PATIENCE: Final = 40.0
"""Seconds in which something gets further, however busy the machine is, once the faults are over."""
_SHOWN: Final = 20  # violations
T = TypeVar("T")


@attrs.frozen
class Serving:
    """What serves, seen from the workload."""

    url: str
    """Its URL, through the proxy."""
    shards: Shards
    clients: Callable[[], Sequence[redis.Redis]]
    """Returns plain clients of the servers that answer now."""
    monitored: str = ""
    """The socket of the server whose claims are followed, if the plan has limits."""


class Workload:
    """Runs the workload of one seed."""

    def __init__(
        self, plan: Plan, harness: HarnessClient, before: Proxy, serving: Serving, note: Callable[[str], None]
    ) -> None:
        self.facts = Observations(plan, harness.runs)
        self._plan = plan
        self._harness = harness
        self._proxy = before
        self._url = serving.url
        self._note = note
        self._shards = serving.shards
        self._injector = FaultInjector(harness, before, serving.clients, self._url, note)
        self._handles: dict[str, Handle[int]] = {}
        self._phases: set[anyio.CancelScope] = set()
        harness.on_first_start = self._get_further
        self._runtime: Runtime
        self._monitor = ClaimsMonitor(serving.monitored)

    def verdict(self) -> dict[str, Any]:
        """Returns the report on the seed."""
        facts = self.facts
        found = sorted(facts.violations, key=lambda text: "lost" not in text)
        return {
            "violations": [*found[:_SHOWN], *(["…"] if found[_SHOWN:] else [])],
            "lost": facts.lost,
            "doubled": facts.doubled,
            "tasks": facts.tasks,
            "steps": sum(len(pipeline.steps) for pipeline in self._plan.pipelines),
            "unfit": facts.unfit,
            "audits": self._harness.audits,
            "limited": facts.limited,
            "rerun": sum(max(0, self._harness.runs[job.id] - job.attempts) for job in self._plan.jobs),
            "resent": facts.resent.total(),
            "faults": self._injector.counts,
            "workers": len(self._harness.workers),
        }

    async def run(self) -> None:
        """Runs the workload to its end."""
        async with self._patience("the workers start"):
            for number in range(self._plan.workers):
                worker = await self._harness.start_worker(self._url, number % len(self._plan.roles))
                await worker.ready.wait()
        async with AsyncExitStack() as stack:
            async with self._patience("the sender starts"):
                await self._start_sender(stack)
            async with self._patience("the settings are made"):
                await self._answered(self._configure)
            if self._plan.limited:
                stack.enter_context(self._monitor.following())
            async with self._patience("the auditor starts"):
                await self._harness.start_auditor()
            async with anyio.create_task_group() as watching:
                self._harness.on_kill = partial(self._replace, watching)
                await self._storm(watching)
                await self._settle()
                watching.cancel_scope.cancel()
            await self._harness.stop_auditor()
            await self._dismiss()
        self.facts.violations += [f"audit: {text}" for text in self._harness.found]
        self.facts.violations += self._shards.left()

    async def _start_sender(self, stack: AsyncExitStack) -> None:
        """Enters the runtime that sends."""
        self._runtime = await self._answered(lambda: stack.enter_async_context(Runtime(self._url, **self._plan.sender)))

    async def _configure(self) -> None:
        for tenant, cap in CAPS.items():
            await self._runtime.tenant(tenant).configure(concurrency=cap)
        for limit, settings in SETTINGS.items() if self._plan.limited else ():
            await self._runtime.limit(limit).configure(**settings)

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats a call until the server answers: on a busy machine the sender's short timeout may run out."""
        while True:
            try:
                return await call()
            except ServerUnavailable as error:
                self._note(f"again: {error}")

    @asynccontextmanager
    async def _patience(self, what: str) -> AsyncIterator[None]:
        """Limits the time in which a phase may get no further; a timeout is a violation."""
        with anyio.move_on_after(PATIENCE) as scope:
            self._phases.add(scope)
            yield
        self._phases.discard(scope)
        if scope.cancelled_caught:
            self._note(f"hangs: {what}")
            for line in self._shards.waiting():
                self._note(line)
            self.facts.violations.append(f"there are no faults, and nothing has got further for {PATIENCE:g} s: {what}")

    def _get_further(self) -> None:
        """Gives each phase its time again: a task was accepted, has started or has ended for the first time."""
        for scope in self._phases:
            scope.deadline = anyio.current_time() + PATIENCE

    # Sending

    async def _storm(self, watching: TaskGroup) -> None:
        """Sends the tasks and injects the faults; returns when both are done."""
        start = anyio.current_time()
        self._note("it begins")
        async with anyio.create_task_group() as sending:
            for at, jobs in groupby(self._plan.jobs, lambda job: job.at):
                sending.start_soon(self._send, start + at, list(jobs), sending, watching)
            for pipeline in self._plan.pipelines:
                sending.start_soon(self._send_pipeline, start + pipeline.at, pipeline, sending)
            for schedule in self._later_schedules():
                sending.start_soon(self._schedule, start + schedule.at, schedule)
            for pause in self._plan.pauses:
                sending.start_soon(self._pause_at, start + pause.at, pause)
            async with anyio.create_task_group() as faults:
                for planned in self._plan.faults:
                    faults.start_soon(self._injector.inject, planned, start)
                for at in self._plan.redrives:
                    sending.start_soon(self._redrive_at, start + at)
                faults.start_soon(self._disturb)
            await self._proxy.calm()
            self._note("calm")
            self._phases.add(sending.cancel_scope)
            self._get_further()
        self._phases.discard(sending.cancel_scope)
        if sending.cancel_scope.cancelled_caught:
            steps = [step for pipeline in self._plan.pipelines for step in pipeline.steps]
            tasks: list[Job | Step] = [*self._plan.jobs, *steps]
            unsent = [task.id for task in tasks if task.id not in self._handles]
            self.facts.violations.append(
                f"nothing has got further for {PATIENCE:g} s, and these are not accepted: {unsent}"
            )

    async def _send(self, at: float, jobs: list[Job], sending: TaskGroup, watching: TaskGroup) -> None:
        await anyio.sleep_until(at)
        if jobs[0].how == "many":
            await self._again(jobs, self._send_many)
        for job in jobs:
            sending.start_soon(self._send_one, job, watching)

    async def _send_pipeline(self, at: float, pipeline: Pipeline, sending: TaskGroup) -> None:
        await anyio.sleep_until(at)
        await self._again(pipeline.steps, self._send_many)
        for step in pipeline.steps:
            if step.cancel_after is not None:
                sending.start_soon(self._cancel_later, step)

    async def _schedule(self, at: float, schedule: PlannedSchedule) -> None:
        await anyio.sleep_until(at)
        await self._again([schedule], self._add_schedule)

    async def _pause_at(self, at: float, pause: Pause) -> None:
        await anyio.sleep_until(at)
        await self._again([pause], self._pause)

    async def _pause(self, pauses: Sequence[Pause]) -> None:
        await self._runtime.limit(pauses[0].id).pause(pauses[0].seconds, tenant=pauses[0].tenant)

    async def _add_schedule(self, schedules: Sequence[PlannedSchedule]) -> None:
        await schedules[0].add(self._runtime)

    async def _see_out(self, schedules: Sequence[PlannedSchedule]) -> None:
        await until(partial(schedules[0].is_over, self._runtime), math.inf)
        await schedules[0].remove(self._runtime)

    async def _cancel_later(self, step: Step) -> None:
        await anyio.sleep(step.cancel_after or 0)
        await self._again([step], self._cancel)

    async def _send_one(self, job: Job, watching: TaskGroup) -> None:
        if job.how == "ask":
            await self._again([job], self._ask)
            return
        if job.how == "send":
            await self._again([job], self._send_many)
        if job.twin:
            await self._again([job], self._send_twin)
        if job.awaited:
            watching.start_soon(self._await, job)
        if job.cancel_after is not None:
            await anyio.sleep(job.cancel_after)
            await self._again([job], self._cancel)

    async def _again(
        self, jobs: Sequence[Job | Step | PlannedSchedule | Pause], call: Callable[[Sequence[Any]], Awaitable[None]]
    ) -> None:
        """Repeats a call until the server answers."""
        while True:
            try:
                return await call(jobs)
            except ServerUnavailable as error:
                self._note(f"{call.__name__} of {', '.join(job.id for job in jobs)}: {error}")
            except ServerError as error:
                await self._refused(error, f"{call.__name__} of {', '.join(job.id for job in jobs)}")
            self.facts.resent.update(job.id for job in jobs)

    async def _refused(self, error: ServerError, what: str) -> None:
        self.facts.violations.append(f"{what}: {error!r}")

    def _later_schedules(self) -> Sequence[PlannedSchedule]:
        """Returns the schedules that are made as the plan says, and not with the settings."""
        return self._plan.schedules

    async def _disturb(self) -> None:
        """Disturbs what serves, if the plan says so."""

    async def _send_many(self, jobs: Sequence[Job | Step]) -> None:
        if len(jobs) == 1:
            handles = [await self._runtime.send(jobs[0].tenant, jobs[0].message)]
        else:
            handles = await self._runtime.send_many([(job.tenant, job.message) for job in jobs])
        self._handles.update((handle.id, handle) for handle in handles)
        self._get_further()

    async def _send_twin(self, jobs: Sequence[Job]) -> None:
        (job,) = jobs
        message = job.message.options(id=f"{job.id}'", result_ttl=0)
        handle = await self._runtime.send(job.tenant, message)
        if (handle.id, handle.duplicate) != (job.id, True):
            self.facts.violations.append(f"{job.id}: its key did not keep another from being sent, {handle}")

    async def _redrive(self, _: Sequence[Job]) -> None:
        await self._runtime.dead_letters.redrive(actor="doomed")

    async def _redrive_at(self, at: float) -> None:
        await anyio.sleep_until(at)
        await self._again([], self._redrive)

    async def _ask(self, jobs: Sequence[Job]) -> None:
        (job,) = jobs
        self.facts.outcomes[job.id] = await _outcome(self._runtime.ask(job.tenant, job.message))
        self._handles[job.id] = self._runtime.handle(job.id, job.tenant)
        self._get_further()

    async def _cancel(self, jobs: Sequence[Job | Step]) -> None:
        (job,) = jobs
        self.facts.canceled_as[job.id] = await self._handles[job.id].cancel()

    async def _await(self, job: Job | Step) -> None:
        self.facts.outcomes[job.id] = await self._answered(lambda: _outcome(self._handles[job.id].result()))
        self._get_further()

    # After the faults

    async def _settle(self) -> None:
        """Waits until everything has ended, and checks the outcomes."""
        async with self._patience("schedules"):
            for schedule in self._plan.schedules:
                await self._again([schedule], self._see_out)
        self._note("schedules are over")
        async with self._patience("draining"):
            while await self._answered(self._left):
                await self._answered(self._runtime.drain)
        self._note("drained")
        asked: list[Job | Step] = [job for job in self._plan.jobs if not job.forgotten and job.id in self._handles]
        asked += [step for pipeline in self._plan.pipelines for step in pipeline.steps if step.id in self._handles]
        async with self._patience("outcomes that are asked for afterwards"), anyio.create_task_group() as group:
            for job in asked:
                if isinstance(job, Step) or not job.awaited:
                    group.start_soon(self._await, job)
        async with self._patience("outcomes that are waited for from the start"):
            await until(lambda: all(job.id in self.facts.outcomes for job in asked), math.inf)
        snapshot = self._shards.snapshot()
        stats = await self._answered(self._runtime.stats)
        self.facts.violations += check_tasks(self.facts, snapshot, stats)
        ends = Ends(snapshot, self.facts.outcomes, self.facts.canceled_as, self._upstream(), self._harness.first)
        self.facts.unfit = len(ends.upstream)
        self.facts.violations += check_places(self._plan, self._harness)
        found = [
            *check_pipelines(self._carried_out(ends), ends),
            *check_schedules(self._plan.schedules, snapshot, self._harness.runs),
        ]
        if self._plan.limited:
            found += self._limits_exceeded()
        self.facts.lost += sum("lost" in text for text in found)
        self.facts.violations += found
        async with self._patience("leases of those that were killed end"):
            await until(self._leased, math.inf)

    def _carried_out(self, ends: Ends) -> list[Pipeline]:
        """Returns the graphs that were to be carried out."""
        return self._plan.pipelines

    def _limits_exceeded(self) -> list[str]:
        """Returns what is wrong with the limits, from all claims of the seed."""
        costs = {job.id: job.message.task_options.limits or {} for job in self._plan.jobs}
        own = {job.id: {job.message.actor.name} & {"narrow", "single"} for job in self._plan.jobs}
        self._monitor.read()
        self._monitor.check_rates(lambda task: costs.get(task, {}), self._harness.ran)
        self._monitor.check_counted(lambda task: costs[task].keys() | own[task] if task in costs else None)
        self.facts.limited = sum(bool(claim.taken) for claim in self._monitor.claims)
        return self._monitor.violations

    def _upstream(self) -> set[str]:
        """Returns the steps that were canceled because an upstream step had failed."""
        steps = [step.id for pipeline in self._plan.pipelines for step in pipeline.steps]
        return self._shards.containing(steps, b'{"type":"UpstreamFailed"')

    async def _left(self) -> bool:
        """Redrives the dead letters that are to be. Returns whether anything is left to do."""
        return not await self._empty() or bool(await self._runtime.dead_letters.redrive(actor="doomed"))

    async def _empty(self) -> bool:
        """Returns whether no task waits. Sleeps briefly if only scheduled tasks do."""
        stats = await self._runtime.stats()
        if stats.scheduled and not stats.pending:
            await anyio.sleep(0.01)
        return not (stats.pending or stats.scheduled or stats.deferred)

    def _replace(self, group: TaskGroup, killed: Worker) -> None:
        group.start_soon(self._harness.start_worker, self._url, killed.role)

    def _living(self) -> list[Worker]:
        workers = self._harness.workers.values()
        return [worker for worker in workers if worker.expected is None and not worker.ended.is_set()]

    def _leased(self) -> bool:
        """Returns whether exactly the living workers hold leases, one in each shard."""
        living = sorted(worker.pid for worker in self._living())
        return all(holders == living for holders in self._shards.holders())

    async def _dismiss(self) -> None:
        """Stops all workers and waits for them."""
        for worker in self._living():
            await worker.ready.wait()
            worker.expected = 0
            worker.signal(signal.SIGTERM)
        async with self._patience("workers leave"):
            for worker in self._harness.workers.values():
                await worker.ended.wait()
        self.facts.violations += ended_wrongly(self._harness.workers.values())


async def _outcome(result: Awaitable[int]) -> int | str:
    try:
        return await result
    except TaskCanceled:
        return "canceled"
    except (ServerUnavailable, NotReplicated):
        raise
    except FairactorError as error:
        return repr(error)
