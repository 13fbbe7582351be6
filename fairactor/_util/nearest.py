"""Finds the right name for a misspelled one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .checks import shown

_NEAR: Final = 0.7
"""How similar two names must be for one to be a misspelling of the other, from 0 to 1."""
_LISTED: Final = 40  # the most names that a message lists


def nearest(name: object, known: Iterable[str], *, near: float = _NEAR) -> str | None:
    """Returns the known name that is most like a name; None if none is near."""
    from difflib import get_close_matches  # few programs need it

    found = get_close_matches(str(name)[:100].lower(), list(known), 1, near)
    return found[0] if found else None


def unknown(name: object, known: Iterable[str], what: str = "key") -> str:
    """Returns the message about a name that does not exist, with the right one if one is near."""
    names = sorted(known)
    right = nearest(name, names)
    if right is not None:
        return f"there is no {what} {shown(name)}; did you mean {right}?"
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return f"there is no {what} {shown(name)}; there are {listed}" if names else f"there is no {what} {shown(name)}"
