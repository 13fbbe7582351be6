"""Tells async functions, generators and plain functions apart, for hooks that must be of one kind."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def is_async(hook: Any) -> bool:
    """Whether calling this returns a coroutine, as far as one can tell without calling it."""
    return any(map(inspect.iscoroutinefunction, _faces(hook)))


def is_generator(hook: Any) -> bool:
    """Whether calling this makes a generator, async or not, and runs nothing."""
    return any(inspect.isasyncgenfunction(face) or inspect.isgeneratorfunction(face) for face in _faces(hook))


def is_plain(hook: Any) -> bool:
    """Whether this is a function that is neither async nor a generator, nor wraps one. Other callables may be async."""
    hook = _bare(hook)
    if not inspect.isroutine(hook):
        return False
    inner = inspect.unwrap(hook)
    return not (is_async(hook) or is_generator(hook) or is_async(inner))


def _bare(hook: Any) -> Any:
    while isinstance(hook, functools.partial | functools.partialmethod):
        hook = hook.func
    return hook


def _faces(hook: Any) -> tuple[Any, ...]:
    """Returns what may be the function behind a callable: itself, and its ``__call__`` if it is an object."""
    hook = _bare(hook)
    if inspect.isroutine(hook) or inspect.isclass(hook):
        return (hook,)
    return hook, vars(type(hook)).get("__call__")
