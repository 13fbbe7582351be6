"""Settings of tenants and limits as options: a value, ``inf`` for no limit, or ``none`` to reset one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import click

RESET: Final = "none"
_NO_LIMIT: Final = ("inf", "unlimited")


def whole(text: str) -> int | float | str:
    """Reads a whole number, ``inf`` or ``none``."""
    if (special := _special(text)) is not None:
        return special
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r}: give a whole number from 1 on, inf for no limit, or none to reset it")
    return int(text)


def rate(text: str) -> float | str:
    """Reads a rate, ``inf`` or ``none``."""
    special = _special(text)
    return text if special is None else special


def amount(text: str) -> float | str:
    """Reads a number, or ``none``."""
    if text == RESET:
        return RESET
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{text!r}: give a number above 0, or none to reset it")
    return int(number) if number == int(number) else number


def _special(text: str) -> float | str | None:
    return math.inf if text in _NO_LIMIT else RESET if text == RESET else None


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that were given, for `Tenant.configure` or `Limit.configure`.

    Raises:
        click.UsageError: none was.
    """
    found = {name: None if value == RESET else value for name, value in given.items() if value is not None}
    if not found:
        options = ", ".join(f"--{name}" for name in given)
        raise click.UsageError(f"give what to change: {options}")
    return found
