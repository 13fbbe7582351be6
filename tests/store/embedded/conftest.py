"""A folder for each test of the embedded server, in which no process may be left."""

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
    """A folder for all that a test makes, with a short name; at the end no process may have to do with it."""
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
