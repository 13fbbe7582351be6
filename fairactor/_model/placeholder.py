"""Arguments whose values are not known yet when a message is sent."""

from __future__ import annotations

from typing import Any, Final

TYPE: Final = "$type"
VALUE: Final = "$value"
"""The keys of an object that carries a value of a union with the name of its type."""


class Placeholder:
    """An argument whose value a plugin's Lua fills in before the task runs.

    Until then the record of the task contains `token` instead, as a JSON string that occurs nowhere else. The Lua
    replaces this string, including the quotes, by JSON.
    """

    token: str | None = None
    """None if a message with this argument cannot be sent."""
    tag: str | None = None
    """The name of the type that the value travels with, if its parameter is a union that needs it."""
    way_out = "it can be sent only where its plugin gives it a token"
    """The advice in the error message if it has no token."""


def token_of(value: Any) -> Any:
    """Returns the token that stands for a placeholder in JSON, if need be with the name of the type.

    Raises:
        TypeError: the value is not a placeholder, or has no token.
    """
    if not isinstance(value, Placeholder):
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    if value.token is None:
        raise TypeError(value.way_out)
    return value.token if value.tag is None else {TYPE: value.tag, VALUE: value.token}
