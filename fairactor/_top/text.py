"""Text for cells of a terminal: names that cannot break the screen, numbers, times and sparklines."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.cells import cell_len, get_character_cell_size

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""The categories of characters that a terminal does not draw, or may draw with any width."""
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(n) for n in range(0xFE00, 0xFE10)
}
"""Letters and marks that show nothing, or change the width of the one before."""
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})
_MOST_MARKS: Final = 2  # on one character; more would be drawn over the lines above
_LONGEST: Final = 1024  # characters of a text that are looked at
_PLAIN: Final = re.compile(r"[ -~]*")
_BARS: Final = "▁▂▃▄▅▆▇█"
_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
_SIZES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def visible(text: str) -> str:
    """Returns the text with everything escaped that would move the cursor, hide, reverse or overprint characters."""
    text = text[:_LONGEST]
    if _PLAIN.fullmatch(text):
        return text
    parts: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text):
        category = unicodedata.category(char)
        marks = marks + 1 if category in _MARKS else 0
        hidden = category in _HIDDEN or char in _INVISIBLE or marks > _MOST_MARKS
        bare = marks == 1 and not parts  # it would be drawn over what stands before
        other_space = category == "Zs" and char != " "
        parts.append(_escaped(char) if hidden or bare or other_space else char)
    return "".join(parts)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Returns visible text that takes exactly ``width`` cells: padded, or cut with an ellipsis."""
    if width <= 0:
        return ""
    size = cell_len(text)
    if size > width:
        text, size = _cut(text, width)
    gap = " " * (width - size)
    return gap + text if right else text + gap


def _cut(text: str, width: int) -> tuple[str, int]:
    taken, size = 0, 0
    for char in text:
        more = get_character_cell_size(char)
        if size + more > width - 1:
            break
        taken, size = taken + 1, size + more
    return text[:taken] + "…", size + 1


def fold(text: str, width: int, most: int = 4) -> list[str]:
    """Breaks visible text into lines of ``width`` cells, at most ``most``; the last one is cut."""
    lines = [""]
    size = 0
    for place, char in enumerate(text):
        more = get_character_cell_size(char)
        if size + more > width > 1:
            if len(lines) == most:
                lines[-1] = fit(lines[-1] + text[place:], width)
                break
            lines.append("")
            size = 0
        lines[-1] += char
        size += more
    return lines


def number(value: float) -> str:
    """Formats a whole number in at most 6 characters: 12,345, then 123k."""
    if abs(value) < 1e5:  # noqa: PLR2004 - what fits
        return f"{value:,.0f}"
    for size, unit in _SIZES:
        if abs(value) >= size:
            return short(value / size) + unit
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Formats a number with at most two decimals, and as few as it needs in four characters."""
    if value == 0:
        return "0"
    for places, below in ((2, 10), (1, 100)):
        if abs(value) < below:
            return f"{value:.{places}f}"
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Formats a number per second."""
    return number(value) if value >= 1000 else short(value)  # noqa: PLR2004 - from there on decimals say nothing


def percent(value: float) -> str:
    """Formats a share from 0 to 1."""
    return f"{100 * value:.1f}%" if value < 0.9995 else "100%"  # noqa: PLR2004 - it would be rounded to that


def span(seconds: float | None) -> str:
    """Formats a time in its two largest units: 0.4s, 12s, 3m20s, 2h05m, 4d03h."""
    if seconds is None:
        return "-"
    if seconds < 10:  # noqa: PLR2004 - below that tenths tell
        return f"{max(seconds, 0.0):.1f}s"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{int(seconds)}s"
    for size, unit, smaller, below in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // smaller):02d}{below}"
    return f"{seconds:.0f}s"


def clock(moment: datetime | None) -> str:
    """Formats a point in time in the local time zone."""
    return moment.astimezone().strftime("%m-%d %H:%M:%S") if moment else "-"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws the last ``width`` values as bars."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    if most <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 1) + 0.999))] for value in shown)
