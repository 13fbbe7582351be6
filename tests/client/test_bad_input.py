"""What a user can get wrong: each has its own exception, and a message that names the cause and the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import attrs
import pytest
import redis

from fairactor import Message, Retry, Runtime, TaskFailed, actor, current_task
from fairactor.errors import (
    ConfigurationError,
    DuplicateActor,
    InvalidPayload,
    NotSerializable,
    PayloadTooLarge,
    RuntimeNotRunning,
    TaskNotFound,
    UnknownActor,
)
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


# Arguments and results


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            lambda: anything(Opaque()),
            r"anything\(\) argument \['value'\] is a Opaque, <opaque>, which has no JSON form",
        ),
        (lambda: anything({"a": [1, {"b": Opaque()}]}), r"argument \['value'\]\['a'\]\[1\]\['b'\] is a Opaque"),
        (lambda: anything(Box([Opaque()])), r"argument \['value'\]\['content'\]\[0\] is a Opaque"),
        (lambda: anything(1, 2, Opaque(), 3), r"argument \['rest'\]\[1\] is a Opaque"),
        (lambda: anything(1, "\udcff", 3), r"argument \['rest'\]\[0\] is a str"),
        (lambda: anything(extra=Opaque()), r"argument \['named'\]\['extra'\] is a Opaque"),
        (lambda: anything(1, value2=float("nan")), r"argument \['value2'\] is a float, nan"),
        (lambda: anything(1 + 2j), "complex"),
        (lambda: anything("\udcff"), r"argument \['value'\] is a str.*surrogate"),
        (lambda: anything({(1, 2): 3}), r"argument \['value'\]"),
        (lambda: anything(lambda: None), "function"),
    ],
)
async def test_an_argument_without_json_form_is_refused_with_the_path_to_it(
    make_runtime: Make, message: Callable[[], Message[Any]], words: str
) -> None:
    async with make_runtime(anything) as runtime:
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
        with pytest.raises(TaskFailed, match=r"give\(\) result\['a'\]\[0\] is a Opaque.*register a hook") as caught:
            await runtime.ask("user:1", give(), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.NotSerializable"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"deep": [n]}, Box], ids=["bare", "nested", "in a class"])
async def test_numbers_that_json_does_not_have_are_refused(
    make_runtime: Make, number: float, wrap: Callable[[float], Any]
) -> None:
    @actor
    async def give(which: str) -> Any:
        return wrap(float(which))

    async with make_runtime(anything, give) as runtime:
        with pytest.raises(NotSerializable, match=r"\['value'\].*(nan|inf)"):
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


# Records that somebody else wrote, or that do not fit any more


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

    async with make_runtime(double) as runtime, make_runtime(workers=0) as sender:
        with pytest.raises(TaskFailed, match=r"double\(\): too many positional arguments; it takes") as caught:
            await sender.ask("user:1", before(1, "x"), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.InvalidPayload"
        with pytest.raises(TaskFailed, match=r"double\(\): n=.*words"):
            await runtime.ask("user:1", double("words"), timeout=PATIENCE)  # type: ignore[arg-type]


async def test_a_result_that_does_not_fit_its_annotation(make_runtime: Make) -> None:
    @actor
    async def lie() -> int:
        return "no number"  # type: ignore[return-value]

    async with make_runtime(lie) as runtime:
        with pytest.raises(InvalidPayload, match=r"lie\(\): return='no number'"):
            await runtime.ask("user:1", lie(), timeout=PATIENCE)


# Actors


async def test_an_actor_that_is_not_registered_is_refused_with_the_nearest_name(make_runtime: Make) -> None:
    @actor
    async def dubble() -> None: ...

    async with make_runtime(double) as runtime:
        with pytest.raises(UnknownActor, match=r"no actor 'dubble' is registered here.*did you mean 'double'\?"):
            await runtime.send("user:1", dubble())
        with pytest.raises(LookupError):
            await runtime.send_many([("user:1", double(1)), ("user:1", dubble())])
        assert (await runtime.stats()).pending == 0


async def test_a_task_whose_actor_nobody_has_registered_fails(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(anything):
        with pytest.raises(TaskFailed, match="no running process has registered an actor 'double'") as caught:
            await sender.ask("user:1", double(1), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.UnknownActor"


async def test_a_task_whose_actor_another_runtime_has_gets_there_in_the_end(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(anything), make_runtime(double):
        results = await asyncio.gather(*(sender.ask(f"user:{n}", double(n), timeout=PATIENCE) for n in range(20)))
        assert results == [2 * n for n in range(20)]
        assert (await sender.stats()).failed == 0


def test_two_actors_of_one_name_are_refused() -> None:
    @actor(name="double")
    async def other() -> None: ...

    with pytest.raises(
        DuplicateActor, match=r"two actors are named 'double': .*test_bad_input\.double and .*other; give one"
    ):
        Runtime(actors=[double, other])
    Runtime(actors=[double, double])  # the same one twice is no matter


async def test_what_is_no_message_is_refused(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        for wrong in (double, 5, None, "double", lambda: None):
            with pytest.raises(
                ConfigurationError, match=r"is no message: call an actor to make one, as in send\(tenant"
            ):
                await runtime.send("user:1", wrong)  # type: ignore[arg-type]


async def test_what_does_not_exist_is_told(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        handle = runtime.handle("no such task")
        for use in (handle.result, handle.state, handle.info, handle.cancel):
            with pytest.raises(TaskNotFound, match=r"no task 'no such task': .*never sent, or its record"):
                await use()


# A tenant's policy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"weight": 0}, "weight=0: give a number from 0.001 to 1e\\+06"),
        ({"weight": -1}, "weight=-1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"weight": float("inf")}, "weight=inf"),
        ({"weight": "2"}, "weight='2'"),
        ({"weight": True}, "weight=True"),
        ({"concurrency": 0}, "concurrency=0: give a whole number, 1 or more, or None"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurency": 1}, "no 'concurency' to configure"),
    ],
)
async def test_a_policy_that_cannot_work_is_refused(make_runtime: Make, policy: dict[str, Any], words: str) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=words):
            await runtime.tenant("user:1").configure(**policy)


# Use where it cannot work


def uses(runtime: Runtime) -> list[Callable[[], Any]]:
    return [
        lambda: runtime.send("user:1", double(1)),
        lambda: runtime.send_many([("user:1", double(1))]),
        lambda: runtime.ask("user:1", double(1)),
        runtime.stats,
        runtime.health,
        runtime.drain,
        runtime.run,
        lambda: runtime.tenant("user:1").stats(),
        lambda: runtime.tenant("user:1").configure(weight=2),
    ]


async def refused(runtime: Runtime, words: str) -> None:
    for use in uses(runtime):
        with pytest.raises(RuntimeNotRunning, match=words):
            await use()
    with pytest.raises(RuntimeNotRunning, match=words):
        await runtime.handle("some id").state()


async def test_a_runtime_is_used_only_while_it_is_entered(make_runtime: Make) -> None:
    runtime = make_runtime(double)
    await refused(runtime, "was not entered yet: use it inside `async with Runtime")
    async with runtime:
        handle = await runtime.send("user:1", double(1))
        with pytest.raises(RuntimeNotRunning, match="entered once; make a new one"):
            await runtime.__aenter__()
    await refused(runtime, "was left: use it inside")
    with pytest.raises(RuntimeNotRunning, match="was left"):
        await handle.result()
    with pytest.raises(RuntimeNotRunning, match="entered once; make a new one"):
        await runtime.__aenter__()


async def test_a_runtime_belongs_to_its_event_loop(make_runtime: Make) -> None:
    words = "another event loop or thread: .*anyio.from_thread.run"
    async with make_runtime(double) as runtime:
        await anyio.to_thread.run_sync(lambda: asyncio.run(refused(runtime, words)))

        def from_a_thread() -> int:
            with pytest.raises(RuntimeNotRunning, match=words):
                runtime.check()
            return anyio.from_thread.run(runtime.ask, "user:1", double(2))

        assert await anyio.to_thread.run_sync(from_a_thread) == 4


def test_outside_a_handler_there_is_no_current_task() -> None:
    with pytest.raises(RuntimeNotRunning, match="inside a handler only"):
        current_task()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "half", None])
async def test_a_progress_that_cannot_be_is_refused(make_runtime: Make, fraction: Any) -> None:
    @actor
    async def report() -> str:
        with pytest.raises(ConfigurationError, match=r"progress\(.*\): give a fraction from 0 to 1"):
            await current_task().progress(fraction)
        return "refused"

    async with make_runtime(report) as runtime:
        assert await runtime.ask("user:1", report(), timeout=PATIENCE) == "refused"


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
async def test_a_time_to_wait_that_cannot_be_is_refused(make_runtime: Make, seconds: Any) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        for use in (handle.result, runtime.drain, partial(runtime.ask, "user:1", double(2))):
            with pytest.raises(ConfigurationError, match="timeout="):
                await use(timeout=seconds)
        assert (await runtime.stats()).queued == 1
