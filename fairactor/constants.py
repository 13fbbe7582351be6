"""Names in capitals in Lua: what they stand for is put in where they are used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_LITERAL: Final = r"(?:\d[\d.e]*|'[^'\n]*')"
_CONSTANTS: Final = re.compile(
    rf"^ *local ([A-Z][A-Z_]*(?:, [A-Z][A-Z_]*)*) = ({_LITERAL}(?:, {_LITERAL})*)(?: *--.*)?$", re.MULTILINE
)
_TOKEN: Final = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|\b[A-Z][A-Z_]*\b")


def put_in(text: str, given: Mapping[str, str]) -> str:
    """The text with its locals that are set to literals, and the names that are given, replaced by what they stand for.

    Raises:
        ValueError: a constant has two values.
    """
    known = dict(given)
    for names, values in _CONSTANTS.findall(text):
        for name, value in zip(names.split(", "), values.split(", "), strict=True):
            if known.setdefault(name, value) != value:
                raise ValueError(f"{name} is {known[name]} and {value}")
    return _TOKEN.sub(lambda token: known.get(token[0], token[0]), _CONSTANTS.sub("", text))
