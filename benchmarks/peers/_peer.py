"""What the files of all peers share: the handlers, and the protocol in which the benchmark talks to them.

``FILE work N`` is a worker process with N workers, until it is killed. ``FILE send`` obeys orders, a line of JSON on
stdin each, and answers each with one on stdout; its first answer comes unasked, when it is ready.

These files run in the peers' environments, so they import their peer and the standard library alone. By environment
variables: PEER_URL, PEER_STARTS (the file for what the handlers note), PEER_VARIANT and PEER_CPU (one to be bound to).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

URL = os.environ["PEER_URL"]
VARIANT = os.environ.get("PEER_VARIANT", "")
CONNECTIONS = 5000
"""What a pool may hold: that it is never what limits."""

_notes = os.open(os.environ["PEER_STARTS"], os.O_WRONLY | os.O_APPEND)


class Call(NamedTuple):
    """A task to send."""

    tenant: str
    number: int
    seconds: float


Order = dict[str, Any]
Answer = dict[str, Any]
Send = Callable[[Call], Awaitable[Any]]
SendMany = Callable[[list[Call]], Awaitable[Any]]
Sending = Callable[[], AbstractAsyncContextManager[tuple[Send, SendMany | None]]]


# Handlers


def began(number: int) -> None:
    """Notes the start of a task."""
    os.write(_notes, b"+ %d %d\n" % (number, time.monotonic_ns()))


def ended(number: int) -> None:
    """Notes the end of a task."""
    os.write(_notes, b"- %d %d\n" % (number, time.monotonic_ns()))


async def call(number: int, seconds: float) -> None:
    """Does nothing, or sleeps."""
    began(number)
    if seconds:
        await asyncio.sleep(seconds)
        ended(number)


def blocking_call(number: int, seconds: float) -> None:
    """The same, for libraries of threads or greenlets."""
    began(number)
    if seconds:
        time.sleep(seconds)
        ended(number)


# Orders


def run_async(sending: Sending, work: Callable[[int], Awaitable[Any]]) -> None:
    """Does what the command line says, with a library for asyncio.

    Args:
        sending: yields what sends one task, and what sends many at once where the library can.
        work: runs so many workers.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if working := _workers():
            runner.run(_awaited(work(working)))
        else:
            runner.run(_obey_async(sending))


def run_blocking(
    send: Callable[[Call], Any], send_many: Callable[[list[Call]], Any] | None, work: Callable[[int], Any]
) -> None:
    """The same with one for threads."""
    if working := _workers():
        work(working)
        return
    answers = _answers()
    for line in sys.stdin:
        order = json.loads(line)
        answers(_do_blocking(order, send, send_many))


def chunks(calls: list[Call], size: int) -> Iterator[list[Call]]:
    """The calls in batches."""
    return (calls[start : start + size] for start in range(0, len(calls), size))


def forever() -> None:
    """Waits until it is killed."""
    threading.Event().wait()


def _workers() -> int:
    if cpu := os.environ.get("PEER_CPU"):
        os.sched_setaffinity(0, {int(cpu)})
    return int(sys.argv[2]) if sys.argv[1] == "work" else 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _awaited(working: Awaitable[Any]) -> None:
    await working


def _answers() -> Callable[[Answer], None]:
    """Says that it is ready; what says the rest. Libraries that print do so to stderr from now on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(answer: Answer) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    answer({"ready": True})
    return answer


async def _obey_async(sending: Sending) -> None:
    async with sending() as (send, send_many):
        answers = _answers()
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            answers(await _do(order, send, send_many))


async def _do(order: Order, send: Send, send_many: SendMany | None) -> Answer:
    calls = _calls(order)
    sent = [time.monotonic_ns()] * len(calls)
    shared, interval = iter(enumerate(calls)), order["interval"]

    async def share() -> None:
        for place, each in shared:
            sent[place] = time.monotonic_ns()
            await send(each)
            if interval:
                await asyncio.sleep(interval)

    start = time.perf_counter()
    if send_many and order["how"] == "many":
        await send_many(calls)
    else:
        await asyncio.gather(*[share() for _ in range(order["callers"])])
    return {"seconds": time.perf_counter() - start, "sent": sent if order["times"] else []}


def _do_blocking(order: Order, send: Callable[[Call], Any], send_many: Callable[[list[Call]], Any] | None) -> Answer:
    calls = _calls(order)
    sent = [time.monotonic_ns()] * len(calls)
    shared, interval = iter(enumerate(calls)), order["interval"]

    def share() -> None:
        for place, each in shared:
            sent[place] = time.monotonic_ns()
            send(each)
            if interval:
                time.sleep(interval)

    start = time.perf_counter()
    if send_many and order["how"] == "many":
        send_many(calls)
    elif order["callers"] == 1:
        share()
    else:
        threads = [threading.Thread(target=share) for _ in range(order["callers"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"seconds": time.perf_counter() - start, "sent": sent if order["times"] else []}


def _calls(order: Order) -> list[Call]:
    """The calls of an order; the answer's times are in the same order."""
    first, tenants = order["first"], order["tenants"]
    return [
        Call(f"{order['tenant']}:{number % tenants}", number, order["seconds"])
        for number in range(first, first + order["count"])
    ]
