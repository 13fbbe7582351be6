"""Kills primaries of a cluster, and prints how soon it serves again: ``python -m tests.chaos.resume [--times N]``.

Three primaries with a replica each keep 16 shards, for a runtime that runs tasks and one that sends. Again and again a
primary is killed, and started again as a replica once all shards are served. The clock starts when all nodes say that
the cluster is ok and where its slots are, and stops when a task of each shard has come back since.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from fairactor import Runtime, actor
from fairactor._model.keys import Keys, shard_of
from fairactor.errors import ServerUnavailable
from tests.support import servers
from tests.support.server_groups import Cluster

from .disturbances import Disturbance, DisturbanceKind
from .disturber import GOAL, Disturber

_SHARDS: Final = 16
_EACH: Final = 0.05
"""Seconds between two tasks of a shard."""


@actor
async def echo(n: int) -> int:
    """Returns its number."""
    return n


async def kill_primaries(binary: str, times: int, lease: float) -> list[float]:
    """Returns, for each primary that was killed, the seconds until all shards served again."""
    chance = random.Random(times)
    with (
        tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder,
        Cluster(binary, Path(folder), proxied=False) as group,
    ):
        await anyio.to_thread.run_sync(group.form)
        keys = [Keys("fairactor", number).meta for number in range(_SHARDS)]

        async def control(number: int, what: str) -> None:
            group.control(number, what)

        began = time.monotonic()
        disturber = Disturber(group, keys, control, lambda text: _say(f"{time.monotonic() - began:7.2f} {text}"))
        async with (
            Runtime(group.url, actors=[echo], lease=lease, shards=_SHARDS),
            Runtime(group.url, workers=0, lease=lease) as sender,
            anyio.create_task_group() as probing,
        ):
            for shard in range(_SHARDS):
                probing.start_soon(_probe, sender, shard, disturber)
            for _ in range(times):
                what = DisturbanceKind.DIE
                await disturber.disturb(Disturbance(what, after=chance.random(), shard=chance.randrange(_SHARDS)))
            probing.cancel_scope.cancel()
    return disturber.resumed


async def _probe(sender: Runtime, shard: int, disturber: Disturber) -> None:
    """Asks a shard again and again, and notes when it has answered."""
    tenant = next(name for name in map(str, range(10_000)) if shard_of(name, _SHARDS) == shard)
    while True:
        try:
            await sender.ask(tenant, echo(shard))
        except ServerUnavailable:
            continue
        disturber.served[shard] = anyio.current_time()
        await anyio.sleep(_EACH)


def main() -> int:
    """Runs the command line; returns 1 if it took too long once."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.resume", description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="how many primaries to kill (default: 50)")
    parser.add_argument("--lease", type=float, default=15.0, help="the lease of the runtimes (default: 15)")
    parser.add_argument("--server", choices=servers.SERVERS, default="valkey", help="the server to run on")
    options = parser.parse_args()
    logging.disable()
    took = sorted(anyio.run(partial(kill_primaries, servers.binary(options.server), options.times, options.lease)))
    within = sum(each <= GOAL for each in took)
    _say(
        f"{len(took)} primaries killed; all shards served again after p50 {statistics.median(took):.2f} s, "
        f"max {took[-1]:.2f} s; within {GOAL:g} s: {within}"
    )
    return 0 if within == len(took) else 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program


if __name__ == "__main__":
    sys.exit(main())
