"""No script takes long, whatever waits in the shard: the slow log of the server is the witness."""

from __future__ import annotations

import pytest
import redis.asyncio

from benchmarks import longest
from benchmarks.crowd import fill
from benchmarks.longest import GOAL, Sizes
from fairactor import Runtime
from fairactor._model.keys import Keys
from fairactor.testing import check_invariants
from tests.support import servers

pytestmark = pytest.mark.anyio

FEW = Sizes(
    tenants=400, each=5, newcomers=400, claims=400, dedicated=20, assigned=300, lanes=20, limits=20, delayed=200
)
NOISE = 2.0
"""Tests of the usual run stand beside each other, which the factor of the machine does not know."""


async def too_long(server_binary: str, sizes: Sizes, rounds: int, noise: float) -> dict[str, str]:
    """Returns the scripts that took too long in each round, with their times."""
    shortest: dict[str, float] = {}
    bound = 0.0
    for _ in range(rounds):
        with servers.instance(server_binary) as made:
            async with redis.asyncio.Redis.from_url(made.url) as admin:
                found, factor = await longest.measure(made.url, admin, sizes)
        bound = max(bound, GOAL * factor)
        shortest = {name: min(took, shortest.get(name, took)) for name, took in found.items()}
        if max(shortest.values()) <= bound:
            return {}
    return {name: f"{took:.1f} ms of {bound:.1f}" for name, took in shortest.items() if took > noise * bound}


async def test_no_script_takes_long_among_few_tasks(server_binary: str) -> None:
    assert not await too_long(server_binary, FEW, 3, NOISE)


@pytest.mark.slow
async def test_no_script_takes_long_among_a_million_tasks(server_binary: str) -> None:
    assert not await too_long(server_binary, Sizes(), 3, 1.0)


async def test_a_crowd_is_what_the_scripts_would_have_stored(server_binary: str) -> None:
    with servers.instance(server_binary) as made:
        async with Runtime(made.url, workers=0) as runtime, redis.asyncio.Redis.from_url(made.url) as admin:
            await fill(admin, Keys("fairactor"), tenants=60, each=3)
            await check_invariants(runtime)
            assert (await runtime.stats()).queued == 180
