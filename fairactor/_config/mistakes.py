"""Mistakes in a configuration. All of them are collected, and then raised together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, InvalidConfig

Path = tuple[str | int, ...]
"""Where a value is in the configuration: the keys that lead to it."""
_UNKNOWN: Final = "there is no "  # the message names the key itself
_NAMED: Final = re.compile(r"=| ['\"\d]| (is|must|cannot) ")  # what follows the name of a setting in a message
_PLACE: Final = re.compile(r"[^:]*:(\d+): ")


def shown_path(path: Path) -> str:
    """Returns a path as a file would have it: ``tenants.acme.weight``. Odd names are quoted."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if key.replace("-", "_").isidentifier() and key.isascii() else shown(key)
            text += f".{name}" if text else name
    return text


@attrs.define
class Mistakes:
    """Collects mistakes."""

    found: list[str] = attrs.field(factory=list)

    @property
    def in_order(self) -> list[str]:
        """The mistakes: first those of a file, by line."""
        return sorted(self.found, key=_line)

    def add(self, where: str, problem: str) -> None:
        """Adds a mistake.

        Args:
            where: the file and the line, or what else contains it; '' for nothing.
            problem: what is wrong, and what was expected.
        """
        line = f"{where}: {problem}" if where else problem
        if line not in self.found:
            self.found.append(line)

    def attempt(self, where: str, path: Path, check: Callable[[], Any]) -> Any:
        """Calls a function that may raise ConfigurationError; returns its result, or None after an error."""
        try:
            return check()
        except ConfigurationError as error:
            self.add(where, about(path, str(error)))
            return None

    def raise_all(self) -> None:
        """Raises what was found.

        Raises:
            InvalidConfig: there is a mistake.
        """
        if self.found:
            raise InvalidConfig(self.in_order)


def about(path: Path, message: str) -> str:
    """Says of which path a message is. ``workers=-1: …`` becomes ``worker.gpu.workers=-1: …``."""
    message = message.replace("math.inf", "inf")  # as files have it
    before = shown_path(path[:-1])
    if path and _NAMED.match(message.removeprefix(str(path[-1]))) and message.startswith(str(path[-1])):
        return f"{before}.{message}" if before else message
    if message.startswith(_UNKNOWN):
        return f"{before}: {message}" if before else message
    return f"{shown_path(path)}: {message}" if path else message


def _line(mistake: str) -> float:
    match = _PLACE.match(mistake)
    return int(match[1]) if match else math.inf
