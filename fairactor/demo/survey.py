"""The actor of the demo: reads, hashes and parses a source file, and counts its functions and classes."""

from __future__ import annotations

import ast
import hashlib
import time
import warnings
from pathlib import Path
from typing import Final

import attrs

from fairactor import actor

_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")  # fields that contain nested statements


@attrs.frozen
class Survey:
    """The contents of a file, and when the handler ran."""

    lines: int
    functions: int
    classes: int
    bytes: int
    sha256: str
    errors: int
    """1 if the file cannot be read or parsed, otherwise 0."""
    began: float
    """When the handler began, by `time.monotonic`."""
    ended: float
    """When the handler ended, by `time.monotonic`."""


@actor(process=True, max_retries=2)
def survey(path: str) -> Survey:
    """Surveys one file. It runs in a worker process, because it would block the event loop."""
    began = time.monotonic()
    try:
        data = Path(path).read_bytes()
    except OSError:
        return Survey(0, 0, 0, 0, "", 1, began, time.monotonic())
    errors = functions = classes = 0
    if path.endswith(".py"):
        try:
            functions, classes = _count(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
            errors = 1
    lines = data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    digest = hashlib.sha256(data).hexdigest()
    return Survey(lines, functions, classes, len(data), digest, errors, began, time.monotonic())


def _count(source: bytes) -> tuple[int, int]:
    """Counts the functions and classes, at any depth.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the source cannot be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        statements: list[ast.AST] = list(ast.parse(source).body)
    functions = classes = 0
    while statements:
        statement = statements.pop()
        functions += isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        classes += isinstance(statement, ast.ClassDef)
        for block in _BLOCKS:  # not `ast.walk`: it visits all expressions, which contain no definitions
            inner = getattr(statement, block, None)
            if isinstance(inner, list):
                statements += inner
    return functions, classes
