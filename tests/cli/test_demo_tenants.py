"""Tests the demo's tenants and their files, and the actor that surveys them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fairactor.demo.sources import NoSources, Source, find_sources
from fairactor.demo.survey import survey

from .conftest import TREE


def test_sub_folders_are_tenants_and_the_largest_comes_first(tree: Path) -> None:
    sources = find_sources(tree)
    assert {source.tenant: len(source.files) for source in sources} == TREE
    assert [source.tenant for source in sources] == list(TREE)
    assert all(source.left_out == 0 for source in sources)


def test_a_limit_says_how_much_it_leaves_out(tree: Path) -> None:
    sources = find_sources(tree, limit=2)
    assert [(len(source.files), source.left_out) for source in sources] == [(2, 10), (2, 1), (1, 0)]


def test_where_there_is_no_python_text_files_are_taken(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a\nb")
    (tmp_path / "docs" / "picture").write_bytes(b"GIF\0\1")
    [source] = find_sources(tmp_path)
    assert source == Source("docs", (str(tmp_path / "docs" / "a.txt"),))
    found = survey.__wrapped__(source.files[0])
    assert (found.lines, found.errors) == (2, 0)


def test_names_without_a_utf_8_form_are_told_apart_or_left_out(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"caf\xe8"):
        folder = os.fsencode(tmp_path) + b"/" + name
        try:
            Path(os.fsdecode(folder)).mkdir()
        except OSError:
            pytest.skip("this file system has no such names")
        Path(os.fsdecode(folder), "m.py").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "m.py").touch()
    assert [(source.tenant, source.left_out) for source in find_sources(tmp_path)] == [("plain", 0)]


def test_a_folder_with_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoSources, match="have no source files"):
        find_sources(tmp_path)
    with pytest.raises(NoSources, match="absent: No such file or directory"):
        find_sources(tmp_path / "absent")


def test_installed_distributions_are_tenants() -> None:
    sources = {source.tenant: source for source in find_sources()}
    assert any(file.endswith("__init__.py") for file in sources["pytest"].files)
    files = [file for source in sources.values() for file in source.files]
    assert len(files) == len(set(files))
    assert all(Path(file).is_file() for file in files)


# The actor


def test_a_survey_counts_what_is_there_at_any_depth(tmp_path: Path) -> None:
    source = b"""
class A:
    async def f(self):
        try:
            def g(): ...
        except ValueError:
            class B: ...
if A:
    match 1:
        case 1:
            def h(): ..."""
    (tmp_path / "m.py").write_bytes(source)
    found = survey.__wrapped__(str(tmp_path / "m.py"))
    assert (found.lines, found.functions, found.classes, found.errors) == (11, 3, 2, 0)
    assert (found.bytes, found.sha256) == (len(source), hashlib.sha256(source).hexdigest())
    assert found.began <= found.ended


@pytest.mark.parametrize("broken", [b"def", b"x = '\0'", b"# coding: martian\n", b"\xff", b"(" * 1000 + b")" * 1000])
def test_what_cannot_be_parsed_is_counted_and_not_a_failure(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(broken)
    found = survey.__wrapped__(str(tmp_path / "m.py"))
    assert (found.errors, found.bytes) == (1, len(broken))


def test_what_cannot_be_read_is_counted_and_not_a_failure(tmp_path: Path) -> None:
    assert survey.__wrapped__(str(tmp_path)).errors == 1
