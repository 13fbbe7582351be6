"""Runs the state machine, which compares the scripts with the model: half of the steps in each of two processes.

Each process keeps a processor busy, so each half is a test, and two workers of pytest run them at the same time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers

pytestmark = [pytest.mark.long, pytest.mark.parametrize("half", ["one half", "other half"])]


def steps_taken(binary: str, steps: int) -> int:
    """Runs the machine for at least this many steps, on a private server; returns the number taken."""
    with servers.running(binary) as url:
        command = [sys.executable, "-m", "tests.support.shard.state_machine", url, str(steps)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


def test_the_scripts_do_what_the_model_does(server_binary: str, half: str) -> None:
    assert steps_taken(server_binary, 4_000) >= 4_000


@pytest.mark.slow
def test_the_scripts_do_what_the_model_does_for_long(server_binary: str, half: str) -> None:
    assert steps_taken(server_binary, 500_000) >= 500_000
