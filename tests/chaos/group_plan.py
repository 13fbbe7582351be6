"""Plans a seed for a group of servers: that of one server, stretched, with what happens to the servers."""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from .disturbances import Setup, disturbances
from .plan import SPAN, FaultKind, Job, Plan, PlannedFault

STRETCH: Final = 3.0
"""What takes one second in the plan for one server takes so many here, because a cluster needs seconds to fail over."""
LEASE: Final = 1.0
SHARDS: Final = {Setup.CLUSTER: 4, Setup.SENTINEL: 1, Setup.GROWING: 5}
"""How many shards there are; at the end, if some are added."""
GROWTHS: Final = (2, 3, SHARDS[Setup.GROWING])
"""How many shards there are on one server, at the beginning and after each growth."""
REPLICAS: Final = {Setup.CLUSTER: 1, Setup.SENTINEL: 2}
"""How many replicas must confirm: all, since any of them may take over."""
_PLAIN: Final = (1, 4, 5, 8)
"""Of each twelve seeds, those without poison (a failover could prove a task guilty) and without limits."""


def plan_for(seed: int, setup: Setup) -> Plan:
    """Makes the plan of a seed."""
    if setup is Setup.SERVER:
        return Plan.of(seed)
    base = Plan.of(12 * (seed // 4) + _PLAIN[seed % 4])
    if setup is Setup.GROWING:
        return _growing(base, seed)
    replicated = seed % 3 > 0
    more: dict[str, Any] = {"lease": LEASE, "shards": SHARDS[setup]}
    if replicated:
        more |= {"durability": "replicated", "replicas": REPLICAS[setup]}
    return attrs.evolve(
        base,
        seed=seed,
        setup=setup,
        replicated=replicated,
        disturbances=disturbances(seed, setup),
        jobs=[_job(job, replicated=replicated) for job in base.jobs],
        faults=[_stretched(fault) for fault in base.faults if fault.kind is not FaultKind.CRASH],
        pipelines=[attrs.evolve(each, at=STRETCH * each.at) for each in base.pipelines if replicated],
        redrives=[STRETCH * at for at in base.redrives],
        sender=base.sender | more,
        worker=base.worker | more,
    )


def _growing(base: Plan, seed: int) -> Plan:
    """Starts with few shards, and adds others. Meanwhile the same happens as on one shard."""
    rng = random.Random(f"{seed} grows")
    at = sorted(rng.uniform(0, SPAN) for _ in GROWTHS[1:])
    more = {"shards": GROWTHS[0]}
    return attrs.evolve(
        base,
        seed=seed,
        setup=Setup.GROWING,
        grows=list(zip(at, GROWTHS[1:], strict=True)),
        sender=base.sender | more,
        worker=base.worker | more,
    )


def _job(job: Job, *, replicated: bool) -> Job:
    """Without replication the task whose key a twin finds taken may be gone."""
    return attrs.evolve(job, at=STRETCH * job.at, twin=job.twin and replicated)


def _stretched(fault: PlannedFault) -> PlannedFault:
    longer = 2 * fault.seconds if fault.kind is FaultKind.STOP else fault.seconds
    return attrs.evolve(fault, at=STRETCH * fault.at, seconds=longer)
