"""Tests that a runtime lives on when keys that it needs are damaged, and serves again after the repair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
import redis

from fairactor import Runtime, actor
from fairactor._model import keys
from fairactor.errors import ServerError
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

META: Final = "{fairactor/0}"
NEEDED: Final = ("META", "COUNTS", "LEASES", "WATCHERS", "RING")


@actor
async def echo(value: Any) -> Any:
    return value


@pytest.mark.parametrize("name", NEEDED)
async def test_a_key_of_another_type_is_named_until_it_is_repaired(
    make_runtime: Make, db: redis.Redis, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = META + (keys.FIXED[name] if name in keys.FIXED else keys.PREFIXES[name] + "t")
    async with make_runtime(echo) as runtime:
        later = await runtime.send("t", echo("later"), delay=3600)
        waiting = asyncio.ensure_future(later.result(PATIENCE))
        await until(lambda: db.hlen(META + ":watchers"))
        db.delete(key)
        db.set(key, "damaged")
        error = await first_error(runtime)
        if isinstance(error, ServerError):
            assert repr(key) in str(error)
            assert "await runtime.repair()" in str(error)
        assert isinstance((await runtime.health()).problems, tuple)
        await runtime.repair()  # a script that failed half-way may have been followed by a repair already
        assert any(key in entry.message and ":aside:" in entry.message for entry in caplog.records)
        assert len(list(db.scan_iter(META + ":aside:*"))) == 1
        assert await runtime.ask("t", echo(2), timeout=PATIENCE) == 2
        db.zadd(META + ":delayed:t", {later.id: 1})
        await runtime.repair()
        assert await waiting == "later", "who waits is told, whatever was damaged"
        await until(partial(is_idle, runtime))
        await check_invariants(runtime)
        db.delete(*db.scan_iter(META + ":aside:*"))
    restarts = [entry for entry in caplog.records if "restarting" in entry.message]
    assert not restarts, restarts
    warned = [entry for entry in caplog.records if entry.levelno >= logging.WARNING and "damaged" in entry.message]
    assert len(warned) < 50, "with back-off"


async def first_error(runtime: Runtime) -> Exception:
    while True:
        try:
            await runtime.ask("t", echo(1), timeout=0.5)
        except (ServerError, TimeoutError) as error:
            return error


async def is_idle(runtime: Runtime) -> bool:
    return (await runtime.stats()).pending == 0


async def test_health_does_not_raise_whatever_is_stored(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(echo, lease=60) as runtime:
        await runtime.ask("t", echo(1), timeout=PATIENCE)
        (name,) = db.hkeys(META + ":fleet")
        before = db.hgetall(META)
        for value in (b"{", b"[1]", b"5", b'{"workers": "x"}', b'{"actors": 5}', b'{"host": 5}', b"\xff", b"null"):
            described = db.hget(META + ":fleet", name)
            db.hset(META + ":fleet", name, value)
            health = await runtime.health()
            assert any("cannot be read" in problem and "repair" in problem for problem in health.problems), value
            db.hset(META + ":fleet", name, described)
        for field in (*before, b"sample", b"stolen", b"plugins", b"behind"):
            for value in (b"garbage", b"", b"nan", b"inf", b"-1e400", b"\xff\xfe"):
                db.hset(META, field, value)
                health = await runtime.health()
                assert all(isinstance(problem, str) for problem in health.problems)
                db.hset(META, mapping=before)
            if field not in before:
                db.hdel(META, field)
        for score in ("inf", "-inf"):
            db.zadd(META + ":leases", {"x": score})
            assert any("impossible time" in problem for problem in (await runtime.health()).problems)
        db.zrem(META + ":leases", "x")
        assert (await runtime.health()).ok
