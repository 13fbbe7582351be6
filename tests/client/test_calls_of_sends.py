"""How many tasks go with one call: those with many routes may open as many lanes, which costs the server more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fairactor import Runtime, actor
from fairactor._model.wire import MOST_ROUTES, USUAL_BATCH, Item
from fairactor._store.shard import Shard

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


async def nothing() -> None: ...


MANY = [actor(name=f"nothing-{n}")(nothing) for n in range(2 * MOST_ROUTES)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Item]]:
    """The tasks of each call."""
    made: list[Sequence[Item]] = []
    send = Shard.send

    async def record(self: Shard, items: Sequence[Item], *arguments: Any, **options: Any) -> Any:
        made.append(items)
        return await send(self, items, *arguments, **options)

    monkeypatch.setattr(Shard, "send", record)
    return made


async def test_a_call_has_some_routes_at_most(make_runtime: Make, calls: list[Sequence[Item]]) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("acme", one()) for one in MANY])
        await asyncio.gather(*(runtime.send("acme", one()) for one in MANY))
    assert sum(map(len, calls)) == 2 * len(MANY)
    assert max(len({item.route for item in items}) for items in calls) == MOST_ROUTES


async def test_tasks_of_few_routes_fill_the_calls(make_runtime: Make, calls: list[Sequence[Item]]) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("acme", MANY[0]())] * 2 * USUAL_BATCH)
    assert [len(items) for items in calls] == [USUAL_BATCH, USUAL_BATCH]
