"""Layout as plain text: which tenants get a row, and how numbers and times are written."""

from __future__ import annotations

from typing import Final

_SHORT: Final = 4  # characters
_HALVES: Final = {(True, True): "━", (True, False): "╸", (False, True): "╺", (False, False): " "}


def choose_rows(tenants: int, rows: int) -> list[int]:
    """Returns the indexes of the tenants that get a row: all, or the largest and some of the others.

    Args:
        tenants: the number of tenants, which are sorted by size.
        rows: the number of rows, including one for the remaining tenants; at least 3.
    """
    if tenants <= rows:
        return list(range(tenants))
    largest = rows // 2
    others = rows - 1 - largest
    step = (tenants - largest) / others
    return [*range(largest), *(tenants - 1 - round(step * i) for i in reversed(range(others)))]


def seconds(value: float) -> str:
    """Formats a time with its unit."""
    return f"{short(value)} s"


def short(value: float) -> str:
    """Formats a number with two decimals, or with as many as fit into four characters."""
    for places in (2, 1):
        text = f"{value:.{places}f}"
        if len(text) <= _SHORT:
            return text
    return f"{value:,.0f}"


def span(began: float, ended: float, whole: float, width: int) -> str:
    """Draws a timeline of ``width`` characters, from 0 to ``whole``, with a bar from ``began`` to ``ended``."""
    halves = 2 * width
    first = min(halves - 1, int(halves * began / whole)) if whole else 0
    last = max(first + 1, min(halves, round(halves * ended / whole))) if whole else halves
    drawn = [first <= half < last for half in range(halves)]
    return "".join(_HALVES[drawn[i], drawn[i + 1]] for i in range(0, halves, 2))
