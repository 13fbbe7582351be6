"""Tests that the line of each key in TOML is found, for random files."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor._config.mistakes import Path
from fairactor._config.toml_lines import toml_lines

keys = st.sampled_from(["a", "b-1", "_c", "2", "d e", "f.g", "ü", "[h]", "#i", "j=k", 'l"m', "n'o", "p\\q", ""])
VALUES = [
    "1", "-1.5e3", "true", "1979-05-27T07:32:00Z", '"x # ] } = y"', "'x \" # ]'",
    '"""\nx = 1\n[a]\n""\\"""""', "'''\n# ]\n'x''''",
    "[1, [2], # ]\n 'a]',\n]",
    "{ a = 1, b.c = [1, 2], \"d}\" = '}' }", "[\n  # [x]\n  \"a\\\"]\",\n  '''\n]'''\n]", "[]", "{}",
    '"\\\\"', "'\\'", '"""\\\n  folded """',
]  # fmt: skip
blanks = st.sampled_from(["", "\n", "  # a = 1\n", "\t\n\n", "# [x]\n"])
comments = st.sampled_from(["", " # x", " # \"'[{"])


def quoted(key: str, *, bare: bool) -> str:
    if bare and key and key.isascii() and all(each.isalnum() or each in "-_" for each in key):
        return key
    if "'" not in key and "\\" in key:
        return f"'{key}'"
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    """Returns a text, and the line of each key that is written in it."""
    text, lines = "", {}

    def dotted(path: list[str]) -> str:
        return draw(st.sampled_from([".", " . ", "\t."])).join(quoted(key, bare=draw(st.booleans())) for key in path)

    prefix: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        text += draw(blanks)
        path = draw(st.lists(keys, min_size=1, max_size=3))
        line = text.count("\n") + 1
        if draw(st.integers(0, 3)):
            text += f"{dotted(path)} = {draw(st.sampled_from(VALUES))}{draw(comments)}\n"
            lines.setdefault((*prefix, *path), line)
        else:
            text += f"[ {dotted(path)} ]{draw(comments)}\n"
            prefix = path
            lines.setdefault(tuple(path), line)
    return text, lines


@settings(deadline=None, max_examples=300)
@given(documents(), st.booleans())
def test_the_line_of_each_key_is_found(document: tuple[str, dict[Path, int]], windows: bool) -> None:
    text, lines = document
    text = text.replace("\n", "\r\n") if windows else text
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a key is given twice, for example
    found = toml_lines(text)
    for path, line in lines.items():
        assert found[path] == line or any(len(other) > len(path) and other[: len(path)] == path for other in lines)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 1", {("a", 0, "b"): 2, ("a", 1, "b"): 4, ("a", 1, "c", "d"): 6}),
        ("[[a.b]]\n[[a.b.c]]\nx = 1\n[[a.b.c]]\nx = 2", {("a", "b", 0, "c", 0, "x"): 3, ("a", "b", 0, "c", 1, "x"): 5}),
        ("a = 1 # no newline", {("a",): 1}),
        ("", {}),
    ],
)
def test_arrays_of_tables(text: str, lines: dict[Any, int]) -> None:
    found = toml_lines(text)
    assert {path: found[path] for path in lines} == lines
