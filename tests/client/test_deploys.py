"""Each way of changing a handler's signature while tasks of the release before wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Message, Runtime, TaskFailed, actor
from fairactor._actors.codec import Codec
from tests.support.polling import PATIENCE

Make = Callable[..., Runtime]


@actor(name="transfer")
async def before(source: int, target: int, cents: int = 1) -> str: ...


@actor(name="transfer")
async def reordered(target: int, source: int, cents: int = 1) -> str:
    return f"{cents} from {source} to {target}"


@actor(name="transfer")
async def renamed(payer: int, target: int, cents: int = 1) -> str:
    return f"{cents} from {payer} to {target}"


@actor(name="transfer")
async def added_with_default(source: int, target: int, cents: int = 1, note: str = "-") -> str:
    return f"{cents} from {source} to {target}: {note}"


@actor(name="transfer")
async def added_first(note: str = "-", *, source: int, target: int, cents: int = 1) -> str:
    return f"{cents} from {source} to {target}: {note}"


@actor(name="transfer")
async def added_without_default(source: int, target: int, note: str, cents: int = 1) -> str: ...


@actor(name="transfer")
async def removed(source: int, target: int) -> str:
    return f"from {source} to {target}"


@actor(name="transfer")
async def keeps_the_rest(source: int, target: int, **gone: Any) -> str:
    return f"from {source} to {target}, without {sorted(gone)}"


@actor(name="transfer")
async def other_default(source: int, target: int, cents: int = 100) -> str:
    return f"{cents} from {source} to {target}"


@actor(name="transfer")
async def other_type(source: str, target: int, cents: int = 1) -> str: ...


NAMED = before(source=1, target=2, cents=500)
MIXED = before(1, target=2, cents=500)
PLACED = before(1, 2, 500)
SHORT = before(source=1, target=2)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sent", "now", "found"),
    [
        (NAMED, reordered, "500 from 1 to 2"),
        (PLACED, reordered, "500 from 2 to 1"),  # what Python does, too: pass by name what a release may move
        (MIXED, reordered, "multiple values for argument 'target'"),
        (NAMED, renamed, "missing a required argument: 'payer'"),
        (PLACED, renamed, "500 from 1 to 2"),
        (NAMED, added_with_default, "500 from 1 to 2: -"),
        (PLACED, added_with_default, "500 from 1 to 2: -"),
        (NAMED, added_first, "500 from 1 to 2: -"),
        (NAMED, added_without_default, "missing a required argument: 'note'"),
        (NAMED, removed, "unexpected keyword argument 'cents'"),
        (PLACED, removed, "too many positional arguments"),
        (SHORT, removed, "from 1 to 2"),
        (NAMED, keeps_the_rest, "from 1 to 2, without ['cents']"),
        (SHORT, other_default, "100 from 1 to 2"),
        (NAMED, other_type, "source: expected str, got int 1"),
    ],
)
async def test_tasks_of_the_release_before(make_runtime: Make, sent: Message[str], now: Any, found: str) -> None:
    async with make_runtime(workers=0) as old:
        handle = await old.send("acme", sent)
        assert (await handle.info()).kwargs == sent.kwargs
        async with make_runtime(now):
            if " from " in found or found.startswith("from "):
                assert await handle.result(timeout=PATIENCE) == found
                return
            with pytest.raises(TaskFailed, match=found) as caught:
                await handle.result(timeout=PATIENCE)
            assert caught.value.error == "fairactor.errors.InvalidPayload"


def test_records_in_which_names_have_become_positions_still_decode() -> None:
    codec = Codec("transfer", before.function)
    assert codec.arguments_from_json([1, 2, 500], {}) == ([1, 2, 500], {})
    assert codec.arguments_from_json([1], {"target": 2}) == ([1], {"target": 2})


def test_what_is_passed_by_name_stays_by_name() -> None:
    assert (NAMED.args, NAMED.kwargs) == ((), {"source": 1, "target": 2, "cents": 500})
    assert (MIXED.args, MIXED.kwargs) == ((1,), {"target": 2, "cents": 500})
    for args, kwargs in [
        ((), {"source": 1}),
        ((1, 2, 3, 4), {}),
        ((1,), {"source": 1, "target": 2}),
        ((), {"other": 1}),
    ]:
        with pytest.raises(TypeError, match=r"transfer\(\): .*it takes \(source: "):
            before(*args, **kwargs)
