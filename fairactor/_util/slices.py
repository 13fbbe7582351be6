"""Slices: long work in parts, between which the event loop gets a turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final, TypeVar

import anyio.lowlevel

T = TypeVar("T")

AT_ONCE: Final = 1000
"""How many items a slice has."""


async def slices(items: Iterable[T]) -> AsyncIterator[list[T]]:
    """Yields items in lists of `AT_ONCE`. After each whole list the event loop gets a turn."""
    rest = iter(items)
    while part := list(islice(rest, AT_ONCE)):
        yield part
        if len(part) == AT_ONCE:
            await anyio.lowlevel.checkpoint()
