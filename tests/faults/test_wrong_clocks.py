"""Tests processes with wrong clocks: only the clock of the server counts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState
from fairactor.testing import check_invariants
from tests.support import servers, service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet, Process, fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

WRONG: Final = [-30.0, 30.0]
"""Seconds by which the clocks are wrong; each spans many leases."""

PROGRAM: Final = """
import datetime, runpy, sys, time
right, shift = time.time, float(sys.argv.pop(1))
time.time = lambda: right() + shift
time.time_ns = lambda: int(time.time() * 1e9)

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Shifted
runpy.run_module("tests.support.service", run_name="__main__", alter_sys=True)
"""


class Wrong(Process):
    """Runs `tests.support.service` in a process with a wrong clock."""

    def __init__(self, url: str, shift: float, **settings: Any) -> None:
        command = [sys.executable, "-W", "error", "-c", PROGRAM, str(shift), url, json.dumps(settings)]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.pid = self._process.pid
        self.log = ""


async def start(processes: Fleet, url: str, *shifts: float, **settings: Any) -> None:
    wrong = [Wrong(url, shift, **{"lease": 1.0, "workers": 4} | settings) for shift in shifts]
    processes.processes += wrong
    for process in wrong:
        await process.ready()


def now(db: redis.Redis) -> float:
    seconds, micros = db.time()
    return float(seconds) + micros / 1e6


async def test_leases_order_and_times_follow_the_clock_of_the_server(
    url: str, make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    await start(processes, url, *WRONG)
    began = now(db)
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        leases = set(db.zrange("{fairactor/0}:leases", 0, -1))
        tenants = ["serial", "free"]
        handles = await runtime.send_many([(tenants[n % 2], service.one_at_a_time(n)) for n in range(200)])
        pids = await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
        assert len(set(pids)) == 2, "both have had a part"
        assert [int(n) for n in db.lrange("order serial", 0, -1)] == list(range(0, 200, 2))
        await until(lambda: now(db) > began + 2.5)  # leases last one second
        assert set(db.zrange("{fairactor/0}:leases", 0, -1)) == leases, "none was lost"
        for handle in handles[:10]:
            info = await handle.info()
            assert info.started_at is not None
            assert info.ended_at is not None
            times = [info.enqueued_at, info.started_at, info.ended_at]
            assert times == sorted(times)
            assert began - 0.01 <= times[0].timestamp() <= times[2].timestamp() <= now(db) + 0.01
        await check_invariants(runtime)
    await processes.stop()


@pytest.mark.parametrize("shift", WRONG)
async def test_delays_expiry_and_history_follow_the_clock_of_the_server(
    url: str, make_runtime: Make, processes: Fleet, db: redis.Redis, shift: float
) -> None:
    async with make_runtime(workers=0) as runtime:
        late = await runtime.send("user:1", service.nap(0), expires=0.2)
        lasting = await runtime.send("user:1", service.nap(0), expires=20)
        sent = now(db)
        await until(lambda: now(db) > sent + 0.3)
        await start(processes, url, shift)
        assert await lasting.result(timeout=PATIENCE)
        with pytest.raises(TaskCanceled, match="expired"):
            await late.result(timeout=PATIENCE)
        due = datetime.fromtimestamp(now(db) + 0.5, UTC)
        delayed = await runtime.send("user:1", service.nap(0), delay=0.5)
        at = await runtime.send("user:1", service.nap(0), eta=due)
        far = await runtime.send("user:1", service.nap(0), delay=20)
        for handle in (delayed, at):
            assert await handle.result(timeout=10)
            info = await handle.info()
            assert info.started_at is not None
            assert info.started_at.timestamp() > due.timestamp() - 0.01
        assert await far.state() is TaskState.SCHEDULED
        await far.cancel()
        began = now(db)
        failing = await runtime.send("user:1", service.block(-1.0, times=9), max_retries=2, backoff=0.01)
        with pytest.raises(TaskFailed, match="ValueError"):
            await failing.result(timeout=PATIENCE)
        times = [began - 0.01, *(attempt.started_at for attempt in (await failing.info()).history), now(db) + 0.01]
        assert len(times) == 5
        assert times == sorted(times)
        (health,) = (await runtime.stats()).runtimes
        assert health.lease_left > 0
    await processes.stop()


LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.slow
@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (Debian: apt-get install libfaketime)")
async def test_a_server_whose_clock_is_set_back_serves_as_before(
    server_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step"
    step.write_text("+0\n")
    fake = {"FAKETIME_TIMESTAMP_FILE": step, "FAKETIME_NO_CACHE": 1, "DONT_FAKE_MONOTONIC": 1, "LD_PRELOAD": LIBRARY}
    for name, value in fake.items():
        monkeypatch.setenv(name, str(value))
    with servers.running(server_binary) as url, fleet(url) as processes, servers.client(url) as db:
        for name in fake:
            monkeypatch.delenv(name)
        (doomed,) = await processes.start(lease=1.0)
        async with Runtime(url, workers=0) as sender:
            delayed = await sender.send("user:1", service.nap(0).options(delay=2))
            held = await sender.send("user:2", service.hold())
            await until(lambda: db.llen("runs"))
            step.write_text("-3600\n")
            assert await delayed.result(timeout=10) == doomed.pid
            assert "the clock of the server was set back by 3600 s" in "".join((await sender.health()).problems)
            doomed.kill()
            (other,) = await processes.start(lease=1.0)
            db.rpush("gate", 1)
            assert await held.result(timeout=10) == other.pid
            step.write_text("+0\n")
            assert await sender.ask("user:1", service.nap(0), timeout=10) == other.pid
            assert (await sender.health()).ok, "the clock is right again"
        await other.stop()
