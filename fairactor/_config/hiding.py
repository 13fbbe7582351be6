"""Copies of a configuration, with or without what may be secret."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .mistakes import Path
from .options import hidden

HIDDEN: Final = "(hidden)"
_SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase)?|secret|token|credential|api_?key|authorization|webhook|dsn", re.IGNORECASE
)
_LOGIN: Final = re.compile(r"://[^/\s]*@")


def hidden_copy(data: Mapping[str, Any], secret: frozenset[Path], *, hide: bool) -> dict[str, Any]:
    """Returns a copy in plain dicts and lists.

    Args:
        data: the configuration.
        secret: the values that came from variables.
        hide: whether to hide these, URLs, and what has a name or a form that secrets have.
    """

    def copy(value: Any, path: Path) -> Any:
        if hide and path and _is_secret(value, path, secret):
            return hidden(value) if path[-1] == "url" and path[0] not in ("alerts", "schedules") else HIDDEN
        if isinstance(value, Mapping):
            return {key: copy(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [copy(each, (*path, number)) for number, each in enumerate(value)]
        return value

    copied: dict[str, Any] = copy(data, ())
    return copied


def _is_secret(value: Any, path: Path, secret: frozenset[Path]) -> bool:
    if path in secret:
        return True
    if not isinstance(value, str):
        return not isinstance(value, Mapping | list | tuple | dt.date | None) and _named_secret(path)
    return path[-1] == "url" or _named_secret(path) or _LOGIN.search(value) is not None


def _named_secret(path: Path) -> bool:
    return isinstance(path[-1], str) and _SECRET_NAME.search(path[-1]) is not None
