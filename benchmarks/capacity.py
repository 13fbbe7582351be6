"""The arithmetic of a size: how many nodes, shards and processes a load takes, and how long calls wait there.

It is plain Python and needs no server. `benchmarks.sizing` measures what it computes with, and holds it against real
nodes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Final

import attrs
from redis.crc import key_slot

from fairactor._model.keys import Keys

_SLOTS: Final = 16384
_SHARDS_A_NODE: Final = 2
"""Each shard costs a runtime calls of its own, so few are best. With two for each node, the nodes can be doubled."""


@attrs.frozen
class Costs:
    """What a task and a tenant cost. Times are in µs, sizes in bytes."""

    server_us: float
    """Processor time of a server for a task: sent, claimed, run and settled."""
    client_us: float
    """Processor time of Python for a task, sent and run, without the handler's own."""
    calls: float
    """Script calls for a task. Many tasks share one, so it is less than 1 under load."""
    task_bytes: float
    """Memory of a waiting task, without its body."""
    tenant_bytes: float
    """Memory of a tenant with tasks, without these."""


@attrs.frozen
class Load:
    """What is asked of the system."""

    tasks_per_second: float
    tenants: int
    """Tenants that have tasks at the same time, or had some in the last minutes."""
    waiting: int
    """Tasks that wait at the worst time."""
    body_bytes: int = 100


@attrs.frozen
class Plan:
    """What a load takes."""

    nodes: int
    """Primaries; replicas come on top."""
    shards: int
    share: float
    """The part of all tasks that a node serves, if each has as many shards."""
    busy: float
    """The part of its time for which the busiest node works."""
    node_bytes: float
    """Memory of the fullest node."""
    processes: int
    """Python processes that are busy for as long as the nodes may be, handlers not counted."""
    connections: int
    """Connections to each node, at most."""


def plan(costs: Costs, load: Load, *, busy: float = 0.5, connections: int = 8) -> Plan:
    """Returns the smallest plan whose busiest node works for at most a part of its time.

    Args:
        costs: what a task and a tenant cost.
        load: what is asked.
        busy: the part. Beyond a half, waiting grows fast, and nothing is left for repairs and fail-overs.
        connections: the connections of a process to each node.
    """
    processes = math.ceil(load.tasks_per_second * costs.client_us / 1e6 / busy)
    nodes = max(1, math.ceil(load.tasks_per_second * costs.server_us / 1e6 / busy))
    shards, share = (_SHARDS_A_NODE * nodes if nodes > 1 else 1), 1 / nodes
    used = load.tasks_per_second * share * costs.server_us / 1e6
    stored = load.waiting * (costs.task_bytes + load.body_bytes) + load.tenants * costs.tenant_bytes
    return Plan(nodes, shards, share, used, stored * share, processes, processes * connections)


def shares(nodes: int, shards: int) -> list[float]:
    """Returns the part of all shards that each node has, if nobody places them: each node has as many slots."""
    counts = [0] * nodes
    for number in range(shards):
        counts[_node_of(number, nodes)] += 1
    return [count / shards for count in counts]


def _node_of(shard: int, nodes: int) -> int:
    """Returns the number of the node that has a shard of the default namespace, if each has as many slots."""
    return min(key_slot(Keys("fairactor", shard).meta.encode()) * nodes // _SLOTS, nodes - 1)


@attrs.frozen
class Waiting:
    """How long calls wait for a node before they begin, in µs."""

    busy: float
    mean: float
    p99: float


def simulate(rate: float, service_us: float, *, calls: int = 100_000, seed: int = 1) -> Waiting:
    """Simulates a node: calls arrive at random, and are served one after the other, by a single thread.

    Args:
        rate: calls a second.
        service_us: the mean time of a call. Times are drawn from an exponential distribution, which is worse than real.
        calls: how many calls to simulate.
        seed: for the same result every time.
    """
    times = random.Random(seed)
    waits = sorted(_waits(times, rate, service_us, calls))
    return Waiting(rate * service_us / 1e6, sum(waits) / calls, waits[int(0.99 * calls)])


def _waits(times: random.Random, rate: float, service_us: float, calls: int) -> Iterator[float]:
    wait = 0.0
    for _ in range(calls):
        yield wait
        wait = max(0.0, wait + times.expovariate(1 / service_us) - times.expovariate(rate / 1e6))
