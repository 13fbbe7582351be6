"""Tests that a result arrives at the next step with its type, or the graph is refused when it is sent."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from fairactor_dependencies import result, result_of, results

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

DAY = dt.datetime(2026, 5, 17, tzinfo=dt.UTC)


@attrs.frozen
class Item:
    sku: str


@actor
async def day() -> dt.datetime:
    return DAY


@actor
async def either(*, text: bool) -> dt.datetime | str:
    return DAY.isoformat() if text else DAY


@actor
async def item() -> Item:
    return Item("a")


@actor
async def ids() -> list[uuid.UUID]:
    return [uuid.UUID(int=1)]


@actor
async def numbers() -> tuple[int, ...]:
    return (1, 2)


@actor
async def table() -> dict[str, int]:
    return {"sku": 1}


@actor
async def fail() -> dt.datetime:
    raise ValueError


@actor
async def take(value: dt.datetime | str) -> str:
    return repr(value)


@actor
async def take_optional(*, value: dt.datetime | str | None) -> str:
    return repr(value)


@actor
async def take_datetime(value: dt.datetime) -> str:
    return repr(value)


@actor
async def take_text(value: str) -> str:
    return repr(value)


@actor
async def take_any(value: Any) -> str:
    return repr(value)


@actor
async def take_list(value: list[dt.datetime | str]) -> str:
    return repr(value)


@actor
async def take_sequence(value: Sequence[dt.datetime | str]) -> str:
    return repr(value)


@actor
async def take_numbers(value: list[int]) -> str:
    return repr(value)


@actor
async def take_item(value: Item | dict[str, int]) -> str:
    return repr(value)


@actor
async def take_texts(value: list[str]) -> str:
    return repr(value)


ACTORS = [
    day, either, item, ids, numbers, table, fail, take, take_optional, take_datetime, take_text, take_any, take_list,
    take_sequence, take_numbers, take_item, take_texts,
]  # fmt: skip


async def test_a_result_arrives_with_its_type(make_runtime: Make) -> None:
    two: Any = [either(text=True), either(text=False)]
    async with make_runtime(*ACTORS) as runtime:
        for graph, found in [
            (day() >> take(result()), DAY),
            (day() >> take_optional(value=result()), DAY),
            (take(result_of(day())), DAY),
            (either(text=True) >> take(result()), DAY.isoformat()),
            (either(text=False) >> take(result()), DAY),
            (either(text=False) >> take_optional(value=result()), DAY),
            (two >> take_list(results()), [DAY.isoformat(), DAY]),
            (two >> take_sequence(results()), [DAY.isoformat(), DAY]),
            (fail() >> take_optional(value=result()).options(trigger_rule="all_done"), None),
            (numbers() >> take_numbers(result()), [1, 2]),
            (numbers() >> take_any(result()), [1, 2]),
            (item() >> take_item(result()), Item("a")),
            (table() >> take_item(result()), {"sku": 1}),
        ]:
            assert await runtime.ask("t", graph, timeout=PATIENCE) == repr(found)


async def test_a_result_that_would_arrive_as_another_type_is_refused(make_runtime: Make) -> None:
    async with make_runtime(*ACTORS) as runtime:
        for graph, words in [
            (day() >> take_text(result()), r"take_text\(\): value: a result of the type datetime .* as str"),
            (day() >> take_any(result()), "as Any"),
            (item() >> take_any(result()), "type Item .* as Any"),
            (ids() >> take_texts(result()), r"type list\[UUID\] .* as list\[str\]"),
            (either(text=True) >> take_text(result()), r"type datetime \| str .* as str"),
            (either(text=True) >> take_datetime(result()), "as datetime"),
            ([day(), either(text=True)] >> take_list(results()), r"as datetime \| str"),
        ]:
            with pytest.raises(ConfigurationError, match=words):
                await runtime.send("t", graph)
        assert (await runtime.stats()).queued == 0
