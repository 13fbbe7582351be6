"""Tests what happens while a handler blocks the event loop: the leases are kept for a while, and the log names it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from fairactor import Runtime, actor
from fairactor._worker import lease_keeper
from fairactor._worker.dispatcher import Dispatcher
from fairactor._worker.watchdog import Watchdog
from tests.support.polling import until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

LEASE = 0.4
began: list[int] = []
"""The thread of each run."""


@actor
async def block(seconds: float) -> int:
    """Blocks the event loop in its first run; returns its thread."""
    return _block_once(seconds)


@actor
async def block_in_a_child(seconds: float) -> int:
    async def child() -> int:
        return _block_once(seconds)

    return await asyncio.create_task(child())


@actor
async def block_in_a_callback(seconds: float) -> int:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: ended.set_result(_block_once(seconds)))
    return await ended


def _block_once(seconds: float) -> int:
    began.append(threading.get_ident())
    if len(began) == 1:
        time.sleep(seconds)
    return threading.get_ident()


ACTORS = (block, block_in_a_child, block_in_a_callback)


@pytest.fixture(autouse=True)
def nothing_has_begun() -> None:
    began.clear()


@contextmanager
def in_a_thread(runtime: Runtime) -> Iterator[BlockingPortal]:
    """Enters a runtime in an event loop of its own, which handlers may block while the test's loop runs."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(runtime):
        yield portal


def said(caplog: pytest.LogCaptureFixture, begin: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(begin)]


@pytest.mark.parametrize("blocks", ACTORS, ids=lambda each: each.name)
async def test_a_runtime_whose_loop_is_blocked_keeps_its_lease_and_says_why(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, blocks: Any
) -> None:
    async with make_runtime(workers=0) as sender:
        with in_a_thread(make_runtime(*ACTORS, lease=LEASE)):
            handle = await sender.send("acme", blocks(3 * LEASE))
            await until(lambda: began)
            async with make_runtime(*ACTORS, lease=LEASE):
                assert await handle.result(timeout=30) == began[0]
            assert len(began) == 1, "another runtime ran the task too"
            assert not (await handle.info()).history
            assert [each.name[-2:] for each in (await sender.stats()).runtimes] == ["/1"], "it had to join again"
    first, last = said(caplog, "the event loop")
    who = rf"{handle.id} \({blocks.name} of tenant 'acme'\), at .*test_lease_keeper\.py:\d+ \(\w+\)"
    assert re.match(rf"the event loop has been blocked for 0\.\d s by {who}.*: nothing else runs", first)
    assert re.match(rf"the event loop was blocked for 1\.\d s by {who}", last)


async def test_leases_are_given_up_when_the_loop_never_runs_again(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "BOUND", 2)
    async with make_runtime(workers=0) as sender:
        with in_a_thread(make_runtime(block, lease=LEASE)):
            handle = await sender.send("acme", block(5 * LEASE))
            await until(lambda: began)
            async with make_runtime(block, lease=LEASE):
                await until(lambda: len(began) == 2)
                assert began[1] == threading.get_ident(), "it runs in the other runtime, as its lease was given up"
                assert await handle.result(timeout=30) == threading.get_ident()
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR][:1]
    assert re.match(r"no turn for 0\.\d s \(2 leases\): the leases of this runtime are not renewed any more", error)


@actor
def hold_the_lock(seconds: float) -> None:
    """Keeps Python's lock, as a long regular expression does."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


@actor
async def hold_the_lock_in_the_loop(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


@pytest.mark.parametrize("holds", [hold_the_lock, hold_the_lock_in_the_loop], ids=lambda each: each.name)
async def test_a_handler_that_keeps_pythons_lock_is_named_afterwards(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, holds: Any
) -> None:
    async with make_runtime(holds, lease=LEASE) as runtime:
        handle = await runtime.send("acme", holds(LEASE))
        await handle.result(timeout=30)
        await until(lambda: said(caplog, "this process stood still"))
    (line,) = said(caplog, "this process stood still")
    assert re.match(r"this process stood still for 0\.[34] s: a handler kept Python's lock", line)
    assert line.endswith(f": {handle.id} ({holds.name} of tenant 'acme')")


async def test_the_keeper_asks_nothing_of_the_server_while_the_loop_runs(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = []
    monkeypatch.setattr(Dispatcher, "renew", lambda *_: renewals.append(1))
    looks = []
    monkeypatch.setattr(Watchdog, "look", lambda *_: looks.append(1))
    async with make_runtime(block, lease=LEASE):
        await until(lambda: len(looks) > 30)
    assert not renewals


async def test_the_thread_ends_with_the_runtime(make_runtime: Make) -> None:
    async with make_runtime(block), make_runtime(workers=0):
        (thread,) = [each for each in threading.enumerate() if each.name == "fairactor lease keeper"]
    await until(lambda: not thread.is_alive(), seconds=5)


async def test_what_hinders_the_keeper_is_said_once_and_hinders_nobody_else(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(Dispatcher, "renew", fail)
    async with make_runtime(block, lease=LEASE) as runtime:
        await runtime.ask("acme", block(1.5 * LEASE), timeout=30)
    assert len(said(caplog, "a lease could not be renewed while the event loop is blocked: gone")) == 1
