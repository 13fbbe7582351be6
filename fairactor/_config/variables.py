"""Environment variables: ``${NAME}`` in files, and ``FAIRACTOR_NAME`` for settings.

Instead of ``NAME``, the variable ``NAME_FILE`` may name a file that has the value. That is how container platforms
pass secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

from .document import Document
from .mistakes import Mistakes, Path, shown_path

_PLACEHOLDER: Final = re.compile(r"(\$?)\$\{([^{}]*)\}")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_LARGEST: Final = 1 << 20  # bytes of a file with a secret


@attrs.frozen
class Variables:
    """The environment."""

    environ: Mapping[str, str] = attrs.field(repr=False)

    def get(self, name: str) -> str | None:
        """Returns the value of a variable, or what is in the file that ``NAME_FILE`` names; None if neither is set.

        Raises:
            ConfigurationError: both are set, or the file cannot be read.
        """
        value, path = self.environ.get(name), self.environ.get(f"{name}_FILE")
        if not path:
            return value
        if value:
            raise ConfigurationError(f"{name} and {name}_FILE are both set: set one of them")
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - any path
                return file.read(_LARGEST).rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise ConfigurationError(f"{name}_FILE: the file {shown(path)} cannot be read: {reason}") from None


@attrs.frozen
class Filled:
    """A document in whose strings the variables were replaced."""

    data: Mapping[str, Any] = attrs.field(repr=False)
    written: Mapping[Path, str]
    """The strings with variables, as they stand in the file. Their values may be secret."""
    failed: Collection[Path] = ()
    """Those of which a variable is missing."""


def fill(document: Document, variables: Variables, mistakes: Mistakes) -> Filled:
    """Replaces ``${NAME}`` and ``${NAME:-default}`` in all strings. ``$${`` stands for ``${``."""
    written: dict[Path, str] = {}
    failed: set[Path] = set()

    def visit(value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return text(value, path) if "${" in value else value
        if isinstance(value, Mapping):
            return {key: visit(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [visit(each, (*path, number)) for number, each in enumerate(value)]
        return value

    def text(value: str, path: Path) -> str:
        def problem(message: str) -> None:
            failed.add(path)
            mistakes.add(document.where(path), f"{shown_path(path)}: {message}")

        result = _replace(value, variables, problem, is_url=path[-1] == "url")
        if any(not match[1] for match in _PLACEHOLDER.finditer(value)):
            written[path] = value
        return result

    return Filled({key: visit(value, (key,)) for key, value in document.data.items()}, written, failed)


def _replace(value: str, variables: Variables, problem: Callable[[str], None], *, is_url: bool) -> str:
    login_ends = value.rfind("@") if is_url else -1

    def replaced(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        parts = _NAME.fullmatch(match[2])
        if parts is None:
            problem(f"${{{match[2]}}} is no variable: write ${{NAME}} or ${{NAME:-default}}; $${{ stands for ${{")
            return ""
        try:
            found = variables.get(parts[1])
        except ConfigurationError as error:
            problem(str(error))
            return ""
        if parts[2] is not None and not found:
            found = parts[2]
        if found is None:
            problem(f"the environment variable {parts[1]} is not set; set it, or write ${{{parts[1]}:-default}}")
            return ""
        return quote(found, safe="") if match.start() < login_ends else found

    return _PLACEHOLDER.sub(replaced, value)
