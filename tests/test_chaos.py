"""Chaos, as `tests.chaos` makes it: some seeds each time, and a thousand where there is time for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .fleet import until

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "tests.chaos"]


def chaos(server: str, *options: str) -> subprocess.CompletedProcess[str]:
    """It runs as a program: what it forks has to begin without the threads and loops of other tests."""
    command = [*COMMAND, "--server", server, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--server"))


def test_fifty_seeds(server: str) -> None:
    done = chaos(server, "--seeds", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled" in done.stdout


@pytest.mark.slow
def test_a_thousand_seeds(server: str) -> None:
    done = chaos(server, "--seeds", "1000", "--first", "1000")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_at_once_it_leaves_nothing(server: str, number: signal.Signals, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [*COMMAND, "--server", server, "--seeds", "4"]
    program = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        here = psutil.Process(program.pid)
        await until(lambda: len(here.children(recursive=True)) > 12)
        everything = here.children(recursive=True)
        program.send_signal(number)
        said, _ = program.communicate(timeout=30)
    finally:
        program.kill()
    assert program.returncode == 128 + number
    assert said == b""
    assert not [each for each in everything if each.is_running()]
    assert not list(tmp_path.iterdir())
