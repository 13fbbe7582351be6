"""Checks that nothing was lost, counted twice or left behind once the faults are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import attrs

from fairactor import Stats, TaskState
from fairactor._audit.snapshot import Snapshot
from fairactor._model.record import SETTLED
from fairactor._model.wire import unpack_mark
from tests.support.shard.driver import ShardDriver

from .harness_client import HarnessClient, Worker
from .plan import CAPS, Job, Plan

_META: Final = {
    "fair_by", "period", "version", "shards", "step", "stamp", "virtual", "total", "torn", "turned",
    "plugins",
}  # fmt: skip
"""The fields of the meta key that a shard keeps once tasks have run."""
_ALWAYS: Final = {"version", "shards", "step"}
_MAY_BE: Final = {
    "emptying", "emptying_till", "sample", "sample_before", "tended", "behind", "passed", "stolen", "kinds",
    "kinds_made", "lanes", "routed", "unsorted", "unserved", "sorting", "unknown_ttl", "old_senders", "limited",
    "largest", "layout", "untidy", "reopening", "ended_index", "letters", "letters_at", "indexed",
}  # fmt: skip
"""Those that it keeps if there was a reason."""
_ENDED: Final = {TaskState.QUEUED, TaskState.SCHEDULED, TaskState.CANCELED}
"""States found by a cancel call that guarantee that the task is canceled."""


@attrs.define(eq=False)
class Observations:
    """The facts that the workload has observed."""

    plan: Plan
    runs: Mapping[str, int]
    """How often each task's handler has started."""
    outcomes: dict[str, int | str] = attrs.field(factory=dict)
    """The outcome of each task that keeps one: its result, 'canceled', or a description of what is wrong."""
    canceled_as: dict[str, TaskState] = attrs.field(factory=dict)
    """The state in which each cancel call found its task."""
    resent: Counter[str] = attrs.field(factory=Counter)
    """How often each task was sent again because its send had raised."""
    violations: list[str] = attrs.field(factory=list)
    tasks: int = 0
    lost: int = 0
    doubled: int = 0
    limited: int = 0
    """How many claims counted for limits."""
    unfit: int = 0
    """How many steps of graphs could not run because an upstream step had failed."""
    excuse: Callable[[str, str], bool] = lambda *_: False
    """Whether what is wrong with a task is the price of a primary's death."""
    forgone: Callable[[], int] = lambda: 0
    """Returns how many tasks without a record a primary may have taken with it."""


def over_cap(snapshot: Snapshot) -> Iterator[str]:
    """Yields tenants with more claimed tasks than may run at once."""
    claimed = Counter(
        unpack_mark(mark).tenant.decode() for claims in snapshot.claims.values() for mark in claims.values()
    )
    for tenant, cap in CAPS.items():
        if claimed[tenant] > cap:
            yield f"{claimed[tenant]} tasks of {tenant!r} are claimed, and {cap} may run at once"


def check_tasks(facts: Observations, snapshot: Snapshot, stats: Stats) -> Iterator[str]:
    """Yields violations among tasks, once everything has drained."""
    jobs = facts.plan.jobs
    kids = {task: header for task, header in snapshot.records.items() if "." in task}
    facts.tasks = len(jobs) + len(kids) + sum(len(pipeline.steps) for pipeline in facts.plan.pipelines)
    facts.tasks += sum(schedule.runs for schedule in facts.plan.schedules)
    for job in jobs:
        state = SETTLED.get(snapshot.records[job.id].state) if job.id in snapshot.records else None
        found = [text for text in _of_one(facts, job, state, kids) if not facts.excuse(job.id, text)]
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
    if job.poison:
        if state is not TaskState.FAILED:
            yield f"it is poison, and is {state}"
        elif not facts.runs.get(job.id):
            yield "it is poison, and has failed without a run"
    elif state is TaskState.CANCELED:
        yield from _canceled(facts, job)
    elif state is TaskState.FINISHED:
        yield from _finished(facts, job, kids)
    else:
        yield f"it is {state}: {facts.outcomes.get(job.id)}"


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
    """Yields violations of the rule that every outcome is counted once."""
    kept = Counter(SETTLED.get(header.state) for header in snapshot.records.values())
    forgotten = [job.id for job in facts.plan.jobs if job.forgotten]
    # If a task leaves no record, sending it again after an error may make a new task.
    spare = sum(facts.resent[task] for task in forgotten)
    finished, canceled = kept[TaskState.FINISHED] + len(forgotten), kept[TaskState.CANCELED]
    if not finished - facts.forgone() <= stats.finished <= finished + spare:
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
    if stats.failed != kept[TaskState.FAILED]:  # all failed tasks were redriven, except steps of graphs
        yield f"{stats.failed} tasks are counted as failed, and {kept[TaskState.FAILED]} records say so"
    if stats.pending or stats.scheduled or stats.deferred:
        yield f"it has not drained: {stats}"


def check_places(plan: Plan, harness: HarnessClient) -> Iterator[str]:
    """Yields tasks that ran in a process that cannot run them."""
    jobs = {job.id: job for job in plan.jobs}
    for task, pid in sorted(harness.ran):
        if task in jobs and pid in harness.workers:  # else it ran in a process of a worker
            role, message = plan.roles[harness.workers[pid].role], jobs[task].message
            queue = message.task_options.queue or "default"
            if not role.runs(message.actor.name, queue):
                yield f"{task} ({message.actor.name}) of the queue {queue!r} ran in worker {pid}, of {role}"


def ended_wrongly(workers: Iterable[Worker]) -> Iterator[str]:
    """Yields workers that did not end as expected."""
    for worker in workers:
        if worker.status != worker.expected:
            how = "by itself" if worker.expected is None else f"instead of {worker.expected}"
            yield f"worker {worker.pid} has ended with status {worker.status} {how}"


def what_is_left(driver: ShardDriver, *, has_all: bool = True) -> Iterator[str]:
    """Yields leftovers once all runtimes have left and all records and totals have expired.

    Args:
        driver: the shard.
        has_all: whether all kinds of tenants and tasks have used it.
    """
    snapshot = driver.snapshot()
    for name in (
        "LEASES",
        "SESSIONS",
        "FLEET",
        "IDLE",
        "WATCHERS",
        "PROGRESS",
        "SCHEDULED",
        "RING",
        "KEYED",
        "KIND_OF",
        "LANES",
        "BACKLOG",
        "LIMIT_STARTED",
        "LIMIT_CLOCKS",
        "HELD_BACK",
    ):
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
    yield from _after_all(driver, has_all=has_all)


def _after_all(driver: ShardDriver, *, has_all: bool) -> Iterator[str]:
    """Yields keys that remain although everything has expired."""
    fixed = {driver.keys.fixed(name) for name in ("META", "POLICY", "KIND_NUMBERS", "ROUTES", "LIMIT_SETTINGS")}
    last = {f"{driver.keys.meta}:kind:{kind}" for kind in driver.snapshot().numbers}  # it stays
    last.add(f"{driver.keys.meta}:plugin:fairactor_dependencies:remote")  # a shard with graphs over several ones
    for key in {key.decode() for key in driver.db.scan_iter(f"{driver.keys.meta}*")} - fixed - last:
        brief = tuple(
            f"{driver.keys.meta}:{name}"
            for name in (
                "sent:",
                "key:",
                "plugin:",
                "mover",
                "history:",
                "counted:",
                "dead-of:",
                "dead-by:",
                "ended",
            )
        )
        expires = key.startswith(brief) and driver.db.pttl(key) > 0
        # Of several shards: gates of a sender that failed stay for minutes, and messages until a runtime delivers them.
        waits = not has_all and (":plugin:fairactor_dependencies:gate" in key or key.endswith(":outbox"))
        if not expires and not waits:  # the last batches and the windows of keys expire by themselves
            yield f"{key!r} is left behind"
    end = driver.snapshot()
    policies = {
        name for name in end.fixed["POLICY"] if end.policy(name) != {"moving": "gone"}
    }  # who tidies may be dead
    if policies != CAPS.keys() and (has_all or not policies <= CAPS.keys()):
        yield f"policies are left of {list(end.fixed['POLICY'])}"
    clocks = {f"{name}:{kind}" for name in ("virtual", "period") for kind in end.numbers}
    needed = _META - ({"virtual", "period"} if "0" not in end.numbers else set()) if has_all else _ALWAYS
    if not needed <= end.fixed["META"].keys() <= _META | _MAY_BE | clocks or end.virtual:
        yield f"of the shard is left {end.fixed['META']}"
