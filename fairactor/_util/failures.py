"""Describes exceptions as text: for records, the log and spans.

The code of an exception's class may be broken, too: nothing that it raises gets out of here.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Final

from fairactor.errors import RemoteError

_MESSAGE_LIMIT: Final = 10_000  # characters
_LINE_LIMIT: Final = 500  # characters
_TRACEBACK_LIMIT: Final = 20_000  # characters, from the end


def exception_name(kind: type[BaseException]) -> str:
    """Returns the name under which an exception type is stored. Nothing is ever imported by this name."""
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__  # its name in worker processes
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def exception_names(error: BaseException) -> Sequence[str]:
    """Returns the names of an error's type and base types; for a `RemoteError`, those of the original error."""
    if isinstance(error, RemoteError) and error.types:
        return error.types
    return [exception_name(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException)]


def text_of(error: BaseException) -> str:
    """Returns the message of an error."""
    try:
        return plain(str(error)[:_MESSAGE_LIMIT])
    except BaseException as broken:  # noqa: BLE001 - its own __str__ may raise anything
        return f"(its message cannot be read: {type(broken).__name__})"


def traceback_of(error: BaseException) -> str:
    """Returns the end of an error's traceback."""
    try:
        return plain("".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:])
    except BaseException as broken:  # noqa: BLE001 - as above
        return f"(its traceback cannot be read: {type(broken).__name__})"


def line_of(error: BaseException) -> str:
    """Returns an error as one line of a log."""
    text = text_of(error)[:_LINE_LIMIT]
    return f"{exception_names(error)[0]}: {text}" if text else exception_names(error)[0]


def plain(text: str) -> str:
    """Escapes characters that UTF-8 cannot encode."""
    return text.encode(errors="backslashreplace").decode()
