"""A rolling deploy of this release over the one before, whose runtimes know no lanes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor._store.shard import MODEL, OLDEST
from fairactor.errors import NamespaceMismatch
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

META = "{fairactor/0}"


@actor
async def cpu(n: int) -> int:
    return n


@actor(queue="gpu", version=2)
async def train(n: int) -> int:
    return n


def join_as_before(db: redis.Redis, runtime: str) -> None:
    """Does what the release before did when a runtime joined a new namespace."""
    db.hset(META, "version", OLDEST)
    db.zadd(f"{META}:leases", {runtime: time.time() * 1000 + 3_600_000})
    db.hset(f"{META}:fleet", runtime, json.dumps({"host": "h", "pid": 1, "workers": 0, "actors": []}))


def leave_as_before(db: redis.Redis, runtime: str) -> None:
    db.zrem(f"{META}:leases", runtime)
    db.hdel(f"{META}:fleet", runtime)


def version(db: redis.Redis) -> int:
    return int(db.hget(META, "version") or 0)  # type: ignore[arg-type]  # redis-py's type is that of an async client, too


async def test_a_new_namespace_has_the_new_data_model(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0):
        assert version(db) == MODEL


async def test_beside_the_release_before_everything_is_in_one_lane(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        join_as_before(db, "old/1")
        await sender.send("acme", cpu(0))
        async with make_runtime(cpu), make_runtime(train, queues=["gpu"]):
            handles = [await sender.send("acme", message(n)) for n in range(3) for message in (cpu, train)]
            assert await sender.results(handles, timeout=PATIENCE) == [0, 0, 1, 1, 2, 2]
            assert version(db) == OLDEST
            assert not db.keys(f"{META}:lane*")
            await check_invariants(sender)
            leave_as_before(db, "old/1")
            for n in range(5):
                assert await sender.ask("acme", cpu(n), timeout=PATIENCE) == n
                assert await sender.ask("acme", train(n), timeout=PATIENCE) == n
            assert version(db) == MODEL
            await check_invariants(sender)
        assert (await sender.stats()).failed == 0


async def test_what_waits_when_the_last_one_leaves_is_not_lost(make_runtime: Make, db: redis.Redis) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    @actor
    async def hold() -> None:
        begun.set()
        await release.wait()

    async with make_runtime(workers=0) as sender:
        join_as_before(db, "old/1")
        messages = [message for n in range(300) for message in ((f"t{n % 9}", cpu(n)), (f"t{n % 11}", train(n)))]
        async with make_runtime(cpu, hold, workers=1):
            held = await sender.send("acme", hold())
            await begun.wait()
            handles = await sender.send_many(messages)
            leave_as_before(db, "old/1")
            release.set()
            await held.result(timeout=PATIENCE)
            assert await sender.results(handles[::2], timeout=PATIENCE) == list(range(300))
            await until(lambda: version(db) == MODEL)
            assert (await sender.stats()).queued == 300
            assert await handles[1].state() is TaskState.QUEUED
            await check_invariants(sender)
            async with make_runtime(train, queues=["gpu"]):
                assert await sender.results(handles[1::2], timeout=PATIENCE) == list(range(300))
            await check_invariants(sender)


async def test_data_models_that_are_not_known_are_refused(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0):
        pass
    for found, advice in (
        (
            MODEL + 1,
            rf"data model {MODEL + 1}, written by a later fairactor than this one, which knows {MODEL}: install",
        ),
        (
            OLDEST - 1,
            rf"data model {OLDEST - 1}, and this .* reads {OLDEST} and {MODEL}: run its tasks with the release",
        ),
    ):
        db.hset(META, "version", found)
        with pytest.raises(NamespaceMismatch, match=advice):
            async with make_runtime(workers=0):
                pass
    db.hset(META, "version", OLDEST)
    async with make_runtime(cpu) as runtime:
        assert await runtime.ask("acme", cpu(1), timeout=PATIENCE) == 1
        assert version(db) == MODEL, "no older runtime is there"


async def test_a_repair_does_not_let_older_releases_in_again(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        db.hset(META, "version", OLDEST)
        async with make_runtime(workers=0) as opened_before:
            async with make_runtime(cpu):
                assert await sender.ask("acme", cpu(1), timeout=PATIENCE) == 1
            assert version(db) == MODEL
            await opened_before.repair()
            assert version(db) == MODEL
