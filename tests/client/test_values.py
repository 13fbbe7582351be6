"""Tests that values arrive as what they are: exact types, unions, and types of libraries. Anything else is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from fairactor import Runtime, TaskFailed, actor
from fairactor._actors.codec import Codec
from fairactor.errors import ConfigurationError, InvalidPayload, NotSerializable
from tests.support.polling import PATIENCE

Make = Callable[..., Runtime]
T = TypeVar("T")
U = TypeVar("U", int, str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.Enum):
    SMALL = "s"
    LARGE = ("l", 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class UserId(str):
    __slots__ = ()


@attrs.frozen
class Item:
    sku: str
    price: int = 1


@attrs.frozen
class Longer(Item):
    more: int = 0


@attrs.frozen
class Same(Item):
    pass


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Counted:
    start: int
    total: int = dataclasses.field(init=False, default=0)
    note: str = None  # type: ignore[assignment]  # many write it so


@dataclasses.dataclass
class Box(Generic[T]):
    value: T


@dataclasses.dataclass
class Dated(Box[dt.date], Generic[U]):
    other: U


@attrs.define
class Case(Generic[T]):
    _value: T
    rest: list[T] = attrs.field(factory=list)


class Struct(msgspec.Struct, Generic[T], tag=True, rename="camel"):
    my_value: T
    at: dt.datetime | str = "never"


class Pair(NamedTuple):
    first: int
    second: dt.date = dt.date(2020, 1, 1)


class Options(TypedDict):
    depth: int
    when: typing.NotRequired[dt.date]


class Others(TypedDict, total=False):
    name: typing.Required[UserId]
    raw: bytes


class Model(pydantic.BaseModel):
    n: int
    at: dt.datetime
    tags: set[str] = set()
    sub: Model | None = None


class Renamed(pydantic.BaseModel):
    n: int = pydantic.Field(alias="number")


class Secret(pydantic.BaseModel):
    key: pydantic.SecretStr


class Hidden(pydantic.BaseModel):
    _private: int = pydantic.PrivateAttr(default=0)


class Numbers(pydantic.RootModel[list[int]]):
    pass


REPEATED_HOUR = dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
DAY = REPEATED_HOUR.date()
UUID = uuid.UUID(int=7)
ITEM = Item("a")
HIDDEN = Hidden()
HIDDEN._private = 1


def codec_for(hint: Any) -> Codec:
    async def handler(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    handler.__annotations__ = {"value": hint, "return": hint}
    return Codec("f", handler)


def round_trip(hint: Any, value: Any) -> Any:
    codec = codec_for(hint)
    travelled = msgspec.json.decode(msgspec.json.encode(codec.arguments_to_json((value,), {})))
    args, _ = codec.arguments_from_json(*travelled)
    assert repr(codec.result_from_json(codec.result_to_json(value))) == repr(args[0])
    return args[0]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        # Unions keep the type
        (uuid.UUID | str, UUID), (uuid.UUID | str, str(UUID)), (dt.datetime | str, "2026-01-01T00:00:00"),
        (dt.datetime | str, REPEATED_HOUR), (bytes | str, b"ab"), (bytes | str, "YWI="), (Color | str, Color.RED),
        (Color | str, "red"), (Word | str, Word.A), (Word | str, "a"), (Level | int, Level.LOW), (Level | int, 1),
        (Color | Size, Size.SMALL), (dt.date | dt.datetime, DAY), (dt.date | dt.datetime, REPEATED_HOUR),
        (Item | list[Item], ITEM), (Item | list[Item], [ITEM]), (Item | dict, ITEM), (Item | dict, {"sku": "a"}),
        (Item | dict, {"$type": "Item", "$value": {"sku": "a"}}), (Item | Longer, Longer("a")), (Item | Longer, ITEM),
        (int | float, 5), (int | float, 5.0), (int | bool, True), (int | bool, 1), (list[int] | list[float], [1.0]),
        (list[float] | list[int], [1]), (list[int] | set[int] | tuple[int, ...], {1}), (Box[int] | Box[str], Box("a")),
        (list[int] | set[int] | tuple[int, ...], (1,)), (Box[float] | Box[int], Box(1)), (Options | Item, {"depth": 1}),
        (Options | Others, {"name": UserId("a")}), (Any | None, [5]), (Literal["auto"] | dt.datetime, "auto"),
        (Literal["auto"] | str, "x"),  # noqa: PYI051 - it is to be tried
        (Literal["a", 1, True], True), (Literal[Color.RED] | None, Color.RED),
        (Literal[b"a", "b"], b"a"), (Sequence[int], [1]), (Sequence[int], (1,)), (Iterable[str], ["a"]),
        (float | Literal["red", 1], 1), (float | Literal["red", 1], 1.0),
        # Keys that are no strings
        (dict[Item, int] | dict[int, int], {ITEM: 1}),
        (dict[Level, int], {Level.LOW: 2}), (dict[dt.date, int], {DAY: 1}), (dict[tuple[int, str], int], {(1, "a"): 2}),
        (dict[int | str, int], {1: 2, "1": 3}), (dict[bool, int], {True: 1}), (dict[float, int], {1.5: 1}),
        (dict[str | None, int], {None: 1, "null": 2}), (dict[Item, int], {ITEM: 1}), (dict[bytes, int], {b"a": 1}),
        (dict[Literal[1, 2], str], {1: "a"}), (dict[Right, int], {Right.READ: 1}), (dict[int, str], {1: "a"}),
        # Values
        (Size, Size.LARGE), (Right, Right.READ | Right.WRITE), (Right, Right(0)), (UserId, UserId("u")),
        (np.int64, np.int64(5)), (bytearray, bytearray(b"ab")), (dt.timedelta, dt.timedelta.max), (tuple[()], ()),
        (dt.datetime, REPEATED_HOUR), (dt.datetime, REPEATED_HOUR.replace(fold=1)),
        (dt.datetime, dt.datetime.max),  # noqa: DTZ901
        (dt.datetime, dt.datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))),
        (dt.time, dt.time(1, tzinfo=dt.UTC)), (dt.time, dt.time(1, tzinfo=ZoneInfo("Europe/Berlin"))),
        (collections.deque[int], collections.deque([1])), (collections.Counter[str], collections.Counter("aab")),
        (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)), (typing.NewType("Key", int), 5),
        (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1])), (T, [1]), (U, "a"),
        (typing.LiteralString, "a"), (typing.Annotated[int, {"no": "hash"}], 5), (Node, Node(1, Node(2), [Node(3)])),
        # Classes
        (Counted, Counted(1)), (Box[dt.date], Box(DAY)), (Dated[int], Dated(DAY, 1)), (Case[bytes], Case(b"a", [b"b"])),
        (Struct[dt.date], Struct(DAY, REPEATED_HOUR)), (Struct[int] | str, Struct(1)), (Pair, Pair(1)),
        (Options, {"depth": 1, "when": DAY}), (Others, {"name": UserId("a"), "raw": b"a"}), (Numbers, Numbers([1])),
        (Model, Model(n=1, at=REPEATED_HOUR.replace(tzinfo=None), tags={"a"}, sub=Model(n=2, at=dt.datetime.max))),  # noqa: DTZ901
        (Renamed, Renamed(number=1)), (Model | dict, Model(n=1, at=REPEATED_HOUR.replace(tzinfo=None))),
        (Numbers | list[int], Numbers([1])), (Numbers | list[int], [1]), (Numbers | None, Numbers([1])),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_arrives_as_it_was_sent(hint: Any, value: Any) -> None:
    found = round_trip(hint, value)
    assert found == value
    assert repr(found) == repr(value)
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "value", "found"),
    [
        (int, True, 1), (int, Level.LOW, 1), (int, np.int64(3), 3), (float, 5, 5.0), (float, np.float32(0.5), 0.5),
        (float | str, 5, 5.0), (bool, np.bool_(True), True), (str, UserId("x"), "x"), (str, np.str_("x"), "x"),
        (str, Word.A, "a"), (list[int], (1, 2), [1, 2]), (list[int], range(2), [0, 1]), (Item, Same("a"), ITEM),
        (list[int], collections.deque([1]), [1]), (dict[str, int], collections.Counter("a"), {"a": 1}),
        (Mapping[str, int], types.MappingProxyType({"a": 1}), {"a": 1}), (AbstractSet[int], {1}, frozenset({1})),
        (list[float], [1e308, 1e308], [1e308, 1e308]),
        (Any, np.float64(0.5), 0.5), (Any, np.int8(1), 1), (list[float], [1, 2.5], [1.0, 2.5]),
    ],
    ids=str,
)  # fmt: skip
def test_what_loses_nothing_is_widened(hint: Any, value: Any, found: Any) -> None:
    there = round_trip(hint, value)
    assert repr(there) == repr(found)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (str, 5, "value: expected str, got int 5"), (str, None, "expected str, got None"), (int, "5", "got str '5'"),
        (int, 5.0, "got float 5.0"), (int, decimal.Decimal(1), "got Decimal"), (float, "5", "got str '5'"),
        (float, 2**53 + 1, "which no float equals"), (float, 10**400, "which no float equals"), (bool, 1, "got int 1"),
        (float, fractions.Fraction(1, 2), "got Fraction"), (bool, "no", "got str 'no'"), (bytes, "x", "got str"),
        (bytes, bytearray(b"x"), "got bytearray"), (list[str], "abc", "expected list"), (list[int], {1}, "got set"),
        (list[int], {1: 2}, "got dict"), (list[int], b"ab", "got bytes"), (list[int], np.array([1]), "got ndarray"),
        pytest.param(list[int], (n for n in [1]), "got generator", id="a generator"),
        (tuple[int, int], [1, 2], "got list"),
        (set[int], [1], "got list"),
        (tuple[int, int], (1,), "with 2 items, got 1"), (frozenset[int], {1}, "got set"),
        (dt.datetime, DAY, "got date"),
        (dt.date, REPEATED_HOUR, "got datetime"), (uuid.UUID, str(UUID), "got str"), (Color, "red", "got str 'red'"),
        (Level, 1, "got int 1"), (Literal[1], True, "got True"),
        (dict[str, int], {1: 2}, r"value\.key\(1\): expected str"),
        (dict[str, list[Item]], {"k": [ITEM, Item("b", "x")]}, r"value\['k'\]\[1\]\.price: expected int, got str 'x'"),  # type: ignore[arg-type]
        (Item, {"sku": "a"}, "expected Item, got dict"), (Item, Longer("a"), "whose field more would be lost"),
        (Item | None, Longer("a"), "whose field more would be lost"), (Options, {"depth": 1, "z": 2}, "no key 'z'"),
        (Options, {}, "the key 'depth' is missing"), (Pair, (1, DAY), "expected Pair, got tuple"),
        (Struct[int], Struct("x"), r"value\.my_value: expected int"), (Model, {"n": 1}, "expected Model, got dict"),
        (Model, Model.model_construct(n="x", at=DAY), "pydantic cannot write"),
        (Secret, Secret(key="x"), "changes on its way"),
        (uuid.UUID | int, "x", r"expected (UUID \| int|int \| UUID), got str"),  # equal to Python, and looked up once
        (list[int] | str, [1, "a"], r"value\[1\]: expected int"),
        (Box[int], Box("x"), r"value\.value: expected int"),
        (Node, Node(1, None, [Node("x")]), r"value\.children\[0\]\.value"),  # type: ignore[arg-type]
        (collections.deque[int], collections.deque([1], maxlen=3), "expected deque"),
        (set[Any], {(1,)}, "would arrive as a list"), (Hidden, HIDDEN, "changes on its way"),
        (list[float], [1e308, 1e308, float("nan")], "finite"), (dict[str, float], {"a": float("-inf")}, "finite"),
        (type(None), 5, "expected None, got int"), (dt.datetime, np.datetime64("2026-01-01"), "got datetime64"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_path(hint: Any, value: Any, words: str) -> None:
    codec = codec_for(hint)
    with pytest.raises(NotSerializable, match=rf"^f\(\): .*{words}") as caught:
        codec.arguments_to_json((value,), {})
    assert "\n" not in str(caught.value)
    with pytest.raises(NotSerializable, match=r"^f\(\) result"):
        codec.result_to_json(value)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Literal["red", Color.RED], "ambiguous"), (Callable[[], int], "cannot be converted"), (complex, "cannot be"),
        (list[complex], "cannot be"),
    ],
)  # fmt: skip
def test_an_annotation_that_cannot_work_is_refused(hint: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        codec_for(hint).look_up()


def test_what_was_sent_before_a_union_got_more_types_still_fits() -> None:
    for hint, stored, found in [
        (Item | dt.date, {"sku": "a", "price": 1}, ITEM), (dt.datetime | str, "2026-01-01", "2026-01-01"),
        (float | str, 5, 5.0), (Pair, [1, "2026-05-17"], Pair(1, dt.date(2026, 5, 17))),
        (uuid.UUID | dt.date, str(UUID), UUID),
    ]:  # fmt: skip
        assert codec_for(hint).arguments_from_json([stored], {}) == ([found], {})
    with pytest.raises(InvalidPayload, match="fits several"):
        codec_for(Item | dict).arguments_from_json([{"sku": "a"}], {})


def test_pydantic_models_in_the_hour_that_clocks_repeat() -> None:
    assert round_trip(Model, Model(n=1, at=REPEATED_HOUR)).at.timestamp() == REPEATED_HOUR.timestamp()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is newer")
def test_type_aliases() -> None:
    names: dict[str, Any] = {}
    source = "type Json = dict[str, Json] | list[Json] | str | int | None\ntype Twice[X] = tuple[X, X]"
    exec(source, names)
    assert round_trip(names["Json"], {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert round_trip(names["Twice"][bytes], (b"a", b"b")) == (b"a", b"b")
    with pytest.raises(NotSerializable, match="expected"):
        round_trip(names["Json"], {"a": {b"x"}})


@actor
async def describe(item: Item | str, *, count: int = 1, note: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013 - many write it so
    return f"{item} {count} {note}"


@actor
async def lie(value: Any) -> int:
    return value  # type: ignore[no-any-return]


@pytest.mark.anyio
async def test_awaiting_a_message_checks_as_sending_does(make_runtime: Make) -> None:
    assert await describe(ITEM, note=None) == "Item(sku='a', price=1) 1 None"  # type: ignore[arg-type]
    with pytest.raises(NotSerializable, match=r"describe\(\): count: expected int, got str 'x'"):
        await describe("a", count="x")  # type: ignore[arg-type]
    with pytest.raises(NotSerializable, match=r"lie\(\) result: expected int, got str 'x'"):
        await lie("x")
    with pytest.raises(NotSerializable, match=r"lie\(\): value: .* is a set"):
        await lie({1})
    async with make_runtime(describe, lie) as runtime:
        assert await runtime.ask("t", describe(ITEM, note=None), timeout=PATIENCE) == await describe(ITEM)  # type: ignore[arg-type]
        with pytest.raises(TaskFailed, match=r"lie\(\) result: expected int, got str 'x'"):
            await runtime.ask("t", lie("x"), max_retries=3, timeout=PATIENCE)


@pytest.mark.anyio
async def test_a_handler_that_is_awaited_gets_values_of_its_own() -> None:
    @actor
    async def extend(values: list[int]) -> list[int]:
        values.append(0)
        return values

    values = (1, 2)
    assert await extend(values) == [1, 2, 0]  # type: ignore[arg-type]


def test_deep_values_are_refused_by_name() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for hint in (Any, list, "Json"):
        with pytest.raises(NotSerializable, match=r"f\(\): value: more than 200 levels"):
            codec_for(Any if hint == "Json" else hint).arguments_to_json((deep,), {})
    chained: Node | None = None
    for number in range(5000):
        chained = Node(number, chained)
    with pytest.raises(NotSerializable, match="more than 200 levels"):
        codec_for(Node).arguments_to_json((chained,), {})


@attrs.frozen
class Branch:
    parts: list[Branch | str | dict[str, Branch]]


def test_a_misfit_deep_inside_is_found_at_once() -> None:
    untyped: Any = {1}
    branch: Any = 5
    stored: Any = 5
    for _ in range(60):
        untyped = [{"a": untyped}]
        branch = Branch([{"a": branch}])
        stored = {"parts": [stored]}
    with pytest.raises(NotSerializable, match=r"value\[0\]\['a'\]\[0\]"):
        codec_for(Any).arguments_to_json((untyped,), {})
    with pytest.raises(NotSerializable, match=r"value\.parts\[0\]"):
        codec_for(Branch).arguments_to_json((branch,), {})
    with pytest.raises(InvalidPayload, match=r"value\.parts\[0\]"):
        codec_for(Branch).arguments_from_json([stored], {})
