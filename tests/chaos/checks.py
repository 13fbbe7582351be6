"""What has to hold when the faults are over: nothing lost, nothing counted twice, nothing left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from fairactor import Stats, TaskState
from fairactor._audit.snapshot import Snapshot
from fairactor._model.record import SETTLED
from fairactor._model.wire import unpack_mark
from tests.support.shard.driver import ShardDriver

from .harness_client import Worker
from .plan import CAPS, Job, Plan

_META: Final = {
    "fair_by", "period", "version", "shards", "step", "stamp", "virtual", "total", "torn", "turned",
    "plugins",
}  # fmt: skip
"""What stays of a shard."""
_ENDED: Final = {TaskState.QUEUED, TaskState.SCHEDULED, TaskState.CANCELED}
"""States in which a task is found that is canceled from then on."""


@attrs.define(eq=False)
class Observations:
    """What the workload has seen."""

    plan: Plan
    runs: Mapping[str, int]
    """How often the handler of each task was begun."""
    outcomes: dict[str, int | str] = attrs.field(factory=dict)
    """The result of each task whose outcome is kept, 'canceled', or what is wrong with it."""
    canceled_as: dict[str, TaskState] = attrs.field(factory=dict)
    """In which state each that was canceled was found."""
    resent: Counter[str] = attrs.field(factory=Counter)
    """How often each was sent again because its send had raised."""
    violations: list[str] = attrs.field(factory=list)
    tasks: int = 0
    lost: int = 0
    doubled: int = 0
    audits: int = 0
    unfit: int = 0
    """How many steps of graphs could not run, since one before them had failed."""


def over_cap(snapshot: Snapshot) -> Iterator[str]:
    """Tenants of which more is claimed than may run."""
    claimed = Counter(
        unpack_mark(mark).tenant.decode() for claims in snapshot.claims.values() for mark in claims.values()
    )
    for tenant, cap in CAPS.items():
        if claimed[tenant] > cap:
            yield f"{claimed[tenant]} tasks of {tenant!r} are claimed, and {cap} may run at once"


def check_tasks(facts: Observations, snapshot: Snapshot, stats: Stats) -> Iterator[str]:
    """What is not as it has to be, now that all has drained."""
    jobs = facts.plan.jobs
    kids = {task: header for task, header in snapshot.records.items() if "." in task}
    facts.tasks = len(jobs) + len(kids) + sum(len(pipeline.steps) for pipeline in facts.plan.pipelines)
    facts.tasks += sum(schedule.runs for schedule in facts.plan.schedules)
    for job in jobs:
        state = SETTLED.get(snapshot.records[job.id].state) if job.id in snapshot.records else None
        found = list(_of_one(facts, job, state, kids))
        facts.lost += any("lost" in text for text in found)
        yield from (f"{job.id} of {job.tenant!r} ({job.message.actor.name}): {text}" for text in found)
    yield from (f"{task}: nobody sent it" for task in kids if task.partition(".")[0] not in {job.id for job in jobs})
    yield from _sums(facts, snapshot, stats)


def _of_one(facts: Observations, job: Job, state: TaskState | None, kids: Iterable[str]) -> Iterator[str]:
    if job.forgotten:
        if state is not None:
            yield f"it is {state}, and its outcome was not to be kept"
        if not facts.runs.get(job.id):
            yield "lost: it has never run"
        return
    if state is None:
        yield "lost: there is no record of it"
        return
    if state is TaskState.CANCELED:
        yield from _canceled(facts, job)
    elif state is TaskState.FINISHED:
        yield from _finished(facts, job, kids)
    else:
        yield f"it is {state}"


def _canceled(facts: Observations, job: Job) -> Iterator[str]:
    outcome = facts.outcomes.get(job.id)
    if job.id not in facts.canceled_as:
        yield "it is canceled, and nobody did that"
    if outcome != "canceled":
        yield f"it is canceled, and its outcome is {outcome!r}"


def _finished(facts: Observations, job: Job, kids: Iterable[str]) -> Iterator[str]:
    outcome = facts.outcomes.get(job.id)
    if outcome != job.result:
        yield f"it is finished, and its outcome is {outcome!r} instead of {job.result!r}"
    if facts.canceled_as.get(job.id) in _ENDED:
        yield f"it is finished, and was canceled as it was {facts.canceled_as[job.id]}"
    if not facts.runs.get(job.id):
        yield "it is finished, and has never run"
    for missing in {f"{job.id}.{k}" for k in range(job.kids)} - set(kids):
        yield f"lost: its child {missing}"


def _sums(facts: Observations, snapshot: Snapshot, stats: Stats) -> Iterator[str]:
    """Every outcome was accepted once."""
    kept = Counter(SETTLED.get(header.state) for header in snapshot.records.values())
    forgotten = [job.id for job in facts.plan.jobs if job.forgotten]
    # Of a task that leaves no record a send after one that raised may be a new one.
    spare = sum(facts.resent[task] for task in forgotten)
    finished, canceled = kept[TaskState.FINISHED] + len(forgotten), kept[TaskState.CANCELED]
    if not finished <= stats.finished <= finished + spare:
        facts.doubled += max(0, stats.finished - finished - spare)
        attempts = {job.id: job.attempts for job in facts.plan.jobs}
        again = {task: runs for task in forgotten if (runs := facts.runs.get(task, 0)) > attempts[task]}
        yield (
            f"{stats.finished} tasks are counted as finished, and there are {finished}, {len(forgotten)} of them "
            f"without a record, of which {spare} may count twice; begun too often: {again}"
        )
    if stats.canceled != canceled:
        facts.doubled += max(0, stats.canceled - canceled)
        yield f"{stats.canceled} tasks are counted as canceled, and there are {canceled}"
    if stats.failed != kept[TaskState.FAILED]:  # but for steps of graphs, whoever has failed was sent again
        yield f"{stats.failed} tasks are counted as failed, and {kept[TaskState.FAILED]} records say so"
    if stats.pending or stats.scheduled or stats.deferred:
        yield f"it has not drained: {stats}"


def ended_wrongly(workers: Iterable[Worker]) -> Iterator[str]:
    """Workers that did not end as they were told to."""
    for worker in workers:
        if worker.status != worker.expected:
            how = "by itself" if worker.expected is None else f"instead of {worker.expected}"
            yield f"worker {worker.pid} has ended with status {worker.status} {how}"


def what_is_left(driver: ShardDriver) -> Iterator[str]:
    """What is left that should not be, when everybody has left and the time of all records and totals has passed."""
    snapshot = driver.snapshot()
    for name in ("LEASES", "SESSIONS", "FLEET", "IDLE", "WATCHERS", "PROGRESS", "SCHEDULED", "RING", "KEYED"):
        if snapshot.fixed[name]:
            yield f"everybody has left, and {name.lower()} holds {snapshot.fixed[name]}"
    if snapshot.claims or snapshot.cancels:
        yield f"everybody has left, and claims are {snapshot.claims}, {snapshot.cancels} of them to be canceled"
    for task in snapshot.records:
        driver.expire(task)
    for tenant in snapshot.counts:
        driver.outlive(tenant)
    while driver.maintain():
        pass
    yield from _after_all(driver)


def _after_all(driver: ShardDriver) -> Iterator[str]:
    """What is left when nothing is to be kept any more."""
    for key in {key.decode() for key in driver.db.scan_iter()} - {driver.keys.meta, driver.keys.fixed("POLICY")}:
        brief = (f"{driver.keys.meta}:sent:", f"{driver.keys.meta}:key:", f"{driver.keys.meta}:plugin:")
        expires = key.startswith(brief) and driver.db.pttl(key) > 0
        if not expires:  # as the last batches and the windows of keys
            yield f"{key!r} is left behind"
    end = driver.snapshot()
    if end.fixed["POLICY"].keys() != CAPS.keys():
        yield f"policies are left of {list(end.fixed['POLICY'])}"
    if end.fixed["META"].keys() != _META or end.virtual:
        yield f"of the shard is left {end.fixed['META']}"
