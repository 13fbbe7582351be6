"""Makes functions of Lua scripts: a function is created once on a server, and a script with each call.

A script runs from its first line with each call, and creates all of its functions again. `to_library` divides its text:
what the outer level of the script declares becomes locals of a library, functions are created when the library is loaded,
and everything else is put into steps, which each call runs in their order. So a call begins with the same values as a
script would. This relies on how the Lua files are formatted: a statement of the outer level begins in the first column,
and one of a ``do`` block two columns further.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

_SCOPE: Final = "-- @scope"
_LOCAL_FUNCTION: Final = re.compile(r"local function (\w+)")
_FUNCTION: Final = re.compile(r"function (\w+)\(")
_LOCAL: Final = re.compile(r"local ([\w, ]+?)(?: =\s+(.*))?$", re.DOTALL)
_CLOSES: Final = re.compile(r"end\b|until\b|else|[})\]]")
_NAME: Final = re.compile(r"'(?:\\.|[^'\\])*'|(?<![\w.:])[A-Za-z_]\w*")
_COMMENT: Final = re.compile(r" --(?!\[)[^'\"\n]*$", re.MULTILINE)
_MOST_NAMES: Final = 50
"""Outer locals that a step uses: Lua allows 60."""


@attrs.define
class _Block:
    """A part of the library: what is declared, and the steps that a call runs."""

    indent: str
    lines: list[str] = attrs.Factory(list)
    steps: list[str] = attrs.Factory(list)
    """Names of steps, in order."""
    pending: list[str] = attrs.Factory(list)
    """Statements of the step to come."""
    used: set[str] = attrs.Factory(set)
    """Names that they use."""


class _Writer:
    def __init__(self) -> None:
        self._numbers = 0
        self._known: set[str] = set()
        """Names of outer locals."""

    def step_name(self) -> str:
        self._numbers += 1
        return f"step_{self._numbers}"

    def write(self, block: _Block, statements: Sequence[str], kept: frozenset[str]) -> None:
        """Adds statements to a block. ``kept`` are names of functions that are assigned once."""
        for statement in statements:
            head = statement.partition("\n")[0]
            if match := _LOCAL_FUNCTION.match(head):
                self._flush(block)
                self._known.add(match[1])
                block.lines.append(statement)
            elif (match := _FUNCTION.match(head)) is not None:
                self._flush(block)
                block.lines.append(statement)
            elif head == "do":
                self._flush(block)
                self._write_do(block, statement)
            elif match := _LOCAL.match(_COMMENT.sub("", statement)):
                self._declare(block, match[1], match[2], kept)
            else:
                self._add(block, statement)

    def _declare(self, block: _Block, names: str, value: str | None, kept: frozenset[str]) -> None:
        listed = names.split(", ")
        if shadowed := self._known & set(listed) & set(_NAME.findall(value or "")):
            raise ValueError(f"local {names}: its value uses the {shadowed} that it hides")
        if value is not None and kept & set(listed):
            raise ValueError(f"local {names}: one is a function later, so it cannot have a value")
        self._flush_unless_new(block, listed)
        block.lines.append(f"local {names}")
        self._known.update(listed)
        if value is not None:
            self._add(block, f"{names} = {value}")
        elif reset := [name for name in listed if name not in kept]:
            self._add(block, f"{', '.join(reset)} = nil")

    def _flush_unless_new(self, block: _Block, names: Sequence[str]) -> None:
        if self._known & set(names):  # a name that is declared again stands for another local from here on
            self._flush(block)

    def _add(self, block: _Block, statement: str) -> None:
        used = self._known.intersection(_NAME.findall(statement))
        if len(block.used | used) > _MOST_NAMES:
            self._flush(block)
        block.pending.append(statement)
        block.used |= used

    def _flush(self, block: _Block) -> None:
        if block.pending:
            name = self.step_name()
            block.lines.append(f"local function {name}()\n" + "\n".join(block.pending) + "\nend")
            block.steps.append(name)
            block.pending, block.used = [], set()

    def _write_do(self, block: _Block, statement: str) -> None:
        body = "\n".join(line.removeprefix("  ") for line in statement.split("\n")[1:-1])
        statements = list(_statements(body))
        inner = _Block(block.indent + "  ")
        known = set(self._known)
        self.write(inner, statements, _assigned_once(statements))
        self._flush(inner)
        self._known = known
        if not inner.steps:
            block.lines.append("do\n" + "\n".join(inner.lines) + "\nend")
            return
        name = self.step_name()
        block.lines.append(f"local {name}\ndo\n" + "\n".join(inner.lines))
        block.lines.append(f"{name} = function()\n" + _run(inner.steps) + "\nend\nend")
        block.steps.append(name)

    def finish(self, block: _Block) -> None:
        self._flush(block)


def _run(steps: Sequence[str]) -> str:
    """Returns Lua that runs steps until one returns the reply."""
    if not steps:
        return ""
    calls = [f"reply = {name}()\nif reply ~= nil then return reply end" for name in steps]
    return "local reply\n" + "\n".join(calls)


def _statements(text: str) -> Iterator[str]:
    """Yields the statements of the outer level."""
    current: list[str] = []
    for line in text.split("\n"):
        outer = line[:1] not in ("", " ")
        if outer and line.startswith("--"):
            continue
        if outer and current and not _CLOSES.match(line):
            yield "\n".join(current)
            current = []
        if line.strip() and (current or outer):
            current.append(line)
    if current:
        yield "\n".join(current)


def _assigned_once(statements: Sequence[str]) -> frozenset[str]:
    """Returns the names that become functions of the library."""
    found = set()
    for statement in statements:
        if match := _FUNCTION.match(statement):
            found.add(match[1])
        elif statement.startswith("do\n"):
            body = "\n".join(line.removeprefix("  ") for line in statement.split("\n")[1:-1])
            found |= _assigned_once(list(_statements(body)))
    return frozenset(found)


def to_library(name: str, text: str, flags: Sequence[str]) -> str:
    """Returns the text of a library with one function, which does what a script does.

    Args:
        name: the name of the library and of its function.
        text: the script, with its constants replaced, and its scopes marked.
        flags: those of the function.
    """
    scopes = [list(_statements(scope)) for scope in re.split(rf"^{_SCOPE}$", text, flags=re.MULTILINE)]
    kept = frozenset[str]().union(*map(_assigned_once, scopes))
    writer = _Writer()
    opened = []
    for statements in scopes:
        block = _Block("")
        writer.write(block, statements, kept)
        writer.finish(block)
        opened.append(block)
    inner = ""
    for block in reversed(opened):
        rest = f"local rest = (function()\n{inner}\nend)()\n" if inner else ""
        steps = [*block.steps, *(["rest"] if inner else [])]
        inner = "\n".join(block.lines) + f"\n{rest}return function()\n{_run(steps)}\nend"
    shown = ", ".join(f"'{flag}'" for flag in flags)
    return (
        f"#!lua name={name}\nlocal KEYS, ARGV\nlocal run = (function()\n{inner}\nend)()\n"
        f"redis.register_function{{ function_name = '{name}', flags = {{ {shown} }}, callback = function(keys, args)\n"
        "KEYS, ARGV = keys, args\nreturn run()\nend }\n"
    )
