"""Tests that arguments and results survive JSON unchanged, guided by the annotations of the handler."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import pytest

from fairactor import Runtime, actor
from fairactor._actors.codec import Codec
from fairactor.errors import ConfigurationError, InvalidPayload, NotSerializable
from fairactor.serialization import converter
from tests.support.polling import PATIENCE

Make = Callable[..., Runtime]


def from_source(source: str) -> types.ModuleType:
    module = types.ModuleType("written")
    exec(compile(source, "written", "exec", dont_inherit=True), module.__dict__)  # without our __future__ import
    return module


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Text(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Line:
    sku: str
    count: int = 1
    price: decimal.Decimal = decimal.Decimal(1)


@attrs.frozen
class Order:
    id: uuid.UUID
    lines: list[Line]
    placed: dt.datetime
    color: Color | None = None
    tags: frozenset[str] = frozenset()
    parent: Order | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Path:
    points: list[Point]
    by_name: dict[str, Point] = dataclasses.field(default_factory=dict)


class Named(typing.NamedTuple):
    key: str
    count: int


class Options(typing.TypedDict, total=False):
    depth: int
    when: dt.date


class Struct(msgspec.Struct, frozen=True):
    a: int
    when: dt.date


NOW = dt.datetime(2026, 5, 17, 12, 30, 15, 123456, tzinfo=dt.UTC)
UUID = uuid.UUID("12345678123456781234567812345678")
ORDER = Order(
    UUID, [Line("a"), Line("b", 2, decimal.Decimal("1.10"))], NOW, Color.RED, frozenset({"x"}), Order(UUID, [], NOW)
)


def round_trip(hint: Any, value: Any) -> Any:
    async def handler(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    handler.__annotations__ = {"value": hint, "return": hint}
    codec = Codec("handler", handler)
    travelled = msgspec.json.decode(msgspec.json.encode(codec.arguments_to_json(*codec.bind((value,), {}))))
    args, kwargs = codec.arguments_from_json(*travelled)
    assert not kwargs
    assert codec.result_from_json(codec.result_to_json(value)) == args[0], "a result travels as an argument does"
    return args[0]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 5), (int, -(2**53) - 1), (int, 2**70), (float, 1.5), (float, 1e308), (float, 5e-324), (bool, True),
        (str, "☃ \0 \x7f \U0001f600"), (None, None), (Any, [1, {"a": None}]), (object, "x"),
        (bytes, b"\0\xff" * 100), (bytes, b""),
        (dt.datetime, NOW), (dt.datetime, NOW.replace(tzinfo=None)), (dt.date, NOW.date()),
        (dt.datetime, NOW.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))),
        (dt.time, dt.time(1, 2, 3, 4)), (dt.timedelta, dt.timedelta(days=-1, seconds=2, microseconds=3)),
        (uuid.UUID, UUID), (decimal.Decimal, decimal.Decimal("1.10")), (decimal.Decimal, decimal.Decimal("1E+50")),
        (pathlib.Path, pathlib.Path("/a/b")),
        (Color, Color.BLUE), (Level, Level.HIGH), (typing.Literal["a", 1], "a"),
        (list[int], [1, 2]), (tuple[int, str], (1, "a")), (tuple[int, ...], (1, 2)), (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})), (dict[str, int], {"a": 1}), (dict[int, str], {1: "a"}),
        (dict[uuid.UUID, int], {UUID: 1}), (dict[Color, list[Point]], {Color.RED: [Point(1, 2)]}),
        (Sequence[int], (1, 2)), (Mapping[str, float], {"a": 0.5}), (list[list[tuple[int, Color]]], [[(1, Color.RED)]]),
        (int | None, None), (int | None, 5), (typing.Optional[Line], None), (Line | None, Line("a")),  # noqa: UP045
        (int | str, "5"), (int | str, 5), (Line | int, Line("a", 7)), (Line | Path, Path([Point(1)])),
        (typing.Annotated[int, "counted"], 5), (typing.NewType("Key", str), "k"),
        (Order, ORDER), (Path, Path([Point(1, 2)], {"a": Point(3)})), (list[Order], [ORDER, ORDER]),
        (Named, Named("a", 1)), (Options, {"depth": 3, "when": NOW.date()}), (Struct, Struct(1, NOW.date())),
    ],
    ids=str,
)  # fmt: skip
def test_what_comes_out_is_what_went_in(hint: Any, value: Any) -> None:
    found = round_trip(hint, value)
    assert found == value
    if not isinstance(value, tuple) or hint is Named:
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ((1, 2), [1, 2]), ([[], {}], [[], {}]), ({"a": (1,)}, {"a": [1]}), (Level.LOW, 1), (1.5, 1.5), (None, None),
        (types.MappingProxyType({"a": Text("b")}), {"a": "b"}), ({Text("a"): [True]}, {"a": [True]}),
    ],
)  # fmt: skip
def test_without_an_annotation_it_is_what_json_has(value: Any, found: Any) -> None:
    there = round_trip(Any, value)
    assert there == found
    assert repr(there) == repr(found)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1}, r"value: \{1\} is a set"), ({1: 2}, "value: the key 1 is a int"), (Line("a"), "is a Line"),
        (Color.RED, "is a Color"), (b"x", "is a bytes"), ([{"a": UUID}], r"value\[0\]\['a'\]: UUID.* is a UUID"),
        (NOW.date(), "is a date"), (Named("a", 1), "is a Named"), (pathlib.Path("a"), "is a PosixPath"),
        (decimal.Decimal(1), "is a Decimal"), (dt.timedelta(1), "is a timedelta"), (bytearray(b"x"), "is a bytearray"),
        (Struct(1, NOW.date()), "is a Struct"), (iter([1]), "is a list_iterator"),
    ],
)  # fmt: skip
def test_without_an_annotation_all_else_is_refused(value: Any, words: str) -> None:
    with pytest.raises(
        NotSerializable, match=rf"handler\(\): {words}|handler\(\): value: .*{words}.*annotate the handler"
    ):
        round_trip(Any, value)


@pytest.mark.parametrize(
    ("hint", "sent", "words"),
    [
        (int, "five", "value: expected int, got str 'five'"), (list[int], ["a"], r"value\[0\]: expected int"),
        (Line, {"count": 1}, "value: the field sku is missing"),
        (Order, {"id": 5}, r"value\.id: expected UUID, got int"),
        (Color, "green", "value: .*green"), (uuid.UUID, "no", "value: expected UUID, got 'no'"),
        (dt.datetime, "today", "today"), (dt.datetime, "2026-05-17", "has no time"),
        (decimal.Decimal, "x", "Decimal, got 'x'"),
        (typing.Literal["a"], "b", "b"), (bytes, 5, "expected bytes, got int 5"),
        (bytes, "x!", "expected bytes, got 'x!'"),
        (dict[str, int], [1], r"expected dict\[str, int\], got list"), (int, 5.0, "expected int, got float"),
        (Path, {"points": [{"x": "left"}]}, r"points\[0\]\.x: expected float"), (bool, 1, "expected bool, got int"),
        (str, None, "expected str, got None"), (set[int], "ab", "expected set"),
        (tuple[int, int], [1], "2 items, got 1"),
        (dict[int, str], {"a": "b"}, r"value\.key\('a'\)"), (Options, {"depth": "x"}, r"value\['depth'\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_the_path_to_it(hint: Any, sent: Any, words: str) -> None:
    async def handler(value: Any) -> None: ...

    handler.__annotations__ = {"value": hint}
    with pytest.raises(InvalidPayload, match=rf"handler\(\): {words}|handler\(\): .*{words}"):
        Codec("handler", handler).arguments_from_json([sent], {})


def test_every_kind_of_parameter() -> None:
    async def handler(
        a: Line, /, b: int, c: Color = Color.RED, *rest: Point, d: dt.date, e: bytes = b"e", **named: Color
    ) -> None: ...

    codec = Codec("handler", handler)
    day = NOW.date()
    for args, kwargs in [
        ((Line("a"), 1), {"d": day}),
        ((Line("a"),), {"b": 1, "d": day, "e": b"x"}),
        ((Line("a"), 1, Color.BLUE, Point(1), Point(2)), {"d": day, "x": Color.RED}),
        ((Line("a"), 1), {"d": day, "a": Color.RED, "rest": Color.BLUE, "return": Color.BLUE, "self": Color.RED}),
    ]:
        travelled = msgspec.json.decode(msgspec.json.encode(codec.arguments_to_json(*codec.bind(args, kwargs))))
        found_args, found_kwargs = codec.arguments_from_json(*travelled)
        assert codec.bind(tuple(found_args), found_kwargs) == codec.bind(args, kwargs)


def test_a_parameter_without_annotation_is_not_taken_for_one_of_the_rest() -> None:
    async def handler(a, b=None, *rest, **named: int): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202

    codec = Codec("handler", handler)
    assert codec.arguments_from_json(["x", ["y"], "z"], {"n": 5}) == (["x", ["y"], "z"], {"n": 5})
    with pytest.raises(InvalidPayload, match="n: expected int, got str '5'"):
        codec.arguments_from_json(["x", ["y"], "z"], {"n": "5"})


def test_defaults_are_those_of_the_handler_that_runs_it() -> None:
    async def old(a: int) -> None: ...

    async def new(a: int, b: int = 7) -> None: ...

    sent = Codec("f", old).arguments_to_json(*Codec("f", old).bind((1,), {}))
    assert Codec("f", new).arguments_from_json(*sent) == ([1], {})


def test_fields_that_a_newer_version_added_are_passed_over() -> None:
    async def handler(line: Line) -> None: ...

    assert Codec("f", handler).arguments_from_json([{"sku": "a", "color": "red"}], {})[0] == [Line("a")]


class Temperature:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def test_hooks_make_other_types_known() -> None:
    async def handler(value: Temperature) -> None: ...

    with pytest.raises(ConfigurationError, match=r"handler\(\): cannot convert value: .*Temperature.*register"):
        Codec("handler", handler).look_up()
    converter.register_unstructure_hook(Temperature, lambda value: value.degrees)
    converter.register_structure_hook(Temperature, lambda value, _: Temperature(value))
    found = round_trip(Temperature | None, None)
    assert found is None
    codec = Codec("handler", handler)
    ((found,), _) = codec.arguments_from_json(*codec.arguments_to_json((Temperature(21.5),), {}))
    assert isinstance(found, Temperature)
    assert found.degrees == 21.5


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Nowhere", "name 'Nowhere' is not defined"),
        ("typing.Nowhere", "Nowhere"),
        ("1 +", "."),
        ("list[Nowhere]", "Nowhere"),
    ],
)
@pytest.mark.anyio
async def test_an_annotation_that_cannot_be_resolved_is_told_at_the_start(
    make_runtime: Make, annotation: str, words: str
) -> None:
    module = from_source(
        f"import typing\nfrom fairactor import actor\n@actor\nasync def handler(value: {annotation!r}) -> None: ...\n"
    )
    words = rf"handler\(\): an annotation cannot be resolved: .*{words}.*at the top level of the module"
    with pytest.raises(ConfigurationError, match=words):
        async with make_runtime(module):
            raise AssertionError
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=words):
            await runtime.send("user:1", module.handler(1))


@pytest.mark.anyio
async def test_annotations_of_types_that_are_defined_later(make_runtime: Make) -> None:
    module = from_source(
        "from __future__ import annotations\nimport attrs\nfrom fairactor import actor\n"
        "@actor\nasync def handler(value: Placeholder) -> list[Placeholder]:\n    return [value]\n"
        "@attrs.frozen\nclass Placeholder:\n    n: int\n"
    )
    async with make_runtime(module) as runtime:
        found = await runtime.ask("user:1", module.handler(module.Placeholder(5)), timeout=PATIENCE)
        assert found == [module.Placeholder(5)]


@actor
async def mirror(
    order: Order, *more: Point, path: Path, key: bytes, named: Named
) -> tuple[Order, tuple[Point, ...], Path, bytes, Named]:
    assert isinstance(order, Order)
    return order, more, path, key, named


@actor
async def reversed_order(order: Order) -> Order:
    assert isinstance(order.lines[0], Line)
    return attrs.evolve(order, lines=order.lines[::-1])


@pytest.mark.anyio
async def test_typed_values_travel_to_a_handler_and_back(make_runtime: Make) -> None:
    async with make_runtime(mirror, reversed_order) as runtime, make_runtime(workers=0) as stranger:
        handle = await runtime.send("user:1", reversed_order(ORDER))
        assert await handle.result(timeout=PATIENCE) == attrs.evolve(ORDER, lines=ORDER.lines[::-1])
        assert (await stranger.handle(handle.id).result())["id"] == str(UUID), "who does not know the actor gets JSON"
        message = mirror(ORDER, Point(1), Point(2), path=Path([]), key=b"k", named=Named("a", 1))
        found = await runtime.ask("user:1", message, timeout=PATIENCE)
        assert found == (ORDER, (Point(1), Point(2)), Path([]), b"k", Named("a", 1))


@pytest.mark.anyio
async def test_what_was_sent_does_not_change_with_the_sender_s_values(make_runtime: Make) -> None:
    @actor
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    numbers = [1, 2, 3]
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", total(numbers))
        numbers.append(100)
        async with make_runtime(total):
            assert await handle.result(timeout=PATIENCE) == 6


def test_a_result_without_json_form_names_its_place() -> None:
    async def handler() -> dict[str, Any]: ...

    with pytest.raises(NotSerializable, match=r"handler\(\) result\['a'\]\[1\]: <object .* is a object"):
        Codec("handler", handler).result_to_json({"a": [1, object()]})
