"""Fixtures for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

TREE = {"big": 12, "middle": 3, "small": 1}
"""The tenants of `tree` and the number of files of each."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Makes a folder for each tenant with its Python files."""
    for tenant, files in TREE.items():
        for number in range(files):
            file = tmp_path / "tree" / tenant / "inner" / f"m{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"class A{number}:\n    def f(self): ...\n")
    (tmp_path / "tree" / "big" / "notes.txt").write_text("no Python")
    (tmp_path / "tree" / ".hidden").mkdir()
    (tmp_path / "tree" / ".hidden" / "m.py").touch()
    (tmp_path / "tree" / "empty").mkdir()
    (tmp_path / "tree" / "loose.py").touch()
    return tmp_path / "tree"
