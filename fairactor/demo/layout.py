"""What is drawn, as plain text: which tenants get a row, and how times look."""

from __future__ import annotations

from typing import Final

_HALVES: Final = {(True, True): "━", (True, False): "╸", (False, True): "╺", (False, False): " "}


def choose_rows(tenants: int, rows: int) -> list[int]:
    """The places of the tenants that get a row of their own: all, or the largest and some of the others.

    Args:
        tenants: how many there are, sorted by size.
        rows: how many fit, with one for those left over; 3 or more.
    """
    if tenants <= rows:
        return list(range(tenants))
    largest = rows // 2
    others = rows - 1 - largest
    step = (tenants - largest) / others
    return [*range(largest), *(tenants - 1 - round(step * i) for i in reversed(range(others)))]


def seconds(value: float) -> str:
    """A time, with as many places as fit into four characters, and its unit."""
    return f"{_shortened(value, places=2, room=4)} s"


def speed(value: float) -> str:
    """A number a second, with a place where it is small."""
    return _shortened(value, places=1, room=3)


def _shortened(value: float, *, places: int, room: int) -> str:
    while places and len(f"{value:,.{places}f}") > room:
        places -= 1
    return f"{max(0.0, value):,.{places}f}"


def span(began: float, ended: float, whole: float, width: int) -> str:
    """A line of time of ``width`` characters, from 0 to ``whole``, with a bar from ``began`` to ``ended``."""
    halves = 2 * width
    first = min(halves - 1, int(halves * began / whole)) if whole else 0
    last = max(first + 1, min(halves, round(halves * ended / whole))) if whole else halves
    drawn = [first <= half < last for half in range(halves)]
    return "".join(_HALVES[drawn[i], drawn[i + 1]] for i in range(0, halves, 2))
