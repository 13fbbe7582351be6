"""The result of a handler is known wherever a task is sent, asked or followed."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar, assert_type

from fairactor import (
    Handle,
    Message,
    Policy,
    Priority,
    Retry,
    Runtime,
    Stats,
    Task,
    TaskFailed,
    TaskInfo,
    TaskState,
    Tenant,
    actor,
    current_task,
)
from fairactor.plugins import Actor

R = TypeVar("R")


@actor
async def render(page: int) -> str:
    if current_task().attempt == 1:
        raise Retry("once more", delay=0)
    return str(page)


@actor
def count(text: str, *more: str, **named: int) -> int:
    return len(text) + sum(map(len, more)) + sum(named.values())


@actor(max_retries=3)
async def find(pages: list[int]) -> dict[int, str] | None:
    return dict.fromkeys(pages, "") or None


async def results(runtime: Runtime) -> None:
    print(await runtime.ask("acme", render(1)))
    print(await render(1))
    assert_type(render(1), Message[str])
    assert_type(await render(1), str)
    assert_type(await runtime.ask("acme", render(1), timeout=5), str)
    assert_type(await runtime.ask("acme", count("a", "b", c=1)), int)
    assert_type(await runtime.tenant("acme").ask(find([1])), dict[int, str] | None)
    handle = await runtime.send("acme", count("a"))
    assert_type(handle, Handle[int])
    assert_type(await handle.result(timeout=5), int)
    assert_type(await runtime.handle("render-1").result(), Any)

    count("a", 1)  # flagged
    count("a", b="c")  # flagged
    text: str = await runtime.ask("acme", count("a"))  # flagged
    number: int = await handle.result(timeout="5")  # flagged
    print(text, number)


async def many(runtime: Runtime, tenants: list[str]) -> None:
    handles = await runtime.send_many((tenant, render(n)) for n, tenant in enumerate(tenants))
    assert_type(handles, list[Handle[str]])
    assert_type(await asyncio.gather(*(handle.result() for handle in handles)), list[str])
    mixed: list[tuple[str, Message[Any]]] = [("acme", render(1)), ("acme", count("a"))]
    for handle in await runtime.send_many(mixed):
        print(await handle.result())
    print(await runtime.send_many([("acme", render(1)), ("globex", count("a"))]))

    numbers: list[Handle[int]] = await runtime.send_many([("acme", render(1))])  # flagged
    print(numbers)


def annotations(task: Task, info: TaskInfo, stats: Stats, tenant: Tenant, policy: Policy) -> None:
    assert_type(task.priority, Priority)
    assert_type(info.state, TaskState)
    assert_type(info.progress, tuple[float, str] | None)
    assert_type(stats.queued, int)
    assert_type(tenant.name, str)
    assert_type(policy.concurrency, int | None)

    print(task.tenent)  # flagged
    print(info.progress[0])  # flagged
    print(stats.queue)  # flagged


async def in_a_handler(page: int) -> str:
    task = current_task()
    await task.progress(0.5, "half of it")
    if task.runtime is not None:
        return await task.runtime.ask(task.tenant, render(page))
    return await task.runtime.ask(task.tenant, render(page))  # flagged


def show(handle: Handle[object], message: Message[object]) -> None:
    print(handle, message)


def send_later(runtime: Runtime, tenant: str, message: Message[int]) -> Awaitable[Handle[int]]:
    return runtime.send(tenant, message)


async def covariant(runtime: Runtime, handle: Handle[int], message: Message[int]) -> None:
    show(handle, message)
    show(await runtime.send("acme", render(1)), render(1))
    await send_later(runtime, "acme", count("a"))
    some: list[Handle[object]] = [handle, await runtime.send("acme", render(1))]
    actors: list[Actor[..., Any]] = [render, count]
    Runtime(actors=actors)
    print(some)

    await send_later(runtime, "acme", render(1))  # flagged


async def ask_all(runtime: Runtime, tenant: str, messages: Iterable[Message[R]]) -> list[R]:
    return [await runtime.ask(tenant, message) for message in messages]


async def generic(runtime: Runtime) -> None:
    assert_type(await ask_all(runtime, "acme", [render(1), render(2)]), list[str])


async def facts(runtime: Runtime, handle: Handle[int]) -> None:
    assert_type(await handle.info(), TaskInfo)
    assert_type(await handle.state(), TaskState)
    assert_type(await runtime.stats(), Stats)
    assert_type(runtime.tenant("acme"), Tenant)
    assert_type(await runtime.tenant("acme").policy(), Policy)
    assert_type(await runtime.policies.tenants(), dict[str, Policy])
    assert_type(await runtime.dead_letters.redrive(tenant="acme"), int)
    async for letter in runtime.dead_letters.find(actor="render"):
        assert_type(letter, TaskInfo)
    try:
        await handle.result()
    except TaskFailed as failed:
        assert_type(failed.error, str)

    runtime.dead_letters.find(actors="render")  # flagged
