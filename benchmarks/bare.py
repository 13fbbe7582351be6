"""The bare queue: the smallest program that is a queue at all. Other queues are measured against it.

A task is the same JSON body as fairactor's, under a key of its own, and its id waits in one list. Popping moves up to
200 ids from the list to a set of busy ids and returns the bodies. Acknowledging removes a batch from the set and
deletes the bodies. Sending, popping and acknowledging are one script call each. The queue has no tenants, states,
results, leases or retries.

The loop decodes and awaits the tasks of a batch one after the other, and acknowledges them before the next pop. So it
runs one task at a time, a task that waits holds up all others, and a crash repeats up to 200 tasks. Two more loops each
avoid one of these faults: `BareQueue.drain_by_workers` has workers on an `asyncio.Queue`, and `BareQueue.drain_singly`
acknowledges each task with a call of its own, sending those of a batch in one pipeline.

Server, client library, JSON library and event loop are the ones fairactor uses.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis

from fairactor._model.record import Call, decode_call, encode

Handlers = Mapping[str, Callable[..., Awaitable[Any]]]

POP: Final = 200
"""How many tasks are popped at a time."""
SEND: Final = 500
"""How many tasks are sent at a time: the same number as fairactor sends."""

_SEND: Final = """
local ids, pairs = {}, {}
for i = 1, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  pairs[#pairs + 1], pairs[#pairs + 2] = 'task:' .. ARGV[i], ARGV[i + 1]
end
redis.call('MSET', unpack(pairs))
redis.call('RPUSH', 'waiting', unpack(ids))
"""

_SEND_TO_MAILBOXES: Final = """
for i = 1, #ARGV, 3 do
  redis.call('SET', 'task:' .. ARGV[i], ARGV[i + 1])
  redis.call('RPUSH', 'mailbox:' .. ARGV[i + 2], ARGV[i])
end
"""

_POP: Final = """
local ids = redis.call('LPOP', 'waiting', ARGV[1])
if not ids then return {{}, {}} end
redis.call('SADD', 'busy', unpack(ids))
local keys = {}
for i, id in ipairs(ids) do keys[i] = 'task:' .. id end
return {ids, redis.call('MGET', unpack(keys))}
"""

_ACKNOWLEDGE: Final = """
local keys = {}
for i, id in ipairs(ARGV) do keys[i] = 'task:' .. id end
redis.call('SREM', 'busy', unpack(ARGV))
redis.call('DEL', unpack(keys))
"""


class BareQueue:
    """The three script calls, and the loops that drain."""

    def __init__(self, client: Any, send: str, send_to_mailboxes: str, pop: str, acknowledge: str) -> None:
        self._client = client
        self._send = send
        self._send_to_mailboxes = send_to_mailboxes
        self._pop = pop
        self._acknowledge = acknowledge

    async def send(self, tasks: Sequence[bytes]) -> None:
        """Sends one batch, given as id, body, id, body and so on."""
        await self._client.evalsha(self._send, 0, *tasks)

    async def send_to_mailboxes(self, tasks: Sequence[bytes]) -> None:
        """Sends one batch, given as id, body, tenant, id and so on, to one list per tenant."""
        await self._client.evalsha(self._send_to_mailboxes, 0, *tasks)

    async def drain(self, handlers: Handlers) -> None:
        """Runs all waiting tasks, one by one, and acknowledges each batch."""
        evalsha = self._client.evalsha
        while True:
            ids, bodies = await evalsha(self._pop, 0, POP)
            if not ids:
                return
            for body in bodies:
                call = decode_call(body)
                await handlers[call.actor](*call.args)
            await evalsha(self._acknowledge, 0, *ids)

    async def drain_singly(self, handlers: Handlers) -> None:
        """Runs all waiting tasks, one by one, and acknowledges each task."""
        while True:
            ids, bodies = await self._client.evalsha(self._pop, 0, POP)
            if not ids:
                return
            acknowledgements = self._client.pipeline(transaction=False)
            for task, body in zip(ids, bodies, strict=True):
                call = decode_call(body)
                await handlers[call.actor](*call.args)
                acknowledgements.evalsha(self._acknowledge, 0, task)
            await acknowledgements.execute()

    async def drain_by_workers(self, handlers: Handlers, workers: int) -> None:
        """Runs all waiting tasks, up to ``workers`` at a time."""
        ready: asyncio.Queue[bytes] = asyncio.Queue()

        async def work() -> None:
            while True:
                call = decode_call(await ready.get())
                await handlers[call.actor](*call.args)
                ready.task_done()

        evalsha = self._client.evalsha
        crew = [asyncio.create_task(work()) for _ in range(workers)]
        while True:
            ids, bodies = await evalsha(self._pop, 0, POP)
            if not ids:
                break
            for body in bodies:
                ready.put_nowait(body)
            await ready.join()
            await evalsha(self._acknowledge, 0, *ids)
        for worker in crew:
            worker.cancel()
        await asyncio.gather(*crew, return_exceptions=True)


@asynccontextmanager
async def bare_queue(url: str) -> AsyncIterator[BareQueue]:
    """Makes a bare queue with a connection of its own."""
    async with Redis.from_url(url) as client:
        scripts = (_SEND, _SEND_TO_MAILBOXES, _POP, _ACKNOWLEDGE)
        yield BareQueue(client, *[await client.script_load(script) for script in scripts])


def body(actor: str, *args: Any) -> bytes:
    """Returns a call as fairactor stores it."""
    return encode(Call(actor, list(args), {}))


def batches_for(tasks: int, tenants: int) -> Iterator[list[bytes]]:
    """Makes the same batches for `BareQueue.send_to_mailboxes`, cycling through the tenants."""
    number = 0
    for batch in batches(tasks):
        out: list[bytes] = []
        for task, payload in zip(batch[::2], batch[1::2], strict=True):
            out += (task, payload, b"tenant:%d" % (number % tenants))
            number += 1
        yield out


def batches(tasks: int) -> Iterator[list[bytes]]:
    """Makes batches for `BareQueue.send`: calls of `nothing`, with ids as long as fairactor's."""
    for start in range(0, tasks, SEND):
        numbers = range(start, min(start + SEND, tasks))
        yield [part for n in numbers for part in (os.urandom(12).hex().encode(), body("nothing", n))]
