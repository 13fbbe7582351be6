"""Arguments that are not known yet when a message is sent."""

from __future__ import annotations

from typing import Any


class Later:
    """An argument whose value a plugin puts into the record of the task, before that runs.

    Until then `token` stands for it there, as a string of JSON: one that nothing else is. The plugin's Lua replaces it,
    quotes and all, by JSON.
    """

    token: str | None = None
    """None: it cannot be sent."""
    way_out = "it can be sent only where its plugin gives it a token"
    """What to do where it has none, for the message."""


def stand_in(value: Any) -> str:
    """What stands for it in JSON.

    Raises:
        TypeError: there is nothing.
    """
    if not isinstance(value, Later):
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    if value.token is None:
        raise TypeError(value.way_out)
    return value.token
