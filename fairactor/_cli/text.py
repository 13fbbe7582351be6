"""Texts of others, such as names of tenants, made safe for a terminal."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Final

# Control characters, and what changes the direction of writing, is invisible, separates lines, or is half a character.
_HARMFUL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_LONGEST: Final = 4096  # characters


def visible(text: str, *, lines: bool = False, longest: int = _LONGEST) -> str:
    r"""Returns a text in which control characters and invisible ones are written as ``\\x1b`` or ``\\u202e``.

    Args:
        text: the text.
        lines: whether line breaks stay as they are.
        longest: of a longer text, this many characters are left, and a mark.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return _HARMFUL.sub(lambda match: match[0] if lines and match[0] == "\n" else ascii(match[0])[1:-1], cut)


# How values are shown to people


def plain(value: object) -> str:  # noqa: PLR0911 - one for each kind of value
    """Shows a value: nothing as ``-``, a name of an enumeration in lower case, several values with commas."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case Enum():
            return value.name.lower()
        case float():
            return f"{value:.4g}"
        case str():
            return value
        case list() | tuple():
            return ", ".join(map(plain, value)) or "-"
        case datetime():
            return moment(value)
        case _:
            return str(value)


def moment(value: datetime | None) -> str:
    """Shows a point in time, in UTC to the second."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def duration(seconds: float | None) -> str:  # noqa: PLR0911 - one for each order of magnitude
    """Shows seconds with two units at most: ``250ms``, ``4.2s``, ``3m 20s``, ``2h 5m``, ``4d 1h``."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds == float("inf"):
        return "for ever"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _FEW:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for size, unit, below, smaller in _UNITS:
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}" + (f" {rest}{smaller}" if rest else "")
    return f"{whole}s"


def percent(share: float | None) -> str:
    """Shows a share from 0 to 1."""
    return "-" if share is None else f"{share:.1%}"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Returns a number with its noun: ``1 task``, ``12,000 tasks``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def state_style(state: object) -> str:
    """Returns the style of a task's state."""
    return _STYLES.get(str(getattr(state, "value", state)), "")


_FEW: Final = 10.0  # seconds: below, tenths count
_UNITS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))
_STYLES: Final = {"failed": "red", "canceled": "yellow", "finished": "green", "started": "cyan"}
