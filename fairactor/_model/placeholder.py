"""Arguments whose values are not known yet when a message is sent."""

from __future__ import annotations

from typing import Any


class Placeholder:
    """An argument that a plugin fills in before the task runs.

    Until then the record of the task holds `token` in its place, as a JSON string that occurs nowhere else. The
    plugin's Lua replaces the string, quotes included, by JSON.
    """

    token: str | None = None
    """None: a message with it cannot be sent."""
    way_out = "it can be sent only where its plugin gives it a token"
    """What to do if it has no token, for the error message."""


def token_of(value: Any) -> str:
    """The token that stands for a placeholder in JSON.

    Raises:
        TypeError: the value is no placeholder, or has no token.
    """
    if not isinstance(value, Placeholder):
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    if value.token is None:
        raise TypeError(value.way_out)
    return value.token
