"""Tests of exceptions as objects, and of small answers of the runtime that users rely on."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import fairactor_dependencies
import fairactor_scheduling
import fairactor_xcom
import pytest
from fairactor_dependencies import graph, result_of

from fairactor import Retry, Runtime, actor, errors
from fairactor.errors import ConfigurationError, FairactorError, RuntimeNotRunning
from tests.support.polling import PATIENCE

Make = Callable[..., Runtime]
ARGUMENTS: dict[str, tuple[Any, ...]] = {"MissingPlugin": ("plugin", "here"), "MailboxFull": ("acme",)}
ATTRIBUTES: dict[str, Any] = {
    "maybe_accepted": True,
    "ids": ("a",),
    "error": "ValueError",
    "traceback": "…",
    "types": ("A",),
}


def all_errors() -> Iterator[type[FairactorError]]:
    modules: list[ModuleType] = [errors, fairactor_dependencies, fairactor_scheduling, fairactor_xcom]
    for module in modules:
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, FairactorError):
                yield value


@pytest.mark.parametrize("kind", dict.fromkeys(all_errors()), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(kind: type[FairactorError], duplicate: Callable[[Any], Any]) -> None:
    takes = getattr(getattr(kind.__init__, "__code__", None), "co_varnames", ())
    given = {name: value for name, value in ATTRIBUTES.items() if name in takes}
    error = kind(*ARGUMENTS.get(kind.__name__, ("why",)), **given)
    error.add_note("a note")
    found = duplicate(error)
    assert type(found) is kind
    assert (str(found), found.args, found.__dict__) == (str(error), error.args, error.__dict__)
    assert all(getattr(found, name) == value for name, value in given.items())


def test_a_retry_can_be_copied_and_pickled() -> None:
    for found in (copy.copy(Retry("later", delay=5)), pickle.loads(pickle.dumps(Retry("later", delay=5)))):
        assert (str(found), found.delay) == ("later", 5.0)


@actor
async def take(value: Any = None) -> int:
    return 1


@pytest.mark.anyio
async def test_the_second_send_of_an_id_is_a_duplicate(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        assert not (await runtime.send("t", take(1), id="a")).duplicate
        again = await runtime.send("t", take(2), id="a")
        assert (again.id, again.duplicate) == ("a", True)
        assert (await again.info()).args == [1]
        many = await runtime.send_many([("t", take().options(id=name)) for name in ("b", "a", "b")])
        assert [(handle.id, handle.duplicate) for handle in many] == [("b", False), ("a", True), ("b", True)]
        async with make_runtime(take) as worker:
            assert await worker.ask("t", take(3), id="a", timeout=PATIENCE) == 1
            assert (await worker.send("t", take(4), id="a")).duplicate, "its record is still kept"


@pytest.mark.anyio
async def test_what_is_no_message_is_refused_with_options_too(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        for value in (5, None, take, "take"):
            with pytest.raises(ConfigurationError, match="is not a message") as plain:
                await runtime.send("t", value)
            with pytest.raises(ConfigurationError) as with_options:
                await runtime.send("t", value, delay=1)
            assert str(with_options.value) == str(plain.value)


@pytest.mark.anyio
async def test_what_needs_a_running_runtime_says_so(make_runtime: Make) -> None:
    runtime = make_runtime(take)
    for use in (
        lambda: runtime.host,
        lambda: runtime.host.shard_of("t"),
        lambda: runtime.handle("a"),
        runtime.check,
    ):
        with pytest.raises(RuntimeNotRunning, match="was not entered yet"):
            use()
    async with runtime:
        host = runtime.host
    for use in (lambda: host.shard_of("t"), lambda: host.shard_count, lambda: host.subscribe("p")):
        with pytest.raises(RuntimeNotRunning, match="was left"):
            use()


@pytest.mark.anyio
async def test_errors_about_graphs_have_one_short_line(make_runtime: Make) -> None:
    large = graph(*(take(n) >> take("two\nlines") for n in range(300)))
    for use in (
        lambda: result_of(large),
        lambda: take(2).options(delay=large),  # type: ignore[arg-type]
        lambda: graph(5, large),  # type: ignore[arg-type]
    ):
        with pytest.raises(FairactorError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    with pytest.raises(FairactorError) as awaited:
        await take(result_of(take(list(range(1000))) >> take(2)))
    assert len(str(awaited.value)) < 400
    assert repr(large) == "<graph of 600 messages>"
    assert repr(take(1)) == "take(1)"
