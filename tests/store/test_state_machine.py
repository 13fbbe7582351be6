"""The scripts do what the model does: the state machine runs in two processes, since it keeps a processor busy."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import servers

PROCESSES = 2


def steps_taken(binary: str, steps: int) -> int:
    """How many steps the machine took, at least so many; each process has a server of its own."""
    with ExitStack() as stack:
        machines = []
        for _ in range(PROCESSES):
            url = stack.enter_context(servers.running(binary))
            command = [sys.executable, "-m", "tests.support.shard.state_machine", url, str(-(-steps // PROCESSES))]
            machine = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            stack.callback(machine.kill)
            machines.append(machine)
        said = [machine.communicate()[0] for machine in machines]
    for machine, words in zip(machines, said, strict=True):
        assert machine.returncode == 0, words
    return sum(int(words.split()[-1]) for words in said)


def test_the_scripts_do_what_the_model_does(server_binary: str) -> None:
    assert steps_taken(server_binary, 8_000) >= 8_000


@pytest.mark.slow
def test_the_scripts_do_what_the_model_does_for_long(server_binary: str) -> None:
    assert steps_taken(server_binary, 1_000_000) >= 1_000_000
