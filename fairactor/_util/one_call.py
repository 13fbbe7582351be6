"""What has to reach the server in one call: it says so, because large messages take several calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_wanted: Final[ContextVar[bool]] = ContextVar("fairactor_in_one_call", default=False)


class NotInOneCall(Exception):
    """The messages are too large for one call. Nothing was sent."""


@contextmanager
def in_one_call() -> Iterator[None]:
    """Lets messages that are sent inside be refused with `NotInOneCall` if they do not fit into one call."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def check_one_call(calls: int) -> None:
    """Raises NotInOneCall if messages take several calls, but must not."""
    if calls > 1 and _wanted.get():
        raise NotInOneCall
