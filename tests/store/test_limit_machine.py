"""Runs the machine for limits: what limits promise holds after every step, whatever happens, and all ends at last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers


def steps_taken(binary: str, steps: int) -> int:
    """Runs the machine for at least this many steps, on a private server; returns the number taken."""
    with servers.running(binary) as url:
        command = [sys.executable, "-m", "tests.support.shard.limit_machine", url, str(steps)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.long
def test_limits_keep_what_they_promise(server_binary: str) -> None:
    assert steps_taken(server_binary, 1_000) >= 1_000


@pytest.mark.slow
def test_limits_keep_what_they_promise_for_long(server_binary: str) -> None:
    assert steps_taken(server_binary, 100_000) >= 100_000
