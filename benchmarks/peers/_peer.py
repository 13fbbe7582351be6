"""What the programs of all peers share: the handlers, and the protocol that the benchmark talks to them in.

``FILE work N`` is a worker process with N workers, which runs until it is killed. ``FILE send`` obeys orders: it reads
one line of JSON per order from stdin, and answers each with a line on stdout. It writes its first answer unasked, when
it is ready.

These files run in the peers' environments, so they import only their peer and the standard library. Environment
variables: PEER_URL, PEER_STARTS (the file that the handlers write to), PEER_VARIANT, and PEER_CPU (the CPU to pin the
process to).
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
"""The maximum size of a connection pool, so large that it never limits anything."""

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
    """Writes down the start of a task."""
    os.write(_notes, b"+ %d %d\n" % (number, time.monotonic_ns()))


def ended(number: int) -> None:
    """Writes down the end of a task."""
    os.write(_notes, b"- %d %d\n" % (number, time.monotonic_ns()))


async def call(number: int, seconds: float) -> None:
    """Does nothing, or sleeps."""
    began(number)
    if seconds:
        await asyncio.sleep(seconds)
        ended(number)


def blocking_call(number: int, seconds: float) -> None:
    """Like `call`, for libraries that use threads or greenlets."""
    began(number)
    if seconds:
        time.sleep(seconds)
        ended(number)


# Orders


def run_async(sending: Sending, work: Callable[[int], Awaitable[Any]]) -> None:
    """Runs the command line for an asyncio library.

    Args:
        sending: yields a function that sends one task, and one that sends many at once, or None if the library cannot.
        work: runs that many workers.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if working := _workers():
            runner.run(_awaited(work(working)))
        else:
            runner.run(_obey_async(sending))


def run_blocking(
    send: Callable[[Call], Any], send_many: Callable[[list[Call]], Any] | None, work: Callable[[int], Any]
) -> None:
    """Runs the command line for a blocking library."""
    if working := _workers():
        work(working)
        return
    answers = _answers()
    for line in sys.stdin:
        order = json.loads(line)
        answers(_do_blocking(order, send, send_many))


def chunks(calls: list[Call], size: int) -> Iterator[list[Call]]:
    """Splits calls into batches."""
    return (calls[start : start + size] for start in range(0, len(calls), size))


def forever() -> None:
    """Waits until the process is killed."""
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
    """Sends the ready answer, and returns a function for further ones. From now on libraries print to stderr."""
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
    """Returns the calls of an order. The times in the answer are in the same order."""
    first, tenants = order["first"], order["tenants"]
    return [
        Call(f"{order['tenant']}:{number % tenants}", number, order["seconds"])
        for number in range(first, first + order["count"])
    ]
