"""A folder for each test of the embedded server; no process may use it afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

from tests.support.embedded import PATIENCE, processes


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a folder with a short name for all files of a test; asserts at the end that no process uses it."""
    folder = Path(tempfile.mkdtemp(prefix="fa-")).resolve()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    deadline = time.monotonic() + PATIENCE
    while (left := processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in left:
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder)
    assert not left, f"still there: {left}"
