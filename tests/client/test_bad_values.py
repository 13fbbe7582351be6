"""Tests refused arguments, results and records: each raises a specific exception that names the cause."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
import redis

from fairactor import Message, Retry, Runtime, TaskFailed, actor
from fairactor.errors import ConfigurationError, NotSerializable, PayloadTooLarge
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def anything(value: Any = None, *rest: Any, **named: Any) -> Any:
    return value


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


@attrs.frozen
class Box:
    content: Any


@actor
async def boxed(box: Box) -> Box:
    return box


# Arguments and results


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            lambda: anything(Opaque()),
            r"anything\(\): value: <opaque> is a Opaque, which JSON does not have; annotate",
        ),
        (
            lambda: anything({"a": [1, {"b": Opaque()}]}),
            r"anything\(\): value\['a'\]\[1\]\['b'\]: <opaque> is a Opaque",
        ),
        (lambda: anything(Box([Opaque()])), r"value: Box.* is a Box"),
        (lambda: boxed(Box([Opaque()])), r"boxed\(\): box\.content\[0\]: <opaque> is a Opaque"),
        (lambda: anything(1, 2, Opaque(), 3), r"anything\(\): rest\[1\]: <opaque> is a Opaque"),
        (lambda: anything(1, "\udcff", 3), r"anything\(\): rest\[0\]: .* is a str that has no JSON form"),
        (lambda: anything(extra=Opaque()), r"anything\(\): extra: <opaque> is a Opaque"),
        (lambda: anything(1, value2=float("nan")), r"anything\(\): value2: expected a finite float, got nan"),
        (lambda: anything(1 + 2j), "complex"),
        (lambda: anything("\udcff"), r"anything\(\): value: .* is a str that has no JSON form.*surrogate"),
        (lambda: anything({(1, 2): 3}), r"anything\(\): value: the key \(1, 2\) is a tuple"),
        (lambda: anything(lambda: None), "function"),
    ],
)
async def test_an_argument_without_json_form_is_refused_with_the_path_to_it(
    make_runtime: Make, message: Callable[[], Message[Any]], words: str
) -> None:
    async with make_runtime(anything, boxed) as runtime:
        with pytest.raises(NotSerializable, match=words) as caught:
            await runtime.send("user:1", message())
        assert isinstance(caught.value, TypeError)
        assert (await runtime.stats()).pending == 0


async def test_a_value_that_holds_itself_is_refused(make_runtime: Make) -> None:
    loop: list[Any] = []
    loop.append(loop)
    async with make_runtime(anything) as runtime:
        with pytest.raises(NotSerializable, match="anything"):
            await runtime.send("user:1", anything(loop))


async def test_a_result_without_json_form_fails_the_task_with_the_path_to_it(make_runtime: Make) -> None:
    @actor
    async def give() -> Any:
        return {"a": [Opaque()]}

    async with make_runtime(give) as runtime:
        with pytest.raises(TaskFailed, match=r"give\(\) result\['a'\]\[0\]: <opaque> is a Opaque.*annotate") as caught:
            await runtime.ask("user:1", give(), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.NotSerializable"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"deep": [n]}], ids=["bare", "nested"])
async def test_numbers_that_json_does_not_have_are_refused(
    make_runtime: Make, number: float, wrap: Callable[[float], Any]
) -> None:
    @actor
    async def give(which: str) -> Any:
        return wrap(float(which))

    async with make_runtime(anything, give) as runtime:
        with pytest.raises(NotSerializable, match=r"value.*(nan|inf)"):
            await runtime.send("user:1", anything(wrap(number)))
        with pytest.raises(TaskFailed, match=r"NotSerializable: give\(\) result.*(nan|inf)"):
            await runtime.ask("user:1", give(str(number)), timeout=PATIENCE)


async def test_a_typed_float_that_json_does_not_have_is_refused(make_runtime: Make) -> None:
    @actor
    async def half(x: float, many: list[float] | None = None) -> float:
        return x / 2

    async with make_runtime(half) as runtime:
        with pytest.raises(NotSerializable, match="nan"):
            await runtime.send("user:1", half(float("nan")))
        with pytest.raises(NotSerializable, match="inf"):
            await runtime.send("user:1", half(1.0, [1.0, float("inf")]))
        with pytest.raises(NotSerializable, match="inf"):
            await runtime.send_many([("user:1", half(1.0)), ("user:1", half(float("-inf")))])
        assert (await runtime.stats()).finished == 0, "all are checked before the first is sent"


async def test_a_call_that_is_too_long_is_refused(make_runtime: Make) -> None:
    async with make_runtime(anything, max_payload=1000) as runtime:
        with pytest.raises(
            PayloadTooLarge, match=r"anything\(\): the call takes 1\d\d\d bytes, the limit is 1000 .*store"
        ):
            await runtime.send("user:1", anything("x" * 1000))
        assert await runtime.ask("user:1", anything("x" * 900), timeout=PATIENCE) == "x" * 900


async def test_a_result_that_is_too_long_fails_the_task(make_runtime: Make) -> None:
    @actor
    async def give(length: int) -> str:
        return "x" * length

    async with make_runtime(give, max_payload=1000) as runtime:
        with pytest.raises(TaskFailed, match=r"give\(\) result: 1002 bytes, the limit is 1000.*store it elsewhere"):
            await runtime.ask("user:1", give(1000), timeout=PATIENCE)


async def test_an_error_however_odd_becomes_the_outcome(make_runtime: Make) -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("even this")

    errors: dict[str, BaseException] = {
        "surrogate": ValueError("file \udcff"),
        "long": ValueError("x" * 10_000_000),
        "unreadable": Unreadable(),
        "exit": SystemExit(3),
        "stop": StopAsyncIteration(),
        "base": type("Stop", (BaseException,), {})("not an Exception"),
        "base group": BaseExceptionGroup("several", [SystemExit(1), ValueError("two")]),
        "group": ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    }

    @actor
    async def fail(which: str) -> None:
        raise errors[which]

    async with make_runtime(fail, max_payload=100_000) as runtime:
        for which in errors:
            with pytest.raises(TaskFailed) as caught:
                await runtime.ask("user:1", fail(which), timeout=PATIENCE)
            assert len(str(caught.value)) < 100_000, which
        await check_invariants(runtime)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "5", timedelta(seconds=-1), 1e300])
def test_a_retry_that_cannot_be_is_refused_where_it_is_raised(delay: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Retry\(delay=\)"):
        Retry(delay=delay)


# Records from other writers, and records that no longer match the handler


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[",
        b"\xff\xfe",
        b'["double",[1],{}',
        b'["double","x",{}]',
        b"[" * 100_000,
        b"[" * 5000 + b"]" * 5000,
    ],
)
async def test_a_payload_that_nobody_can_read_becomes_a_failed_task(
    make_runtime: Make, db: redis.Redis, body: bytes
) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", double(1))
        packed = db.get(f"{{fairactor/0}}:task:{handle.id}")
        db.set(f"{{fairactor/0}}:task:{handle.id}", packed[: packed.index(b"user:1") + 6] + body)  # type: ignore[index]
        async with make_runtime(double, workers=1) as runtime:
            with pytest.raises(TaskFailed, match="cannot be decoded") as caught:
                await handle.result(timeout=PATIENCE)
            assert caught.value.error == "fairactor.errors.InvalidPayload"
            assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4, "the worker goes on"
            await check_invariants(runtime)


async def test_arguments_that_do_not_fit_the_handler_any_more(make_runtime: Make) -> None:
    @actor(name="double")
    async def before(n: int, of: str) -> None: ...

    @actor(name="double")
    async def untyped(n: Any) -> None: ...

    async with make_runtime(double), make_runtime(workers=0) as sender:
        with pytest.raises(TaskFailed, match=r"double\(\): too many positional arguments; it takes") as caught:
            await sender.ask("user:1", before(1, "x"), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.InvalidPayload"
        with pytest.raises(TaskFailed, match=r"double\(\): n: expected int, got str 'words'"):
            await sender.ask("user:1", untyped("words"), timeout=PATIENCE)


async def test_a_result_that_does_not_fit_its_annotation(make_runtime: Make) -> None:
    @actor
    async def lie() -> int:
        return "no number"  # type: ignore[return-value]

    async with make_runtime(lie) as runtime:
        with pytest.raises(TaskFailed, match=r"lie\(\) result: expected int, got str 'no number'"):
            await runtime.ask("user:1", lie(), timeout=PATIENCE)
