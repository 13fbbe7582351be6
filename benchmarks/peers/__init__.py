"""fairactor against other task queues on Redis, each with its fastest settings, on one server.

The peers are taskiq, dramatiq, SAQ, arq, streaQ, Celery, Huey, RQ and BullMQ (its Python package), in their newest
versions; uv makes an environment for each. All talk to one server over TCP, with uvloop and hiredis where they can. In
each round, every peer does every workload, one after the other. If a peer can run in several ways (list or stream,
threads or greenlets, pinned to one CPU or not), the first round tries all of them, and the best one counts from then
on. The handlers, ours too, write their starts to a file. All figures are computed from it, and it also shows whether
each task ran exactly once.

- enqueue: 32 coroutines (or threads, or one if that is faster) send one task after the other; and sending in batches,
  if the library can do that.
- drain1, drain2: no-op tasks, ours over 1,000 tenants, all enqueued before one or two worker processes start. (n - 1) /
  (last start - first start of a handler).
- latency: from the call that enqueues to the first line of the handler in another, idle process.
- neighbour: tenant A has 10,000 tasks of 5 ms for 10 workers in one process. A second later B sends 50, which wait from
  the call that enqueues to the start of the handler. The peers have both tenants in one queue. The same without A. RQ
  runs one task at a time per process, so it gets ten processes.
- sleepers: 2,000 sleeps of a second on 1,000 workers in one process, from the first start to the last end, and the
  connections to the server meanwhile. Every peer but RQ.

The first figure of each kind compares ours with the best peer of each round, and has the goal. The others compare ours
with one peer each. If a peer failed, its figure says why. `--only taskiq,huey` chooses peers,
`--workloads drain1,latency` what to measure.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import attrs

from benchmarks import plots
from benchmarks.bench import Bench
from benchmarks.figures import Figure

from .place import Environment, PeerFailed, environment, server, stay
from .rivals import OURS, PEERS, Peer, Way
from .workloads import WORKLOADS, Found, Metric, Sizes


async def run(
    bench: Bench, *, tasks: int = 20_000, tenants: int = 1_000, samples: int = 150, only: str = "", workloads: str = ""
) -> list[Figure]:
    own = asyncio.current_task()
    assert own is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)  # end the processes as on Ctrl-C
    chosen = [OURS, *_chosen(only, {peer.name.lower(): peer for peer in PEERS})]
    lab = _Lab(bench, Sizes(tasks, tenants, samples), _chosen(workloads, {name: name for name in WORKLOADS}))
    async with AsyncExitStack() as stack:
        lab.url, lab.admin = await stack.enter_async_context(server(bench))
        for peer in chosen:
            try:
                lab.environments[peer.name] = await stack.enter_async_context(environment(peer))
            except PeerFailed as failure:
                lab.failed[peer.name] = str(failure)
                _say(f"{peer.name}: {failure}")
        for number in bench.each_round():
            for workload in lab.workloads:
                for peer in chosen:
                    if peer.name in lab.environments and WORKLOADS[workload].ways(peer):
                        await lab.measure(peer, workload, number)
    if rates := lab.rates(chosen):
        bench.pictures.append(plots.peers(rates))
    return lab.figures(chosen)


def _chosen(names: str, among: dict[str, Any]) -> list[Any]:
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in among]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; choose from {', '.join(among)}")
    return [value for name, value in among.items() if not wanted or name in wanted]


def _say(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


@attrs.define
class _Record:
    """The results of one peer in one workload."""

    way: Way | None = None
    rounds: dict[int, Found] = attrs.field(factory=dict)
    doubled: int = 0
    failures: list[str] = attrs.field(factory=list)


@attrs.define
class _Lab:
    """Runs the measurements and keeps the results."""

    bench: Bench
    sizes: Sizes
    workloads: list[str]
    url: str = ""
    admin: Any = None
    environments: dict[str, Environment] = attrs.field(factory=dict)
    failed: dict[str, str] = attrs.field(factory=dict)
    records: dict[tuple[str, str], _Record] = attrs.field(factory=dict)

    async def measure(self, peer: Peer, workload: str, number: int) -> None:
        """Runs one round of one peer. The first round tries all its ways and keeps the best one."""
        record = self._record(peer, workload)
        task = WORKLOADS[workload]
        key, metric = next(iter(task.metrics.items()))
        tried: list[tuple[float, Way, Found]] = []
        for way in (record.way,) if record.way else task.ways(peer):
            try:
                async with stay(peer, self.environments[peer.name], self.url, self.admin) as place:
                    found = await task.run(place, way, self.sizes)
            except (PeerFailed, OSError, LookupError, ValueError) as failure:
                record.failures.append(f"{way}: {failure}")
                _say(f"{workload}, {peer.name}, {way}: {failure}")
                continue
            record.doubled = max(record.doubled, int(found.get("doubled", 0)))
            tried.append((found[key], way, found))
            told = ", ".join(f"{name} {value:,.4g}" for name, value in found.items())
            _say(f"{workload}, {peer.name}, {way}: {told}")
        if tried:
            _, record.way, record.rounds[number] = (max if metric.more else min)(tried, key=lambda each: each[0])

    def _record(self, peer: Peer, workload: str) -> _Record:
        return self.records.setdefault((peer.name, workload), _Record())

    def rates(self, chosen: Sequence[Peer]) -> dict[str, float]:
        """Returns the drain rate of each peer in one process, fastest first."""
        rounds = {peer.name: self._record(peer, "drain1").rounds.values() for peer in chosen}
        key = next(iter(WORKLOADS["drain1"].metrics))
        rates = {name: median(found[key] for found in each) for name, each in rounds.items() if each}
        return dict(sorted(rates.items(), key=lambda rate: -rate[1]))

    def figures(self, chosen: Sequence[Peer]) -> list[Figure]:
        """Returns all figures: for each metric, first the best peer and then every peer."""
        return [
            figure
            for workload in self.workloads
            for key, metric in WORKLOADS[workload].metrics.items()
            for figure in self._of(workload, key, metric, chosen[1:])
        ]

    def _of(self, workload: str, key: str, metric: Metric, peers: Sequence[Peer]) -> list[Figure]:
        def values(peer: Peer) -> dict[int, float]:
            return {number: found[key] for number, found in self._record(peer, workload).rounds.items()}

        ours = values(OURS)
        theirs = {peer.name: values(peer) for peer in peers}
        best = _best(theirs, metric)
        both = [number for number in ours if number in best]
        figures = []
        if both:
            names = "/".join(dict.fromkeys(best[number][1] for number in both))
            found = [ours[number] for number in both], [best[number][0] for number in both]
            figures = [Figure(metric.name, metric.unit, *found, f"best peer, {names}", metric.goal)]
        for peer in peers:
            both = [number for number in ours if number in theirs[peer.name]]
            found = [ours[number] for number in both], [theirs[peer.name][number] for number in both]
            said = self._said(peer, workload)
            if both:
                figures.append(Figure(f"{metric.name}: {peer.name}", metric.unit, *found, said))
            elif ours and (peer.name in self.failed or self._record(peer, workload).failures):
                figures.append(Figure(f"{metric.name}: {said}", metric.unit, [*ours.values()]))
        return figures

    def _said(self, peer: Peer, workload: str) -> str:
        """Describes how a peer's values were measured."""
        if peer.name in self.failed:
            return f"{peer.name} {self.failed[peer.name]}"
        record = self._record(peer, workload)
        said = [f"{peer.name} {self.environments[peer.name].version}"]
        said += [str(record.way)] if record.way else []
        said += [f"{record.doubled} tasks ran twice"] if record.doubled else []
        said += [f"failed {len(record.failures)} times, {record.failures[-1]}"] if record.failures else []
        return "; ".join(said)


def _best(theirs: dict[str, dict[int, float]], metric: Metric) -> dict[int, tuple[float, str]]:
    """Returns the best peer's value of each round, and its name."""
    best: dict[int, tuple[float, str]] = {}
    for name, values in theirs.items():
        for number, value in values.items():
            if number not in best or (value > best[number][0]) == metric.more:
                best[number] = value, name
    return best
