"""fairactor beside other task queues on Redis, each with its fastest settings, on one server.

The peers are taskiq, dramatiq, SAQ, arq, streaQ, Celery, Huey, RQ and BullMQ (its package for Python), in the versions
that are newest today: uv makes an environment for each. All talk to one server over TCP, with uvloop and hiredis where
they can. In each round each workload is done by all, one after the other. Where a peer can be run in several ways
(list or stream, threads or greenlets, bound to one CPU or not), all are tried in the first round, and the best one
counts from then on. The handlers note their starts in a file, ours too, from which all is computed, and whether each
task was run, and once only.

- enqueue: by 32 coroutines (or threads, or by one where that is faster) that send one task after the other; and in
  batches, where the library can do that.
- drain1, drain2: no-op tasks, ours over 1,000 tenants, all enqueued before one or two worker processes start.
  (n - 1) / (last start - first start of a handler).
- latency: from the call that enqueues to the first line of the handler in another process, idle until then.
- neighbour: tenant A has 10,000 tasks of 5 ms for 10 workers in one process; a second later B comes with 50, and waits,
  from the call that enqueues to the start of the handler. The peers have both in one queue. And the same without A.
  RQ runs one task at a time in a process, so it is given ten processes.
- sleepers: 2,000 sleeps of a second by 1,000 workers in one process, from the first start to the last end, and the
  connections to the server meanwhile. All but RQ.

The first figure of each kind is ours against the best peer of each round, and has the goal; the others are ours against
one peer each. Where a peer failed it says why. `--only taskiq,huey` chooses peers, `--workloads drain1,latency` what is
measured.
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
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)  # as Ctrl-C: it ends the processes
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
        raise SystemExit(f"no {', '.join(unknown)} here: there are {', '.join(among)}")
    return [value for name, value in among.items() if not wanted or name in wanted]


def _say(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


@attrs.define
class _Record:
    """What one peer did in one workload."""

    way: Way | None = None
    rounds: dict[int, Found] = attrs.field(factory=dict)
    doubled: int = 0
    failures: list[str] = attrs.field(factory=list)


@attrs.define
class _Lab:
    """What is measured, and what was found."""

    bench: Bench
    sizes: Sizes
    workloads: list[str]
    url: str = ""
    admin: Any = None
    environments: dict[str, Environment] = attrs.field(factory=dict)
    failed: dict[str, str] = attrs.field(factory=dict)
    records: dict[tuple[str, str], _Record] = attrs.field(factory=dict)

    async def measure(self, peer: Peer, workload: str, number: int) -> None:
        """One round of one peer; at first in all its ways, of which the best one is kept."""
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
        """How fast each drained, in one process, the fastest first."""
        rounds = {peer.name: self._record(peer, "drain1").rounds.values() for peer in chosen}
        key = next(iter(WORKLOADS["drain1"].metrics))
        rates = {name: median(found[key] for found in each) for name, each in rounds.items() if each}
        return dict(sorted(rates.items(), key=lambda rate: -rate[1]))

    def figures(self, chosen: Sequence[Peer]) -> list[Figure]:
        """All figures: of each kind that of the best peer, then that of each."""
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
        """What is to be known of a peer's values."""
        if peer.name in self.failed:
            return f"{peer.name} {self.failed[peer.name]}"
        record = self._record(peer, workload)
        said = [f"{peer.name} {self.environments[peer.name].version}"]
        said += [str(record.way)] if record.way else []
        said += [f"{record.doubled} tasks ran twice"] if record.doubled else []
        said += [f"failed {len(record.failures)} times, {record.failures[-1]}"] if record.failures else []
        return "; ".join(said)


def _best(theirs: dict[str, dict[int, float]], metric: Metric) -> dict[int, tuple[float, str]]:
    """The best peer's value of each round, and who that was."""
    best: dict[int, tuple[float, str]] = {}
    for name, values in theirs.items():
        for number, value in values.items():
            if number not in best or (value > best[number][0]) == metric.more:
                best[number] = value, name
    return best
