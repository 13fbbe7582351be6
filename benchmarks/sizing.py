"""How many nodes, shards and processes a load takes: computed, and held against three real nodes.

Tasks that do nothing are sent to clusters of one and of three primaries on this machine, with the same number of
shards, then run by one runtime. Measured are the processor time of each node for a task (`INFO`, reading and writing
sockets included), and its memory while the tasks wait. Each of the three has a third of the shards, so the prediction
is a third of one node. The goal: the busiest of three primaries spends at most 0.4 of the time of one.

Then the plan for the load that the options say is computed with the figures of one node, or with ``--server-us`` if
that is given; it stands below the table. A queue is simulated for its busiest node.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from fairactor import Runtime
from fairactor._model.keys import Keys
from tests.support import servers
from tests.support.cluster import Cluster

from . import bare, capacity
from .bench import Bench
from .figures import Figure, at_most
from .handlers import nothing

_BUSY = (0.3, 0.5, 0.7, 0.9)


@attrs.frozen
class Measured:
    """What a round found."""

    server_us: list[float]
    """Processor time of each node, per task of all."""
    stored: list[float]
    """Bytes that each node keeps for the waiting tasks and their tenants."""
    client_us: float
    calls: float


async def run(
    bench: Bench,
    *,
    tasks_per_second: int = 100_000,
    tenants: int = 1_000_000,
    waiting: int = 1_000_000,
    body_bytes: int = 100,
    server_us: float = 0.0,
    tasks: int = 30_000,
    of_tenants: int = 3_000,
    shards: int = 6,
) -> list[Figure]:
    load = capacity.Load(tasks_per_second, tenants, waiting, body_bytes)
    binary = servers.binary("valkey")
    one: list[Measured] = []
    three: list[Measured] = []
    many: list[Measured] = []
    alone: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "1").mkdir()
        (Path(folder) / "3").mkdir()
        with Cluster(binary, Path(folder) / "1", 1) as single, Cluster(binary, Path(folder) / "3", 3) as triple:
            _place(triple, shards)
            for cluster in (single, triple):  # loads the scripts
                await _measure(cluster, 500, 50, shards)
            for _ in bench.each_round():
                one.append(await _measure(single, tasks, of_tenants, shards))
                three.append(await _measure(triple, tasks, of_tenants, shards))
                many.append(await _measure(single, tasks, tasks, shards))
                alone.append(await _measure(single, tasks, of_tenants, 1))
    share = -(-shards // 3) / shards
    body = sum(len(bare.body(nothing.name, n)) for n in range(tasks)) / tasks
    a_tenant = [(m.stored[0] - o.stored[0]) / (tasks - of_tenants) for m, o in zip(many, one, strict=True)]
    a_task = [o.stored[0] / tasks - body - t * of_tenants / tasks for o, t in zip(one, a_tenant, strict=True)]
    costs = capacity.Costs(
        server_us or median(each.server_us[0] for each in alone),
        median(each.client_us for each in one),
        median(each.calls for each in one),
        median(a_task),
        median(a_tenant),
    )
    bench.notes.extend(_notes(costs, load))
    busiest, before = [max(each.server_us) for each in three], [each.server_us[0] for each in one]
    kept = [max(each.stored) for each in three]
    return [
        Figure("server time of a task, one node, 1 shard", "µs/task", [each.server_us[0] for each in alone]),
        Figure(f"server time of a task, one node, {shards} shards", "µs/task", before),
        Figure("server time of a task, busiest of three", "µs/task", busiest, before, "one node", at_most(0.4)),
        Figure("the same, against one shard", "µs/task", busiest, [each.server_us[0] for each in alone], "1 shard"),
        Figure("the same, against the prediction", "µs/task", busiest, [share * t for t in before], "predicted"),
        Figure("memory, fullest of three", "bytes", kept, [share * each.stored[0] for each in one], "predicted"),
        Figure("client time of a task", "µs/task", [each.client_us for each in one]),
        Figure("script calls of a task", "calls/task", [each.calls for each in one]),
        Figure("memory of a waiting task, without its body", "bytes", a_task),
        Figure("memory of a tenant", "bytes", a_tenant),
    ]


def _place(cluster: Cluster, shards: int) -> None:
    """Gives each node as many shards as the others: moves their slots, which are empty."""
    for number in range(shards):
        slot, target = (
            cluster.slot_of(Keys("fairactor", number).meta),
            cluster.primaries[number % len(cluster.primaries)],
        )
        for node in (target, *cluster.primaries):
            node.db.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)  # type: ignore[no-untyped-call]


async def _measure(cluster: Cluster, tasks: int, tenants: int, shards: int) -> Measured:
    """Sends tasks to a cluster and runs them."""
    nodes = [node.db for node in cluster.primaries]
    for node in nodes:
        node.flushall()
        node.config_resetstat()
    began, before = time.process_time(), [_cpu(node) for node in nodes]
    async with Runtime(cluster.url, workers=0, shards=shards) as runtime:
        empty = [_memory(node) for node in nodes]
        await runtime.send_many((f"tenant:{n % tenants}", nothing(n)) for n in range(tasks))
        full = [_memory(node) for node in nodes]
    async with Runtime(cluster.url, actors=[nothing], result_ttl=0, shards=shards) as runtime:
        await runtime.drain(timeout=60)
    client = time.process_time() - began
    spent = [1e6 * (_cpu(node) - cpu) / tasks for node, cpu in zip(nodes, before, strict=True)]
    stored = [float(now - then) for now, then in zip(full, empty, strict=True)]
    return Measured(spent, stored, 1e6 * client / tasks, sum(map(_calls, nodes)) / tasks)


def _cpu(node: Any) -> float:
    info = node.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _memory(node: Any) -> int:
    return int(node.info("memory")["used_memory"])


def _calls(node: Any) -> int:
    said = node.info("commandstats")
    return sum(int(said.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "eval", "fcall"))


def _notes(costs: capacity.Costs, load: capacity.Load) -> list[str]:
    found = capacity.plan(costs, load)
    rate = load.tasks_per_second * found.share * costs.calls
    lines = [
        f"{load.tasks_per_second:,.0f} tasks/s of {load.tenants:,} tenants, {load.waiting:,} waiting, take:",
        f"- {found.nodes} primaries with {found.shards} shards, spread evenly: {found.share:.1%} of the tasks each",
        f"- it works {found.busy:.0%} of the time, at {costs.server_us:.0f} µs a task",
        f"- if nobody places the shards, the busiest node has {max(capacity.shares(found.nodes, found.shards)):.1%}",
        f"- {found.node_bytes / 1e9:.2f} GB on the fullest node, and as much free for copies and fragments",
        f"- {found.processes} busy processes, handlers not counted; up to {found.connections} connections to each node",
        "waiting of a call for the busiest node, simulated:",
    ]
    for busy in _BUSY:
        waiting = capacity.simulate(rate * busy / found.busy, 1e6 * found.busy / rate)
        lines.append(f"- busy {busy:.0%}: mean {waiting.mean / 1000:.2f} ms, p99 {waiting.p99 / 1000:.2f} ms")
    return lines
