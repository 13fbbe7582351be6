"""Runs the state machine of dependencies in a separate process with its own server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers

pytestmark = pytest.mark.long


def steps_taken(binary: str, steps: int) -> int:
    """Runs the state machine for at least ``steps`` steps and returns their number."""
    with servers.running(binary) as url:
        command = [sys.executable, "-m", "tests.support.dependencies.state_machine", url, str(steps)]
        done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


def test_tasks_that_wait_for_others_do_what_the_model_says(server_binary: str) -> None:
    assert steps_taken(server_binary, 3_000) >= 3_000


@pytest.mark.slow
def test_tasks_that_wait_for_others_do_what_the_model_says_for_long(server_binary: str) -> None:
    assert steps_taken(server_binary, 200_000) >= 200_000
