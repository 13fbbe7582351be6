"""Actors for tests of dependencies, and tasks that end when a test wants it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import attrs
from fairactor_dependencies import parents

from fairactor import Handle, Message, Runtime, TaskCanceled, TaskFailed, TaskState, actor
from tests.support.polling import PATIENCE


@attrs.frozen
class Order:
    number: int
    lines: list[str]


@actor
async def give(value: Any) -> Any:
    return value


@actor
async def order(number: int) -> Order:
    return Order(number, ["a", "b"])


@actor
async def ship(order: Order, note: str = "") -> str:
    assert isinstance(order, Order)
    return f"{order.number}{note}"


@actor
async def total(numbers: list[int | None]) -> int:
    return sum(number or 0 for number in numbers)


@actor
async def fail() -> None:
    raise ValueError("no")


@actor
async def ran_after() -> list[str]:
    return parents()


class Gate:
    """An actor whose tasks end once ``opened`` is set."""

    def __init__(self) -> None:
        self.opened = anyio.Event()

        @actor
        async def wait(value: Any = None) -> Any:
            await self.opened.wait()
            if value == "fail":
                raise ValueError("no")
            return value

        self.wait = wait


async def ended(handle: Handle[Any]) -> TaskState:
    """Waits for a task to end and returns its state."""
    with suppress(TaskCanceled, TaskFailed):
        await handle.result(PATIENCE)
    return await handle.state()


async def ended_parent(runtime: Runtime, how: str, tenant: str = "parent") -> Handle[Any]:
    """Sends a task, waits until it has ended as ``how`` says, and returns its handle."""
    message: Message[Any] = fail() if how == "failed" else give(1)
    handle = await runtime.send(tenant, message, **{"delay": 60} if how == "canceled" else {})
    if how == "canceled":
        await handle.cancel()
    assert await ended(handle) == how
    return handle
