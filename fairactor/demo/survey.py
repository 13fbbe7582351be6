"""The actor of the demo: it reads a source file, hashes it, parses it, and counts what is in it."""

from __future__ import annotations

import ast
import hashlib
import time
import warnings
from pathlib import Path
from typing import Final

import attrs

from fairactor import actor

_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")  # where statements hold statements


@attrs.frozen
class Survey:
    """What is in a file, and when that was found out."""

    lines: int
    functions: int
    classes: int
    bytes: int
    sha256: str
    errors: int
    """1 for a file that cannot be read or parsed."""
    began: float
    """When the handler began and ended, by the clock of this machine (`time.monotonic`)."""
    ended: float


@actor(process=True, max_retries=2)
def survey(path: str) -> Survey:
    """Surveys one file. It keeps a CPU busy, so it runs in a worker process and leaves the event loop free."""
    began = time.monotonic()
    try:
        data = Path(path).read_bytes()
    except OSError:
        return Survey(0, 0, 0, 0, "", 1, began, time.monotonic())
    errors = functions = classes = 0
    if path.endswith(".py"):
        try:
            functions, classes = _count(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last one: nested too deep
            errors = 1
    lines = data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    digest = hashlib.sha256(data).hexdigest()
    return Survey(lines, functions, classes, len(data), digest, errors, began, time.monotonic())


def _count(source: bytes) -> tuple[int, int]:
    """How many functions and classes there are, at any depth.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it cannot be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        statements: list[ast.AST] = list(ast.parse(source).body)
    functions = classes = 0
    while statements:
        statement = statements.pop()
        functions += isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        classes += isinstance(statement, ast.ClassDef)
        for block in _BLOCKS:  # not `ast.walk`: expressions hold no definitions, and there are many
            inner = getattr(statement, block, None)
            if isinstance(inner, list):
                statements += inner
    return functions, classes


def prepare() -> None:
    """Makes a worker process ready: to call it there, all that a survey needs has been imported."""
