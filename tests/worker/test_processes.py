"""Tests what a handler finds in its worker process, and how its processes end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import redis

from fairactor import Retry, Runtime, TaskCanceled, TaskFailed
from fairactor.errors import RemoteError, WorkerProcessDied
from fairactor.settings import available_processors
from tests.support import not_importable, process_actors, slow_to_import
from tests.support.polling import PATIENCE, until
from tests.support.process_actors import ERRORS
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio

Make = Callable[..., Runtime]
ROOT = Path(__file__).parents[2]


async def ask(runtime: Runtime, message: Any, **options: Any) -> Any:
    return await runtime.ask("user:1", message, timeout=PATIENCE, **options)


async def failure_of(runtime: Runtime, message: Any, **options: Any) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        await ask(runtime, message, **options)
    return caught.value


def is_gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


# What a handler finds


async def test_it_has_the_output_of_the_runtime_and_no_input(
    make_runtime: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    async with make_runtime(process_actors) as runtime:
        assert await ask(runtime, process_actors.print_everywhere()) == ["", ""]
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == ["C", "Python", "a program"]
    assert sorted(said.err.splitlines()) == ["Python's errors", "its errors"]


async def test_signals_are_as_usual_for_each_handler(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        assert await ask(runtime, process_actors.signals()) == ([], [], True)
        pid = await ask(runtime, process_actors.change_signals())
        assert await ask(runtime, process_actors.signals()) == ([], [], True)
        assert await ask(runtime, process_actors.terminate_a_program()) == -signal.SIGTERM
        os.kill(pid, signal.SIGINT)  # while it is idle
        await anyio.sleep(0.06)  # the timer of `change_signals` must not ring
        assert await ask(runtime, process_actors.pid()) == pid


@pytest.mark.parametrize("method", ["spawn", "fork"])
async def test_it_can_use_multiprocessing(make_runtime: Make, method: str) -> None:
    async with make_runtime(process_actors) as runtime:
        assert await ask(runtime, process_actors.use_a_pool(method)) == [0, 1, 4, 9]


async def test_it_knows_its_task_and_reports_progress(make_runtime: Make) -> None:
    async with make_runtime(process_actors) as runtime:
        handle = await runtime.send("user:1", process_actors.tell(), id="told", key="once", priority="high")
        assert await handle.result(timeout=PATIENCE) == {
            "id": "told", "tenant": "user:1", "actor": "tell", "attempt": 1, "priority": "HIGH", "key": "once",
            "runtime": "None",
        }  # fmt: skip
        assert "give a fraction from 0 to 1" in await ask(runtime, process_actors.progress(2.0))


async def test_progress_can_be_seen_while_it_runs(make_runtime: Make, tmp_path: Path) -> None:
    async with make_runtime(process_actors) as runtime:
        handle = await runtime.send("user:1", process_actors.report_and_wait(str(tmp_path / "go")))

        async def progress() -> Any:
            return (await handle.info()).progress

        assert await until(progress) == (0.5, "half")
        (tmp_path / "go").touch()
        await handle.result(timeout=PATIENCE)


@pytest.mark.parametrize("fork", [False, True])
async def test_its_log_goes_to_the_loggers_of_the_runtime(
    make_runtime: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], fork: bool
) -> None:
    caplog.set_level(logging.INFO, "tests.of.processes")
    async with make_runtime(process_actors) as runtime:
        handle = await runtime.send("user:1", process_actors.log(fork))
        await handle.result(timeout=PATIENCE)
    records: list[Any] = [record for record in caplog.records if record.name == "tests.of.processes"]
    assert [(r.levelname, r.message) for r in records] == [("INFO", "wanted too"), ("ERROR", "failed")]
    assert {r.fairactor_task for r in records} == {handle.id}
    assert "FileNotFoundError: " in records[1].exc_text
    assert records[0].path == repr(Path("/"))
    assert records[0].process != os.getpid()
    assert ("FileNotFoundError: " in capfd.readouterr().err) is fork, "a forked process writes to stderr"


# What a handler raises


async def test_whatever_it_raises_is_the_outcome_of_its_attempt(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        pid = await ask(runtime, process_actors.pid())
        for name in ERRORS:
            error = await failure_of(runtime, process_actors.fail(name))
            assert error.error == name
            assert "in fail" in error.traceback
            assert await ask(runtime, process_actors.pid()) == pid


async def test_an_interrupted_handler_fails(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        assert (await failure_of(runtime, process_actors.interrupt())).error == "KeyboardInterrupt"
        assert await ask(runtime, process_actors.pid())


async def test_errors_in_a_group_can_be_told_apart(make_runtime: Make) -> None:
    again: dict[str, Any] = {"max_retries": 1, "backoff": 0}
    async with make_runtime(process_actors) as runtime:
        for kinds, attempts in (([process_actors.Unbuildable], 1), ([process_actors.Unbuildable, Retry], 2)):
            error = await failure_of(runtime, process_actors.fail("ExceptionGroup"), retry_on=kinds, **again)
            assert f"after {attempts} attempt(s)" in str(error)


async def test_a_result_that_is_too_long_stays_there(make_runtime: Make) -> None:
    async with make_runtime(process_actors, max_payload=1000) as runtime:
        error = await failure_of(runtime, process_actors.long_result(2000))
        assert "long_result() result: 2002 bytes, the limit is 1000" in str(error)


async def test_without_a_runtime_it_raises_what_it_raises() -> None:
    assert await process_actors.pid() != os.getpid()
    with pytest.raises(ValueError, match="told"):
        await process_actors.fail("ValueError")
    with pytest.raises(RemoteError, match="3"):
        await process_actors.fail("SystemExit")
    with pytest.raises(WorkerProcessDied, match="exited with status 9"):
        await process_actors.end_process("exit")


# How a process ends


DEATHS = {
    "exit": "exited with status 9 before the handler returned",
    "SIGKILL": "was killed by SIGKILL, perhaps because memory ran out, before",
    "SIGSEGV": "was killed by SIGSEGV before",
}


async def test_a_process_that_dies_fails_only_its_attempt(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        for how, words in DEATHS.items():
            error = await failure_of(runtime, process_actors.end_process(how))
            assert error.error == "fairactor.errors.WorkerProcessDied"
            assert f"end_process(): its process {words}" in str(error)
        assert await ask(runtime, process_actors.pid())


async def test_an_idle_process_that_dies_is_replaced(make_runtime: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        pid = await ask(runtime, process_actors.pid())
        os.kill(pid, signal.SIGKILL)
        assert await ask(runtime, process_actors.pid()) != pid
        await until(lambda: not psutil.pid_exists(pid))


async def test_a_handler_may_leave_processes_behind(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=1) as runtime:
        daemon = await ask(runtime, process_actors.fork_a_daemon())
        try:
            assert "exited with status 9" in str(await failure_of(runtime, process_actors.end_process("exit")))
            assert not is_gone(daemon)
        finally:
            os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("how", ["timeout", "cancel", "leave"])
async def test_what_it_has_started_ends_with_it(make_runtime: Make, tmp_path: Path, how: str) -> None:
    async with make_runtime(process_actors, grace=0) as runtime:
        timeout = 2.0 if how == "timeout" else 3600.0
        handle = await runtime.send("user:1", process_actors.start_programs(str(tmp_path)), timeout=timeout)
        await until((tmp_path / "pids").exists)
        *ours, daemon = map(int, (tmp_path / "pids").read_text().split())
        if how == "cancel":
            await handle.cancel()
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)
        elif how == "timeout":
            with pytest.raises(TaskFailed, match=r"TimeoutError: the attempt took longer than its timeout of 2 s"):
                await handle.result(timeout=PATIENCE)
    await until(lambda: all(map(is_gone, ours)))
    assert not is_gone(daemon), "it has left the process group"
    os.kill(daemon, signal.SIGKILL)


async def test_processes_end_with_a_runtime_that_is_killed(
    make_runtime: Make, processes: Fleet, tmp_path: Path, db: redis.Redis
) -> None:
    (victim,) = await processes.start(processes=2)
    async with make_runtime(workers=0) as web:
        await web.send("user:1", process_actors.start_programs(str(tmp_path)))
        await until((tmp_path / "pids").exists)
        *ours, daemon = map(int, (tmp_path / "pids").read_text().split())
        victim.signal(signal.SIGKILL)
        await until(lambda: all(map(is_gone, ours)))
        os.kill(daemon, signal.SIGKILL)
        await victim.ended()
        db.flushall()  # nobody waits for its lease to run out


async def test_descriptors_and_processes_do_not_pile_up(make_runtime: Make) -> None:
    async with make_runtime(process_actors, processes=2) as runtime:
        me = psutil.Process()
        await ask(runtime, process_actors.pid())
        before = me.num_fds(), len(me.children())
        await runtime.send_many([("user:1", process_actors.pid()) for _ in range(300)])
        for how in ("ValueError", "SystemExit"):
            await failure_of(runtime, process_actors.fail(how))
        for _ in range(3):
            await failure_of(runtime, process_actors.end_process("exit"))
        await ask(runtime, process_actors.pid())
        await runtime.drain(timeout=PATIENCE)
        per_process = 2  # its connection and its lifeline
        more = len(me.children()) - before[1]
        assert more <= 1
        assert me.num_fds() <= before[0] + more * per_process


# How a process starts


async def test_the_clock_starts_with_the_handler(make_runtime: Make) -> None:
    async with make_runtime(slow_to_import.slow, process_actors) as runtime:
        handle = await runtime.send("user:1", slow_to_import.slow(), timeout=0.9)  # the import takes a second
        await handle.result(timeout=PATIENCE)
        info = await handle.info()
        assert info.history == []
        assert info.started_at is not None
        assert info.ended_at is not None
        assert info.ended_at - info.started_at < timedelta(seconds=0.9)


DIES_MEANWHILE = """
import asyncio, os, signal, subprocess
from tests.support import process_actors
class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
subprocess.Popen = Popen
async def main():
    await process_actors.pid()
asyncio.run(main())
"""


async def test_it_ends_without_a_word_if_the_runtime_dies_while_it_starts() -> None:
    done = await anyio.run_process([sys.executable, "-c", DIES_MEANWHILE], cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")


async def test_it_says_why_a_handler_cannot_start(make_runtime: Make) -> None:
    async with make_runtime(not_importable.never, process_actors) as runtime:
        error = await failure_of(runtime, not_importable.never())
        assert "never(): its process could not start the handler: SystemExit: there is no licence" in str(error)
        assert "not_importable.py" in error.traceback
        assert await ask(runtime, process_actors.pid())


MAIN = """
import asyncio, logging, os, sys
from fairactor import Runtime, TaskFailed, actor
class NoMoney(Exception): ...
@actor(process=True, max_retries=2, backoff=0, retry_on=NoMoney)
def pay() -> None: raise NoMoney("refused")
async def main() -> None:
    async with Runtime(os.environ["URL"], actors=[pay]) as runtime:
        try:
            await runtime.ask("user:1", pay(), timeout=30)
        except TaskFailed as error:
            print(error)
"""


PROGRAMS = {
    "script": ("program.py", ["program.py"]),
    "module": ("program.py", ["-m", "program"]),
    "package": ("package/__main__.py", ["-m", "package"]),
    "folder": ("package/__main__.py", ["package"]),
    "unguarded": ("program.py", ["program.py"]),
}


@pytest.mark.parametrize("how", PROGRAMS)
async def test_handlers_and_errors_of_the_main_module(url: str, tmp_path: Path, how: str) -> None:
    end = "asyncio.run(main())\n" if how == "unguarded" else 'if __name__ == "__main__":\n    asyncio.run(main())\n'
    name, options = PROGRAMS[how]
    (tmp_path / "package").mkdir()
    (tmp_path / name).write_text(MAIN + end)
    command = [sys.executable, *options]
    environment = os.environ | {"URL": url, "PYTHONPATH": str(ROOT)}
    done = await anyio.run_process(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, check=False)
    said = done.stdout.decode()
    if how == "unguarded":
        assert "RuntimeError: the main module starts a Runtime when a worker process imports it" in said, done.stderr
    else:
        assert "failed after 3 attempt(s): __main__.NoMoney: refused" in said, done.stderr


def test_the_default_is_as_many_as_processors(url: str) -> None:
    assert Runtime(url).settings.processes == available_processors() >= 1
