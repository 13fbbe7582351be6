"""Tests how `fairactor worker` replaces its processes: after a death, a signal, a change of the code, or a limit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from fairactor import Runtime, actor
from tests.support.polling import PATIENCE, until
from tests.support.worker_commands import PATH, Commands

pytestmark = pytest.mark.anyio

APP = """
import logging, os
from fairactor import actor

WORD = "old"

@actor
async def speak(number: int) -> str:
    logging.getLogger("app").info("%s %d", WORD, number)
    return WORD

@actor
async def die() -> None:
    os.kill(os.getpid(), 9)

@actor
async def hold(size: int) -> None:
    globals().setdefault("held", []).append(b"x" * (size << 20))
"""
NEW = APP.replace('"old"', '"new"')


@actor
async def speak(number: int) -> str: ...


@actor
async def hold(size: int) -> None: ...


@pytest.fixture
def commands(tmp_path: Path, url: str) -> Iterator[Commands]:
    made = Commands(tmp_path, url)
    made.write("app.py", APP)
    with made.closing():
        yield made


async def word(url: str, number: int = 1) -> str:
    async with Runtime(url, workers=0) as runtime:
        return await runtime.ask("acme", speak(number), timeout=PATIENCE)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_process_that_dies_is_replaced(commands: Commands, url: str, db: redis.Redis) -> None:
    command = commands.start("app", "-p", "2", FAIRACTOR_LEASE="1")
    first, _ = command.ready(2)
    os.kill(first, signal.SIGKILL)
    command.line(f"process {first} was killed by SIGKILL, perhaps because memory ran out")
    command.ready()
    assert await word(url) == "old"
    await until(lambda: db.zcard("{fairactor/0}:leases") == 2)
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_a_process_that_is_stopped_by_others_is_replaced(commands: Commands) -> None:
    command = commands.start("app")
    (first,) = command.ready()
    os.kill(first, signal.SIGTERM)
    command.line(f"process {first} has ended with code 0")
    command.ready()
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_sighup_starts_the_code_as_it_is_then(commands: Commands, url: str) -> None:
    command = commands.start("app", "-p", "2")
    old = command.ready(2)
    assert await word(url) == "old"
    commands.write("app.py", NEW)
    command.signal(signal.SIGHUP)
    new = command.ready(2)
    await until(lambda: all(map(gone, old)))
    assert await word(url) == "new"
    commands.write("app.py", "raise ValueError('bad')")
    command.signal(signal.SIGHUP)
    command.line("app cannot be imported: ValueError: bad")
    command.line("the new code does not start: the processes with the old code go on")
    assert not any(map(gone, new))
    assert await word(url) == "new"
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_a_change_of_the_code_starts_again(commands: Commands, url: str) -> None:
    pytest.importorskip("watchfiles")
    command = commands.start("app.py", "--reload")
    (old,) = command.ready()
    commands.write("app.py", "raise ValueError('bad')")
    command.line("app.py has changed: starting again")
    command.line("app cannot be imported: ValueError: bad")
    command.line("waiting for a change")
    assert gone(old)
    commands.write("app.py", NEW)
    command.ready()
    assert await word(url) == "new"
    command.signal(signal.SIGINT, group=True)
    assert command.ended() == 0


async def test_reload_says_how_watchfiles_is_installed(commands: Commands, tmp_path: Path) -> None:
    commands.write("sitecustomize.py", "import sys\nsys.modules['watchfiles'] = None\n")
    command = commands.run("app", "--reload", PYTHONPATH=os.pathsep.join([str(tmp_path), PATH]))
    assert command.ended() == 2
    assert 'pip install "fairactor[reload]"' in command.text


async def test_after_its_last_task_a_process_is_replaced(commands: Commands, url: str) -> None:
    command = commands.start("app", "--max-tasks", "3")
    (first,) = command.ready()
    async with Runtime(url, workers=0) as runtime:
        handles = [await runtime.send("acme", speak(number)) for number in range(3)]
        command.line(f"process {first} has run 3 tasks: another one takes its place")
        command.ready()
        handles += [await runtime.send("acme", speak(number)) for number in range(3)]
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == ["old"] * 6
    await until(lambda: gone(first))
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


@pytest.mark.slow
async def test_a_process_that_holds_much_memory_is_replaced(commands: Commands, url: str) -> None:
    command = commands.start("app", "--max-memory", "300")
    (first,) = command.ready()
    async with Runtime(url, workers=0) as runtime:
        await runtime.ask("acme", hold(400), timeout=PATIENCE)
    command.line(f"process {first} holds 4.. MB: another one takes its place")
    command.ready()
    await until(lambda: gone(first))
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_processes_stop_when_the_command_is_killed(commands: Commands, db: redis.Redis) -> None:
    command = commands.start("app", "-p", "2")
    processes = command.ready(2)
    os.kill(command.pid, signal.SIGKILL)
    command.line("the supervisor of this process has gone: stopping")
    await until(lambda: all(map(gone, processes)))
    assert not db.exists("{fairactor/0}:leases")
    assert command.ended() == -signal.SIGKILL


async def test_a_process_that_fails_at_start_again_and_again_ends_all(commands: Commands) -> None:
    commands.write(
        "fails.py",
        "from fairactor import actor\nclass Mail:\n    async def started(self): raise OSError('no disk')\n"
        "    @actor\n    async def send(self): ...\n",
    )
    command = commands.run("fails", "-p", "2")
    assert command.ended() == 1
    assert command.text.count("no disk") == 5
    assert command.text.count("starting another process in") == 4
