"""Runs the chaos tests of `tests.chaos`: some seeds each time, and many more where time allows."""

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
    return program("tests.chaos", "--server", server, *options)


def program(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", module, *options]
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


@pytest.mark.long
def test_five_seeds_on_a_cluster(server: str) -> None:
    done = chaos(server, "--cluster", "--seeds", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled" in done.stdout


@pytest.mark.long
def test_two_seeds_with_sentinels(server: str) -> None:
    done = chaos(server, "--sentinel", "--seeds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled" in done.stdout


@pytest.mark.long
def test_five_seeds_while_shards_are_added(server: str) -> None:
    done = chaos(server, "--growing", "--seeds", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled" in done.stdout


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("setup", "seeds"), [("--cluster", "100"), ("--sentinel", "30"), ("--growing", "300")])
def test_many_seeds_on_several_shards(server: str, setup: str, seeds: str) -> None:
    done = chaos(server, setup, "--seeds", seeds, "--first", "1000")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_a_cluster_serves_soon_after_each_of_fifty_primaries_dies(server: str) -> None:
    done = program("tests.chaos.resume", "--server", server)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_the_library_is_upgraded_under_load_and_back(server: str) -> None:
    done = program("tests.chaos.upgrade", "--server", server)
    if done.returncode == 2:
        pytest.skip(done.stdout)
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
