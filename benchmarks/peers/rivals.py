"""The peers, and the ways in which each one runs. If a peer has several ways, the best one counts."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Way:
    """One way to run a peer."""

    workers: int = 0
    variant: str = ""
    pinned: bool = False
    """Whether each process is pinned to one CPU, which makes some threaded peers faster."""
    callers: int = 32
    """The number of coroutines or threads that send."""

    def __str__(self) -> str:
        said = [self.variant, f"{self.workers} workers" if self.workers else f"{self.callers} callers"]
        return ", ".join([*filter(None, said), *(["pinned"] if self.pinned else [])])


@attrs.frozen
class Peer:
    """A library, and its ways to run each workload: no ways if it cannot."""

    name: str
    packages: tuple[str, ...]
    """The packages of its environment. The first one is the library, whose version is reported."""
    enqueue: tuple[Way, ...]
    drain: tuple[Way, ...]
    latency: tuple[Way, ...]
    neighbour: tuple[Way, ...]
    sleepers: tuple[Way, ...]
    batches: tuple[Way, ...] = ()
    """Ways to enqueue many tasks with one call."""
    sends: int = 10_000
    """The most tasks to enqueue."""
    drains: int = 1_000_000
    """The most tasks to drain: slow peers get fewer."""
    backlog: int = 10_000
    """The number of tasks of the neighbour, enough to outlast the tasks that join it."""

    @property
    def file(self) -> str:
        """The peer's program, a file next to this one."""
        return f"{self.name.lower()}_.py"


def _ways(*workers: int, variants: tuple[str, ...] = ("",), pinned: tuple[bool, ...] = (False,)) -> tuple[Way, ...]:
    return tuple(Way(n, variant, bound) for variant in variants for n in workers for bound in pinned)


_ASYNC: Final = (Way(),)
_THREADS: Final = (Way(callers=1), Way(callers=1, pinned=True), Way(callers=32, pinned=True))
_ONE: Final = (Way(callers=1),)
_EITHER: Final = (False, True)

OURS: Final = Peer("fairactor", (), _ASYNC, _ways(100), _ways(100), _ways(10), _ways(1000), _ASYNC)

PEERS: Final = (
    Peer(
        "taskiq",
        ("taskiq-redis", "taskiq", "uvloop", "hiredis"),
        enqueue=(Way(variant="stream"), Way(variant="list")),
        drain=_ways(100, variants=("stream", "list")),
        latency=_ways(100, variants=("stream", "list")),
        neighbour=_ways(10, variants=("stream",)),
        sleepers=_ways(1000, variants=("stream",)),
    ),
    Peer(
        "dramatiq",
        ("dramatiq[redis]", "hiredis"),
        enqueue=_THREADS,
        drain=_ways(8, variants=("256", "4096"), pinned=_EITHER),
        latency=_ways(8, pinned=_EITHER),
        neighbour=_ways(10, pinned=_EITHER),
        sleepers=_ways(1000),
    ),
    Peer(
        "SAQ",
        ("saq[hiredis]", "typing-extensions", "uvloop"),
        enqueue=_ASYNC,
        drain=_ways(20, 100),
        latency=_ways(10),
        neighbour=_ways(10),
        sleepers=_ways(1000),
    ),
    Peer(
        "arq",
        ("arq", "uvloop", "hiredis"),
        enqueue=_ASYNC,
        drain=_ways(100, 1000),
        latency=_ways(100, variants=("0.005", "0.001")),
        neighbour=_ways(10),
        sleepers=_ways(1000),
        drains=5_000,
    ),
    Peer(
        "streaQ",
        ("streaq", "uvloop"),
        enqueue=_ASYNC,
        drain=_ways(100, 1000),
        latency=_ways(10),
        neighbour=_ways(10),
        sleepers=_ways(1000),
        batches=(Way(variant="200"), Way(variant="1000")),
        drains=10_000,
    ),
    Peer(
        "Celery",
        ("celery[redis]", "gevent", "hiredis"),
        enqueue=_THREADS,
        drain=(
            Way(1, "solo"),
            Way(1, "solo", pinned=True),
            Way(8, "threads", pinned=True),
            Way(100, "gevent", pinned=True),
        ),
        latency=(Way(1, "solo"), Way(8, "threads"), Way(100, "gevent")),
        neighbour=(Way(10, "threads"), Way(10, "threads", pinned=True), Way(10, "gevent")),
        sleepers=(Way(1000, "gevent"), Way(1000, "threads")),
        sends=5_000,
        drains=3_000,
    ),
    Peer(
        "Huey",
        ("huey", "redis", "hiredis", "gevent"),
        enqueue=_THREADS,
        drain=(*_ways(4, 8, variants=("thread",), pinned=_EITHER), Way(8, "greenlet")),
        latency=(Way(8, "thread"), Way(8, "greenlet")),
        neighbour=(*_ways(10, variants=("thread",), pinned=_EITHER), Way(10, "greenlet")),
        sleepers=_ways(1000, variants=("greenlet",)),
    ),
    Peer(
        "RQ",
        ("rq", "hiredis"),
        enqueue=_THREADS,
        drain=_ways(1),
        latency=_ways(1),
        neighbour=_ways(10),
        sleepers=(),
        batches=_ONE,
        sends=3_000,
        drains=2_000,
        backlog=3_000,
    ),
    Peer(
        "BullMQ",
        ("bullmq", "uvloop", "hiredis"),
        enqueue=(Way(variant="single"), Way(variant="pool")),
        drain=_ways(100, variants=("single", "pool")),
        latency=_ways(10, variants=("single", "pool")),
        neighbour=_ways(10, variants=("single", "pool")),
        sleepers=_ways(1000, variants=("single", "pool")),
        batches=(Way(variant="single"), Way(variant="pool")),
        drains=10_000,
    ),
)
