"""Makes functions of Lua scripts: a function is created once on a server, and those of a script with each call.

A script runs from its first line with each call, and creates all of its functions again. `to_library` divides its text.
What the outer level of the script declares becomes locals of a library. Its functions are created when the library is
loaded. Everything else is put into steps, and each call runs them in their order. So a call begins with the same values
as a script would. This relies on how the Lua files are formatted: a statement of the outer level begins in the first
column, and one of a ``do`` block two columns further.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

_SCOPE: Final = re.compile(r"^-- @scope$", re.MULTILINE)
_LOCAL_FUNCTION: Final = re.compile(r"local function (\w+)")
_FUNCTION: Final = re.compile(r"function (\w+)\(")
_LOCAL: Final = re.compile(r"local ([\w, ]+?)(?: =\s+(.*))?$", re.DOTALL)
_GOES_ON: Final = re.compile(r"end\b|until\b|else|[})\]]")
"""How a line in the first column begins that belongs to the statement before it."""
_COMMENT: Final = re.compile(r" --(?!\[)[^'\"\n]*$", re.MULTILINE)
_NAME: Final = re.compile(r"'(?:\\.|[^'\\])*'|(?<![\w.:])[A-Za-z_]\w*")
"""A name; or a string, so that names in it are not found."""
_MOST_NAMES: Final = 50
"""Outer locals that a step may use: Lua allows 60."""


def to_library(name: str, text: str, flags: Sequence[str]) -> str:
    """Returns the text of a library with one function, which does what a script does.

    Args:
        name: the name of the library and of its function.
        text: the script, with its constants replaced, and its scopes marked.
        flags: those of the function.

    Raises:
        ValueError: the script has a statement that cannot be divided.
    """
    scopes = [list(_statements(scope)) for scope in _SCOPE.split(text)]
    writer = _Writer(frozenset[str]().union(*map(_functions_in, scopes)))
    inner = ""
    for block in reversed([writer.write(statements) for statements in scopes]):
        rest = f"local rest = (function()\n{inner}\nend)()\n" if inner else ""
        steps = [*block.steps, *(["rest"] if inner else [])]
        inner = "\n".join(block.lines) + f"\n{rest}return function()\n{_run(steps)}\nend"
    listed = ", ".join(f"'{flag}'" for flag in flags)
    return (
        f"#!lua name={name}\nlocal KEYS, ARGV\nlocal run = (function()\n{inner}\nend)()\n"
        f"redis.register_function{{ function_name = '{name}', flags = {{ {listed} }}, callback = function(keys, args)\n"
        "KEYS, ARGV = keys, args\nreturn run()\nend }\n"
    )


def _statements(text: str) -> Iterator[str]:
    """Yields the statements of the outer level, without comments between them."""
    current: list[str] = []
    for line in text.split("\n"):
        is_outer = line[:1] not in ("", " ")
        if is_outer and line.startswith("--"):
            continue
        if is_outer and current and not _GOES_ON.match(line):
            yield "\n".join(current)
            current = []
        if line.strip() and (current or is_outer):
            current.append(line)
    if current:
        yield "\n".join(current)


def _statements_in_block(block: str) -> list[str]:
    """Returns the statements of a ``do`` block."""
    return list(_statements("\n".join(line.removeprefix("  ") for line in block.split("\n")[1:-1])))


def _functions_in(statements: Sequence[str]) -> frozenset[str]:
    """Returns the names of declared locals that are functions later, also in blocks."""
    found = {match[1] for statement in statements if (match := _FUNCTION.match(statement))}
    blocks = [statement for statement in statements if statement.startswith("do\n")]
    return frozenset(found).union(*(_functions_in(_statements_in_block(block)) for block in blocks))


def _run(steps: Sequence[str]) -> str:
    """Returns Lua that runs steps until one returns the reply."""
    calls = [f"reply = {name}()\nif reply ~= nil then return reply end" for name in steps]
    return "\n".join(["local reply", *calls])


@attrs.define
class _Block:
    """A part of a library: its declarations, and the steps that a call runs."""

    lines: list[str] = attrs.Factory(list)
    steps: list[str] = attrs.Factory(list)
    """Their names, in order."""
    pending: list[str] = attrs.Factory(list)
    """The statements of the step to come."""
    used: set[str] = attrs.Factory(set)
    """The outer locals that they use."""


class _Writer:
    """Divides statements.

    Args:
        functions: the names of declared locals that are functions later: a call does not reset them.
    """

    def __init__(self, functions: frozenset[str]) -> None:
        self._functions = functions
        self._steps = 0
        self._known: set[str] = set()
        """The outer locals so far."""

    def write(self, statements: Sequence[str]) -> _Block:
        """Returns the part of the library that has these statements."""
        block = _Block()
        for statement in statements:
            if match := _LOCAL_FUNCTION.match(statement):
                self._end_step(block)
                self._known.add(match[1])
                block.lines.append(statement)
            elif _FUNCTION.match(statement):
                self._end_step(block)
                block.lines.append(statement)
            elif statement.startswith("do\n"):
                self._end_step(block)
                self._write_block(block, statement)
            elif match := _LOCAL.match(_COMMENT.sub("", statement)):
                self._declare(block, match[1], match[2])
            else:
                self._add_to_step(block, statement)
        self._end_step(block)
        return block

    def _declare(self, block: _Block, names: str, value: str | None) -> None:
        listed = set(names.split(", "))
        if hidden := self._known & listed & set(_NAME.findall(value or "")):
            raise ValueError(f"local {names}: its value uses the {hidden} that it hides")
        if value is not None and self._functions & listed:
            raise ValueError(f"local {names}: one is a function later, so it cannot have a value")
        if self._known & listed:  # from here on the name stands for another local
            self._end_step(block)
        block.lines.append(f"local {names}")
        self._known |= listed
        if value is not None:
            self._add_to_step(block, f"{names} = {value}")
        elif listed - self._functions:
            self._add_to_step(block, f"{', '.join(sorted(listed - self._functions))} = nil")

    def _write_block(self, block: _Block, statement: str) -> None:
        outside = set(self._known)
        inner = self.write(_statements_in_block(statement))
        self._known = outside
        name = self._next_step()
        block.lines += [f"local {name}", "do", *inner.lines, f"{name} = function()", _run(inner.steps), "end", "end"]
        block.steps.append(name)

    def _add_to_step(self, block: _Block, statement: str) -> None:
        used = self._known.intersection(_NAME.findall(statement))
        if len(block.used | used) > _MOST_NAMES:
            self._end_step(block)
        block.pending.append(statement)
        block.used |= used

    def _end_step(self, block: _Block) -> None:
        if block.pending:
            name = self._next_step()
            block.lines += [f"local function {name}()", *block.pending, "end"]
            block.steps.append(name)
            block.pending, block.used = [], set()

    def _next_step(self) -> str:
        self._steps += 1
        return f"step_{self._steps}"
