"""Fixtures: an empty folder, and a function that loads a file in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from fairactor.config import Config, load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(folder: Path) -> Callable[..., Config]:
    """Returns a function that writes a file and loads it, in an empty environment."""

    def make(text: str, name: str = "fairactor.toml", **options: Any) -> Config:
        (folder / name).write_text(dedent(text))
        return load(name, **{"environ": {}} | options)

    return make
