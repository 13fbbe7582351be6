"""Waits for a reply as long as a slow link needs: a call is given up when nothing moves, not because it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

SLOWEST: Final = 125_000
"""Bytes a second of the slowest link that is served, 1 Mbit/s. The kernel does not say how much it has sent yet."""


_LARGE: Final = 1 << 18  # bytes of a call, from which on its size may be why it fails


def size_of(arguments: Sequence[Any]) -> int:
    """Returns the bytes of arguments, without those that are always short."""
    return sum(len(argument) for argument in arguments if isinstance(argument, bytes | str))


def advice_on_size(size: int) -> str:
    """Returns what a call of ``size`` bytes needs, for the message that it was not answered; '' for a small one."""
    if size < _LARGE:
        return ""
    return f" (it has {size / 1e6:.1f} MB: the link must carry 1 Mbit/s at least; a reference to the data needs less)"
