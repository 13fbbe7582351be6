"""Actors that run in worker processes, for tests. Worker processes import this module."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio.from_thread

from fairactor import Retry, actor, current_task

IN_PROCESS = "fairactor._actors.process_main" in sys.modules
"""Whether this module was imported by a worker process."""

PRINTS = 'import sys; print("a program"); print("its errors", file=sys.stderr)'


@actor(process=True)
def pid() -> int:
    """Returns the id of its process."""
    return os.getpid()


@actor(process=True)
def sleep(seconds: float) -> int:
    """Occupies its process."""
    time.sleep(seconds)
    return os.getpid()


@actor(process=True)
def wait_for(path: str, begun: str = "") -> int:
    """Creates a file when it begins, and waits until another exists."""
    if begun:
        Path(begun).touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return os.getpid()


@actor(process=True)
def print_everywhere() -> list[str]:
    """Prints in all ways, and returns what it can read from stdin."""
    print("Python")  # noqa: T201 - the point
    sys.stderr.write("Python's errors\n")
    subprocess.run([sys.executable, "-c", PRINTS], check=True)
    libc = ctypes.CDLL(None)
    libc.puts(b"C")
    libc.fflush(None)
    return [sys.stdin.read(), subprocess.run(["cat"], capture_output=True, text=True, check=True).stdout]


@actor(process=True)
def signals() -> tuple[list[str], list[int], bool]:
    """Returns the signals with other handlers than usual, those that are blocked, and whether it leads a session."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
    changed = [
        number.name for number in signal.Signals if signal.getsignal(number) != usual.get(number, signal.SIG_DFL)
    ]
    return changed, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), os.getsid(0) == os.getpid()


@actor(process=True)
def change_signals() -> int:
    """Leaves signals, a timer and a mask behind."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)
    return os.getpid()


@actor(process=True)
def terminate_a_program() -> int:
    """Returns how a program ended that was told to."""
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    return program.wait(10)


def square(n: int) -> int:
    """Runs in a pool of a handler."""
    return n * n


@actor(process=True)
def use_a_pool(method: str) -> list[int]:
    """Uses `multiprocessing`."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(4))


@actor(process=True)
def tell() -> dict[str, Any]:
    """Reports progress, and returns what it knows about its task."""
    task = current_task()
    anyio.from_thread.check_cancelled()
    anyio.from_thread.run(task.progress, 0.25)
    anyio.from_thread.run_sync(lambda: None)
    asyncio.run(task.progress(0.5, "half"))
    facts = {"id": task.id, "tenant": task.tenant, "actor": task.actor, "attempt": task.attempt}
    return facts | {"priority": task.priority.name, "key": task.options["key"], "runtime": repr(task.runtime)}


@actor(process=True)
def report_and_wait(path: str) -> None:
    """Reports progress, and waits until a file exists."""
    anyio.from_thread.run(current_task().progress, 0.5, "half")
    while not Path(path).exists():
        time.sleep(0.005)


@actor(process=True)
def progress(fraction: float) -> str:
    """Reports progress; returns the error."""
    try:
        anyio.from_thread.run(current_task().progress, fraction)
    except Exception as error:  # noqa: BLE001 - returned
        return repr(error)
    return ""


@actor(process=True)
def log(fork: bool = False) -> None:
    """Logs; also in a process that it forks."""
    if fork and (child := os.fork()):
        os.waitpid(child, 0)
    logger = logging.getLogger("tests.of.processes")
    logger.debug("not %s", "wanted")
    logger.info("wanted %s", "too", extra={"path": Path("/"), "half": "\ud800"})
    try:
        Path("/nowhere").read_text(encoding="utf-8")
    except FileNotFoundError:
        logger.exception("failed")


class Broken(Exception):
    """An exception whose message cannot be read."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Unbuildable(Exception):
    """An exception that builds another one when it is unpickled."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class Unpicklable(Exception):
    """An exception that ends the process of whoever unpickles it."""

    def __reduce__(self) -> Any:
        return sys.exit, (7,)


class Quit(BaseException):
    """Not an `Exception`."""


ERRORS: dict[str, Any] = {
    "ValueError": lambda: ValueError("told"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": lambda: GeneratorExit("told"),
    "StopIteration": lambda: StopIteration("told"),
    "asyncio.exceptions.CancelledError": lambda: asyncio.CancelledError("told"),
    f"{__name__}.Broken": Broken,
    f"{__name__}.Unbuildable": lambda: Unbuildable(5),
    f"{__name__}.Unpicklable": lambda: Unpicklable("told"),
    f"{__name__}.Quit": lambda: Quit("told"),
    "ExceptionGroup": lambda: ExceptionGroup("told", [Unbuildable(1), Retry("again")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("told", [Quit("1"), KeyboardInterrupt()]),
}


@actor(process=True)
def fail(how: str) -> None:
    """Raises one of `ERRORS`."""
    error = ERRORS[how]()
    raise error


@actor(process=True)
def interrupt() -> None:
    """Sends itself a SIGINT."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


@actor(process=True)
def end_process(how: str) -> None:
    """Ends its process."""
    if how == "exit":
        os._exit(9)
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)


@actor(process=True)
def start_programs(folder: str) -> None:
    """Starts a program and a daemon, notes their ids, and waits."""
    program, daemon = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sleep", "60"], start_new_session=True)
    (Path(folder) / "new").write_text(f"{os.getpid()} {program.pid} {daemon.pid}")
    (Path(folder) / "new").rename(Path(folder) / "pids")
    time.sleep(60)


@actor(process=True)
def fork_a_daemon() -> int:
    """Leaves a process behind that has left the handler, too, and one that waits."""
    if os.fork() == 0:
        sys.exit(4)
    pid, status = os.wait()
    assert os.waitstatus_to_exitcode(status) == 4
    if (pid := os.fork()) == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return pid


@actor(process=True)
def long_result(length: int) -> str:
    """Returns a long string."""
    return "x" * length


@actor(process=True)
def traced() -> list[Any]:
    """Returns the baggage `user`, and the ids of the current span."""
    from opentelemetry import baggage, trace

    here = trace.get_current_span().get_span_context()
    return [baggage.get_baggage("user"), here.trace_id, here.span_id]


@actor(process=True, max_retries=0)
def busy(path: str) -> int:
    """Asks three times for a retry that does not count; the file knows how often."""
    with Path(path).open("a+") as file:
        file.write("x")
        if file.tell() < 4:
            raise Retry("busy", delay=0, count=False)
    return current_task().attempt
