"""Plans a seed: which tasks are sent, which faults strike, and when. Only the seed decides it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import attrs

from fairactor import Message, Priority
from tests.support.proxy import Fault

from . import actors, limited_actors
from .disturbances import Disturbance, Setup
from .limits import Pause, in_limits, is_limited, pauses
from .pipelines import Pipeline, pipelines
from .roles import ALIKE, APART, LIMITED_APART, Role, queue_for
from .schedules import PlannedSchedule, schedules

LEASE: Final = 0.5
LONGER: Final = 2
"""Leases are so many times as long if there are limits: turns take longer then, and more runtimes share the machine."""
SPAN: Final = 1.5
"""Seconds in which tasks are sent and faults strike."""
KEPT: Final = 180.0
"""Seconds for which outcomes are kept: longer than a seed takes."""
CAPS: Final = {"one": 1, "two": 2, "three": 3}
"""Tenants with a limit, and how many tasks they may run at once."""
FREE: Final = ("free:1", "free:2", "free:3", "ZAŻÓŁĆ {0}*")
"""Tenants without a limit."""


class FaultKind(StrEnum):
    """The kinds of faults."""

    KILL = "kill a worker"
    STOP = "stop a worker for longer than its lease"
    LEAVE = "tell a worker to leave"
    CRASH = "kill the server"
    FORGET = "flush the scripts"
    CLOSE = "close connections from the server's side"
    CUT = "cut all connections"
    AWAY = "be away"
    FREEZE = "freeze all connections"
    LATE = "delay replies"
    STRIKE = "strike the next"
    CHANCE = "strike by chance"


DEADLY: Final = {
    *(FaultKind.KILL, FaultKind.CRASH, FaultKind.CUT, FaultKind.AWAY, FaultKind.FREEZE),
    *(FaultKind.STRIKE, FaultKind.CHANCE),
}
"""The faults that a runtime may not survive, as the server sees it. They could prove an innocent task guilty."""
POISONED: Final = 3
"""Each seed of so many has poison tasks, and none of the deadly faults."""


@attrs.frozen
class PlannedFault:
    """A fault of the plan."""

    at: float
    """Seconds from the start. `seconds` and `later` are in seconds, too."""
    kind: FaultKind
    seconds: float = 0.0
    """How long the fault lasts."""
    later: float = 0.0
    """How long after the fault an ended process is started again."""
    pick: int = 0
    """The worker that it strikes."""
    fault: Fault = Fault.CUT_REPLY
    size: float = 0.0
    """`LATE`: the delay in seconds. `STRIKE`: how many. `CHANCE`: the probability."""
    clients: str = "normal"

    def __str__(self) -> str:
        """Formats the fault as a line of the schedule."""
        match self.kind:
            case FaultKind.KILL | FaultKind.LEAVE:
                more = f"({self.pick}), the next one starts {self.later:.3f} s later"
            case FaultKind.STOP:
                more = f"({self.pick}), {self.seconds:.3f} s"
            case FaultKind.CRASH:
                more = f"and start it again {self.later:.3f} s later"
            case FaultKind.CLOSE:
                more = f"({self.clients})"
            case FaultKind.STRIKE:
                more = f"{self.size:.0f}: {self.fault}"
            case FaultKind.CHANCE:
                more = f"of {self.size:.3f} for {self.seconds:.3f} s: {self.fault}"
            case FaultKind.LATE:
                more = f"by {self.size:.3f} s for {self.seconds:.3f} s"
            case FaultKind.AWAY | FaultKind.FREEZE:
                more = f"for {self.seconds:.3f} s"
            case _:
                more = ""
        return f"{self.kind} {more}".rstrip()


@attrs.frozen
class Job:
    """A task of the plan."""

    id: str
    at: float
    tenant: str
    message: Message[int]
    result: int
    how: str
    """'send', 'ask', or 'many'; jobs with 'many' of the same moment are sent together."""
    awaited: bool
    """Whether the workload waits for it from the start."""
    kids: int = 0
    attempts: int = 1
    """How often its handler runs if nothing goes wrong."""
    cancel_after: float | None = None
    forgotten: bool = False
    """Whether its outcome is not kept."""
    twin: bool = False
    """Whether it has a key, and another message with that key is sent after it."""
    poison: bool = False
    """Whether it kills its process, or tries to end it: it fails for good."""


@attrs.frozen
class Plan:
    """Everything that a seed decides."""

    seed: int
    workers: int
    jobs: list[Job]
    faults: list[PlannedFault]
    redrives: list[float]
    """When dead letters are redriven."""
    pipelines: list[Pipeline]
    schedules: list[PlannedSchedule]
    sender: dict[str, Any]
    worker: dict[str, Any]
    roles: Sequence[Role] = ALIKE
    """The kinds of workers; each has at least one."""
    limited: bool = False
    """Whether there are limits beside those of tenants."""
    pauses: Sequence[Pause] = ()
    setup: Setup = Setup.SERVER
    disturbances: Sequence[Disturbance] = ()
    """What happens to a group of servers."""
    replicated: bool = False
    """Whether sends wait for replicas."""
    grows: Sequence[tuple[float, int]] = ()
    """When shards are added, and how many there are then."""

    @staticmethod
    def of(seed: int) -> Plan:
        """Makes the plan of a seed."""
        rng = random.Random(seed)
        jobs = _jobs(rng)
        faults = sorted((_fault(rng) for _ in range(rng.randint(4, 16))), key=lambda planned: planned.at)
        common = {"lease": LEASE, "result_ttl": KEPT, "max_deliveries": 255, "aging": rng.choice([60.0, 0.0])}
        if seed % POISONED == 0:
            jobs += [*_poison(random.Random(f"{seed} poison")), *_in_processes(random.Random(f"{seed} processes"))]
            jobs.sort(key=lambda job: job.at)
            faults = [fault for fault in faults if fault.kind not in DEADLY]
            common["max_deliveries"] = 3
        roles: Sequence[Role] = APART if seed % 2 else ALIKE
        limited = is_limited(seed)
        if limited:
            roles = LIMITED_APART if seed % 2 else ALIKE
            jobs = [_in_limits(random.Random(f"{seed} {job.id} limits"), job) for job in jobs]
            common["lease"] = LONGER * LEASE
            faults = [_stopped_longer(fault) if fault.kind is FaultKind.STOP else fault for fault in faults]
            jobs += _with_own_limits(random.Random(f"{seed} own limits"))
            jobs.sort(key=lambda job: job.at)
        if seed % 2:
            jobs = [_in_queue(random.Random(f"{seed} {job.id}"), job) for job in jobs]
        return Plan(
            seed=seed,
            workers=max(rng.randint(2, 3), len(roles) + seed % 4 // 2),
            roles=roles,
            limited=limited,
            pauses=pauses(seed, SPAN, [*CAPS, *FREE]) if limited else (),
            jobs=jobs,
            faults=faults,
            pipelines=pipelines(seed, SPAN, [*CAPS, *FREE]),
            schedules=schedules(seed, SPAN, [*CAPS, *FREE]),
            redrives=[rng.uniform(0, SPAN) for _ in range(3)],
            sender=common | {"aging": common["aging"], "connect_timeout": rng.choice([0.3, 0.6, 2.0]), "workers": 0},
            worker=common
            | {"connect_timeout": 1.0, "grace": rng.choice([0.0, 0.3, 1.0]), "workers": rng.randint(2, 8)}
            | {"processes": 1 + seed % 2},
        )


def _jobs(rng: random.Random) -> list[Job]:
    jobs: list[Job] = []
    for _ in range(rng.randint(15, 40)):
        at = rng.uniform(0, SPAN)
        how = rng.choice(["send", "send", "many", "ask"])
        jobs += [_job(rng, f"{len(jobs) + k}", at, how) for k in range(rng.randint(1, 15))]
    return sorted(jobs, key=lambda job: job.at)


def _poison(rng: random.Random) -> list[Job]:
    jobs: list[Job] = []
    for k in range(rng.randint(2, 6)):
        n = rng.randrange(1000)
        kind = rng.choice(["killer", "killer", "self_canceler", "exiter", "thread_exiter", "blocker"])
        message: Message[int]
        if kind == "killer" and sum(job.message.actor.name == "killer" for job in jobs) < 2:
            message = actors.killer(n)
        elif kind == "self_canceler":
            message = actors.self_canceler(n)
        elif kind == "exiter":
            message = actors.exiter(n)
        elif kind == "thread_exiter":
            message = actors.thread_exiter(n)
        else:
            message = actors.blocker(n, rng.uniform(0.5, 1.5) * LEASE)
        poison = message.actor.name != "blocker"
        task = f"poison {k}"
        jobs.append(
            Job(
                id=task,
                at=rng.uniform(0, SPAN),
                tenant=rng.choice(FREE),
                message=message.options(id=task),
                result=n,
                how="send",
                awaited=not poison,
                poison=poison,
            )
        )
    return jobs


def _in_processes(rng: random.Random) -> list[Job]:
    """Makes jobs whose handlers run in processes: poison, and innocent ones that are not tried again."""
    jobs: list[Job] = []
    for k in range(rng.randint(1, 3)):
        n = rng.randrange(1000)
        kind = rng.choice([actors.process_exiter, actors.process_killer, actors.process_killer, actors.process_hanger])
        jobs.append(_in_process(rng, f"process poison {k}", kind(n), n, poison=True))
    for k in range(rng.randint(2, 6)):
        n = rng.randrange(1000)
        jobs.append(_in_process(rng, f"process {k}", actors.process_echo(n, rng.uniform(0, 0.1)), n))
    return jobs


def _in_process(rng: random.Random, task: str, message: Message[int], n: int, *, poison: bool = False) -> Job:
    return Job(
        id=task,
        at=rng.uniform(0, SPAN),
        tenant=rng.choice(FREE if poison else [*CAPS, *FREE]),
        message=message.options(id=task, priority=rng.choice(list(Priority))),
        result=n,
        how="send",
        awaited=not poison,
        poison=poison,
        cancel_after=rng.uniform(0, 0.8) if not poison and rng.random() < 0.15 else None,
    )


def _stopped_longer(fault: PlannedFault) -> PlannedFault:
    return attrs.evolve(fault, seconds=LONGER * fault.seconds)


def _in_limits(rng: random.Random, job: Job) -> Job:
    """Makes a task name limits, perhaps."""
    if job.message.actor.name not in {"echo", "plain", "flaky"}:
        return job
    return attrs.evolve(job, message=in_limits(rng, job.message))


def _with_own_limits(rng: random.Random) -> list[Job]:
    """Makes jobs whose actors have limits."""
    jobs: list[Job] = []
    for k in range(rng.randint(10, 40)):
        n = rng.randrange(1000)
        kind = rng.choice([limited_actors.narrow, limited_actors.single])
        message = in_limits(rng, kind(n, rng.uniform(0, 0.01)).options(id=f"own {k}", priority=rng.choice([1, 3, 6])))
        tenant = rng.choice([*CAPS, *FREE])
        jobs.append(Job(f"own {k}", rng.uniform(0, SPAN), tenant, message, n, how="send", awaited=rng.random() < 0.2))
    return jobs


def _in_queue(rng: random.Random, job: Job) -> Job:
    """Sends a task to a queue, perhaps."""
    queue = queue_for(rng, job.message.actor.name)
    return job if queue is None else attrs.evolve(job, message=job.message.options(queue=queue))


def _job(rng: random.Random, task_id: str, at: float, how: str) -> Job:
    n = rng.randrange(1000)
    result, kids, attempts = n, 0, 1
    kinds = {"echo": 60, "long": 1, "plain": 8, "flaky": 20, "parent": 6, "doomed": 0 if how == "ask" else 6}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    message: Message[int]
    if kind == "parent":
        kids = rng.randint(1, 4)
        message, result = actors.parent(n, kids), n * kids + sum(range(kids))
    elif kind == "flaky":
        attempts = rng.randint(2, 3)
        message = actors.flaky(n, attempts - 1)
    elif kind == "doomed":
        message = actors.doomed(n)
    elif kind == "plain":
        message = actors.plain(n, rng.uniform(0, 0.01))
    else:
        message = actors.echo(n, rng.uniform(0.3, 2 * LEASE) if kind == "long" else rng.uniform(0, 0.01))
    options: dict[str, Any] = {"id": task_id, "priority": rng.choices(list(Priority), [1, 2, 4, 2, 1, 1])[0]}
    if rng.random() < 0.15:
        options["delay"] = rng.uniform(0, 0.4)
    forgotten = how != "ask" and kind != "doomed" and rng.random() < 0.08
    if forgotten:
        options["result_ttl"] = 0
    twin = how == "send" and kind != "doomed" and not forgotten and rng.random() < 0.1
    if twin:
        options |= {"key": f"key of {task_id}", "key_window": KEPT}
    return Job(
        id=task_id,
        at=at,
        tenant=rng.choice([*CAPS, *FREE] if kind != "long" else FREE),
        message=message.options(**options),
        result=result,
        how=how,
        awaited=kind != "doomed" and not forgotten and (how == "ask" or rng.random() < 0.2),
        kids=kids,
        attempts=attempts,
        cancel_after=rng.uniform(0, 0.3) if how == "send" and not (forgotten or twin) and rng.random() < 0.08 else None,
        forgotten=forgotten,
        twin=twin,
    )


def _fault(rng: random.Random) -> PlannedFault:
    kind = rng.choices(list(FaultKind), [3, 2, 2, 2, 1, 2, 2, 2, 2, 1, 4, 2])[0]
    sizes = {
        FaultKind.LATE: rng.uniform(0.005, 0.1),
        FaultKind.STRIKE: rng.randint(1, 3),
        FaultKind.CHANCE: rng.uniform(0.01, 0.2),
    }
    return PlannedFault(
        at=rng.uniform(0, SPAN),
        kind=kind,
        seconds=rng.uniform(1.2, 2.2) * LEASE if kind is FaultKind.STOP else rng.uniform(0.05, 0.7),
        later=rng.uniform(0, 0.3),
        pick=rng.randrange(60),
        fault=rng.choice(list(Fault)),
        size=sizes.get(kind, 0.0),
        clients=rng.choice(["normal", "pubsub"]),
    )
