"""Runs the chaos tests of `tests.chaos`: some seeds each time, and a thousand where time allows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "tests.chaos"]


def chaos(server: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs it as a program, because forked processes must not inherit the threads and event loops of other tests."""
    command = [*COMMAND, "--server", server, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--server"))


@pytest.mark.long
def test_twenty_seeds(server: str) -> None:
    done = chaos(server, "--seeds", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled" in done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_a_thousand_seeds(server: str) -> None:
    done = chaos(server, "--seeds", "1000", "--first", "1000")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_the_middle_it_leaves_nothing(server: str, number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        _stop_in_the_middle(server, number, Path(folder))


def _stop_in_the_middle(server: str, number: signal.Signals, folder: Path) -> None:
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [*COMMAND, "--server", server, "--verbose"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith(b"seed "), "the first has ended, and others have not"
        everything = psutil.Process(program.pid).children(recursive=True)
        assert everything
        program.send_signal(number)
        said, _ = program.communicate(timeout=30)
    assert program.returncode == 128 + number
    assert [line for line in said.splitlines() if not line.startswith(b"seed ")] == []
    _, alive = psutil.wait_procs(everything, timeout=10)  # the kernel ends the processes of handlers with their runtime
    assert not alive
    assert not list(folder.iterdir())
