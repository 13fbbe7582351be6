"""Finds the lines of keys in TOML. `tomllib` has no line numbers, so this reads the text once more.

It is only called with text that `tomllib` has accepted, so it need not find errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .mistakes import Path

_KEY: Final = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_TOKEN: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|[\[{]|[\]}]|\n|[^\s"'\#\[\]{}]+''',
    re.DOTALL,
)


def toml_lines(text: str) -> dict[Path, int]:
    """Returns the line of each table and each key, from 1. Keys of inline tables are not among them."""
    lines: dict[Path, int] = {}
    for path, line in _Scanner(text).statements():
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], line)
    return lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._counted = 0
        self._tables: dict[Path, int] = {}  # how many tables an array of tables has so far

    def statements(self) -> Iterator[tuple[Path, int]]:
        prefix: Path = ()
        while self._skip_blank():
            line = self._line_here()
            if self._text[self._at] == "[":
                double = self._text.startswith("[[", self._at)
                self._at += 2 if double else 1
                prefix = self._in_arrays(self._keys())
                self._at = self._text.index("]", self._at) + (2 if double else 1)
                if double:
                    yield prefix, line
                    self._tables[prefix] = self._tables.get(prefix, -1) + 1
                    prefix = (*prefix, self._tables[prefix])
                yield prefix, line
            else:
                path = (*prefix, *self._keys())
                self._at += 1  # the equals sign
                self._skip_value()
                yield path, line

    def _in_arrays(self, keys: Path) -> Path:
        """Adds the number of the last table to each array of tables on the way."""
        path: Path = ()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            if path in self._tables and number < len(keys):
                path = (*path, self._tables[path])
        return path

    def _keys(self) -> Path:
        keys: list[str | int] = []
        while match := _KEY.match(self._text, self._at):
            keys.append(_plain(match[1]))
            self._at = match.end()
            if self._text[self._at : self._at + 1] != ".":
                break
            self._at += 1
        return tuple(keys)

    def _skip_blank(self) -> bool:
        """Goes to the next statement; returns False at the end."""
        while match := re.compile(r"\s+|#[^\n]*").match(self._text, self._at):
            self._at = match.end()
        return self._at < len(self._text)

    def _skip_value(self) -> None:
        """Goes behind a value: to the end of its line, or of the line where its last bracket closes."""
        depth = 0
        for match in _TOKEN.finditer(self._text, self._at):
            self._at = match.end()
            depth += (match[0] in "[{") - (match[0] in "]}")
            if match[0] == "\n" and not depth:
                return

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _plain(key: str) -> str:
    """Returns a key without its quotes and escapes."""
    if key[0] not in "\"'":
        return key
    import tomllib

    name: str = next(iter(tomllib.loads(f"{key} = 1")))
    return name
