"""Random annotations, and values of them: each arrives as it was sent."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import os
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, Union
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairactor._actors.codec import Codec

MANY = int(os.environ.get("FAIRACTOR_VALUES", "20000"))


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Item:
    sku: str
    price: int | None = None
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Place:
    name: str | Color
    at: dt.datetime | str | None


class Point(NamedTuple):
    x: float
    y: float | int


class Struct(msgspec.Struct, frozen=True):
    key: bytes | str
    parts: tuple[int, ...] = ()


class Options(TypedDict):
    depth: int
    when: dt.date


ZONES = st.sampled_from(
    [None, dt.UTC, dt.timezone(dt.timedelta(minutes=-330)), ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns")]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
INTS = st.integers(-(2**70), 2**70)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold if isinstance(zone, ZoneInfo) else 0),
    st.datetimes(), ZONES, st.sampled_from([0, 1]),
)  # fmt: skip
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: INTS,
    str: TEXT,
    bool: st.booleans(),
    None: st.none(),
    float: FLOATS,
    bytes: st.binary(max_size=5),
    dt.datetime: MOMENTS,
    dt.date: st.dates(),
    dt.timedelta: st.timedeltas(),
    decimal.Decimal: st.decimals(allow_nan=False),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Literal["red", 1]: st.sampled_from(["red", 1]),
    NewType("Key", int): INTS,
    Annotated[bytes, "raw"]: st.binary(max_size=5),
    Item: st.builds(Item, TEXT, st.none() | INTS, st.frozensets(TEXT, max_size=2)),
    Place: st.builds(Place, TEXT | st.sampled_from(Color), MOMENTS | TEXT | st.none()),
    Point: st.builds(Point, FLOATS, FLOATS | INTS),
    Struct: st.builds(Struct, st.binary(max_size=3) | TEXT, st.lists(INTS, max_size=2).map(tuple)),
    Options: st.fixed_dictionaries({"depth": INTS, "when": st.dates()}),
}  # fmt: skip
Typed = tuple[Any, st.SearchStrategy[Any]]


def hashable(typed: Typed) -> bool:
    return (
        typed[0] is not Options
        and "list" not in str(typed[0])
        and "dict" not in str(typed[0])
        and "set" not in str(typed[0])
    )


def wider(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Returns containers and unions of the types that a strategy makes."""
    keys = st.sampled_from(list(SCALARS.items())).filter(hashable)
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),  # type: ignore[name-defined]
        inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple))),  # type: ignore[name-defined]
        st.tuples(inner, inner).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),  # type: ignore[name-defined]
        keys.map(lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=3))),  # type: ignore[name-defined]
        st.tuples(keys, inner).map(
            lambda two: (dict[two[0][0], two[1][0]], st.dictionaries(two[0][1], two[1][1], max_size=3))  # type: ignore[name-defined]
        ),
        st.lists(inner, min_size=2, max_size=4).map(
            lambda some: (
                Union[tuple(one[0] for one in some)],  # noqa: UP007 - of any number
                st.one_of([one[1] for one in some]),
            )
        ),
    )


TYPES: st.SearchStrategy[Typed] = st.recursive(st.sampled_from(list(SCALARS.items())), wider, max_leaves=5)


def described(value: Any) -> Any:
    """Returns a value with the types of all its parts, to compare it exactly. Sets have no order."""
    if isinstance(value, dt.datetime):
        return (
            dt.datetime,
            value.isoformat(),
            str(value.tzinfo if isinstance(value.tzinfo, ZoneInfo) else value.utcoffset()),
            value.utcoffset(),
        )
    if isinstance(value, dict):
        return dict, sorted((repr(described(key)), described(child)) for key, child in value.items())
    if isinstance(value, frozenset):
        return frozenset, sorted(repr(described(each)) for each in value)
    if isinstance(value, tuple | list):
        return type(value), [described(each) for each in value]
    fields = getattr(value, "__dict__", None) if not isinstance(value, enum.Enum) else None
    if attrs.has(type(value)):
        fields = attrs.asdict(value, recurse=False)
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.asdict(value)
    return (type(value), described(fields)) if fields else (type(value), repr(value))


def check(typed: Typed, data: st.DataObject) -> None:
    hint, values = typed

    async def handler(value): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    handler.__annotations__ = {"value": hint, "return": hint}
    codec = Codec("f", handler)
    value = data.draw(values)
    encoded = msgspec.json.encode(codec.arguments_to_json((), {"value": value}))
    ((), named) = codec.arguments_from_json(*msgspec.json.decode(encoded))
    assert described(named["value"]) == described(value), (hint, encoded)
    assert described(codec.result_from_json(codec.result_to_json(value))) == described(value)


RANDOM = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@given(TYPES, st.data())
@settings(max_examples=200, **RANDOM)  # type: ignore[arg-type]
def test_random_values(typed: Typed, data: st.DataObject) -> None:
    check(typed, data)


@pytest.mark.slow
@given(TYPES, st.data())
@settings(max_examples=MANY, **RANDOM)  # type: ignore[arg-type]
def test_very_many_random_values(typed: Typed, data: st.DataObject) -> None:
    check(typed, data)
