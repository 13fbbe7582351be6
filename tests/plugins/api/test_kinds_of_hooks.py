"""Hooks of the wrong kind are refused when the runtime is made: they would never run, or fail at each task."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError

OBSERVERS = ("sent", "started", "finished", "failed", "retried", "canceled", "dead")


async def a_coroutine(*_: Any) -> None: ...


async def an_async_generator(*_: Any) -> AsyncIterator[None]:
    yield


def a_generator(*_: Any) -> Any:
    yield


def a_function(*_: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, *_: Any) -> None: ...


class Callable:
    def __call__(self, *_: Any) -> None: ...


def plugin(**hooks: Any) -> Any:
    return type("Odd", (), {"name": "odd"} | {name: _hook(hook) for name, hook in hooks.items()})()


def _hook(hook: Any) -> Any:
    return staticmethod(hook) if callable(hook) else hook


def refused(words: str, **hooks: Any) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Runtime("redis://nowhere", plugins=[plugin(**hooks)])


@pytest.mark.parametrize("event", OBSERVERS)
@pytest.mark.parametrize(
    "hook",
    [a_coroutine, an_async_generator, a_generator, functools.partial(a_coroutine, 1), AsyncCallable()],
    ids=["async", "async generator", "generator", "partial", "object"],
)
def test_an_observer_that_would_never_run_is_refused(event: str, hook: Any) -> None:
    refused(rf"plugin 'odd': {event}\(\) is async or a generator.*make it a plain `def`", **{event: hook})


@pytest.mark.parametrize("hook", ["wrap_send", "wrap_execute"])
@pytest.mark.parametrize("method", [a_function, a_generator, an_async_generator, functools.partial(a_function, 1)])
def test_a_wrapper_that_is_no_coroutine_is_refused(hook: str, method: Any) -> None:
    refused(rf"plugin 'odd': {hook}\(\) must be `async def`", **{hook: method})


@pytest.mark.parametrize("method", [a_coroutine, an_async_generator, a_generator])
def test_a_lifespan_that_is_no_context_manager_is_refused(method: Any) -> None:
    refused(r"plugin 'odd': lifespan\(\) must return an async context manager.*asynccontextmanager", lifespan=method)


@pytest.mark.parametrize("hook", ["lifespan", "wrap_send", "wrap_execute", *OBSERVERS])
def test_a_hook_that_is_no_method_is_refused(hook: str) -> None:
    refused(f"plugin 'odd': {hook} is 5: it must be a method", **{hook: 5})


@pytest.mark.parametrize(("name", "what"), [("lua", "a dict"), ("scripts", "a dict"), ("actors", "a list")])
def test_an_attribute_that_is_something_else_is_refused(name: str, what: str) -> None:
    refused(f"plugin 'odd': {name} is .*: it must be {what}", **{name: 5})
    refused(f"plugin 'odd': {name} is .*: it must be {what}", **{name: a_function})


def test_hooks_of_the_right_kind_are_taken() -> None:
    right = dict.fromkeys(OBSERVERS, a_function) | {
        "lifespan": asynccontextmanager(an_async_generator), "wrap_send": a_coroutine, "wrap_execute": AsyncCallable(),
        "failed": functools.partial(a_function, 1), "dead": Callable(),
    }  # fmt: skip
    Runtime("redis://nowhere", plugins=[plugin(**right)])


@pytest.mark.parametrize("hook", ["started", "stopped"])
@pytest.mark.parametrize("value", [False, a_generator, an_async_generator])
def test_a_hook_of_an_actor_that_would_not_run_is_refused(hook: str, value: Any) -> None:
    class Cart:
        @actor
        async def add(self, item: str) -> None: ...

    setattr(Cart, hook, value)
    with pytest.raises(ConfigurationError, match=rf"Cart\.{hook} is .*: it must be a method"):
        Runtime("redis://nowhere", actors=[Cart])
    with pytest.raises(ConfigurationError, match=rf"Cart\.{hook} is .*: it must be a method"):
        Runtime("redis://nowhere", actors=[Cart()])
