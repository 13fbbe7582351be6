"""Tests that annotations are checked where an actor is defined, or if they name later types, by the runtime."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError
from fairactor.serialization import converter

if TYPE_CHECKING:
    from decimal import Context

Make = Callable[..., Runtime]


class Color(enum.Enum):
    RED = "red"


def make_item() -> type[Any]:
    @attrs.frozen
    class Item:
        sku: str

    return Item


ONE, OTHER = make_item(), make_item()


@attrs.frozen
class Order:
    item: ONE | OTHER  # type: ignore[valid-type]


def define(hint: Any) -> None:
    async def handler(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    handler.__annotations__ = {"value": hint}
    actor(handler)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (ONE | OTHER, "two types of the union .* are named Item, so it is ambiguous"),  # type: ignore[operator]
        (dict[str, list[ONE | OTHER]], "ambiguous"),  # type: ignore[valid-type]
        (Order, "item: .* ambiguous"), (Literal["red", Color.RED], "ambiguous"), (Callable[[], int], "cannot be"),
        (complex, "before the actor is defined"), (Iterator[int], "cannot be"), (type[int], "cannot be"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_refused_where_the_actor_is_defined(hint: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"handler\(\): cannot convert value: .*{words}"):
        define(hint)


def test_a_method_is_checked_in_its_class() -> None:
    async def add(self: object, item: ONE | OTHER) -> None: ...  # type: ignore[valid-type]

    add.__qualname__ = "Cart.add"
    with pytest.raises(ConfigurationError, match=r"Cart\.add\(\): .* ambiguous"):
        actor(add)
    with pytest.raises(ConfigurationError, match=r"Cart\.add\(\): .* ambiguous"):
        actor(type("Cart", (), {"add": add}))


@actor
async def early(later: Later | None, when: dt.datetime | str = "now") -> Later | None:
    return later


@actor
async def unknown(context: Context) -> None: ...


@attrs.frozen
class Later:
    inner: Later | None = None


@pytest.mark.anyio
async def test_names_that_are_defined_later_are_checked_when_a_runtime_is_entered(make_runtime: Make) -> None:
    async with make_runtime(early) as runtime:
        assert await runtime.ask("t", early(Later(Later())), timeout=20) == Later(Later())
    with pytest.raises(ConfigurationError, match=r"unknown\(\): an annotation cannot be resolved: name 'Context'"):
        async with make_runtime(unknown):
            raise AssertionError


def test_a_hook_that_is_registered_first_counts() -> None:
    class Money:
        pass

    with pytest.raises(ConfigurationError, match="Money"):
        define(Money)
    converter.register_structure_hook(Money, lambda *_: Money())
    converter.register_unstructure_hook(Money, lambda _: 1)
    define(Money)


def test_modules_with_plain_actors_stay_cheap_to_import() -> None:
    program = """
import sys
from fairactor import actor
for number in range(200):
    async def handler(a: int, b: str | None = None, *, c: list[dict[str, float]] = ()) -> dict[str, int]: ...
    actor(name=f"actor-{number}")(handler)
print("msgspec" in sys.modules, "cattrs" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == "False False\n"
