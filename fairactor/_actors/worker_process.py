"""One worker process, from the side of the runtime: its start, its calls, and its end."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import process as multiprocessing_process
from multiprocessing import spawn
from typing import Any, Final, cast

import anyio

from fairactor._util.backoff import Backoff
from fairactor._util.failures import exception_names
from fairactor._util.wakeup import Wakeup
from fairactor.errors import WorkerProcessDied

from . import process_logs
from . import process_protocol as protocol
from .process_errors import pack_error, unpack_error
from .task import Task

logger: Final = logging.getLogger(__name__)

START_TIMEOUT: Final = 120.0
"""Seconds from the start of a process until its handler begins. Meanwhile it imports the handler's modules."""
END_TIMEOUT: Final = 1.0
"""Seconds that a process gets to end by itself."""
KILL_TIMEOUT: Final = 5.0
"""Seconds to wait until a killed process is gone."""

# Replaces `sys.path` before it imports fairactor; exits if the runtime has died meanwhile.
_PROGRAM: Final = (
    'import sys; sys.path[:] = eval(open({0}, "rb", 0, closefd=False).readline() or sys.exit()); '
    "from fairactor._actors.process_main import main; main({0}, {1}, {2})"
)


_lifelines: Final[set[int]] = set()
"""The file descriptors that keep processes alive while they are open."""


def _close_lifelines() -> None:
    """Closes them in a process that was forked from the runtime's, since it may outlive the runtime."""
    for lifeline in _lifelines:
        os.close(lifeline)
    _lifelines.clear()


os.register_at_fork(after_in_child=_close_lifelines)


class EndedIdle(Exception):
    """A process had ended before it got its call."""


class WorkerProcess(asyncio.Protocol):
    """One worker process.

    Args:
        forget: called when it has ended.
    """

    def __init__(self, forget: Callable[[WorkerProcess], None]) -> None:
        self._forget = forget
        self._popen: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._lifeline = -1
        self._frames = protocol.Frames()
        self._received: deque[tuple[bytes, bytes]] = deque()
        self._wakeup = Wakeup()
        self._running = False
        self._used = False
        self._begun = False
        self._closed = False
        self._dismissed = False
        self._hung_up = False  # whether it has closed its connection, and lived on
        self._reaping = Backoff(first=0.001, longest=0.05)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Is done when the process is gone."""

    # Starting and ending

    async def start(self) -> None:
        """Starts the process, if it does not run.

        Raises:
            OSError: it cannot be started.
        """
        if self._popen is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._spawn(theirs)
                ours.setblocking(False)
                await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
            except BaseException:
                ours.close()
                raise
        data = _setup()
        assert self._transport is not None  # noqa: S101 - set by `connection_made`
        self._transport.write(repr(data["sys_path"]).encode(errors="backslashreplace") + b"\n")
        self._send(protocol.SETUP, pickle.dumps(data))

    def _spawn(self, theirs: socket.socket) -> None:
        watched, self._lifeline = os.pipe()
        _lifelines.add(self._lifeline)
        program = _PROGRAM.format(theirs.fileno(), watched, os.getpid())
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as in multiprocessing
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own program
                [os.fsdecode(spawn.get_executable()), *flags, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), watched),
                start_new_session=True,
            )
        finally:
            os.close(watched)

    async def _wait_for_exit(self) -> None:
        """Waits a little for the end of a process that has closed its connection."""
        pause = Backoff(first=0.001, longest=0.05)
        with anyio.move_on_after(END_TIMEOUT):
            while not self._has_exited():  # noqa: ASYNC110 - nothing else tells of it
                await anyio.sleep(pause.next())
            return
        self._hung_up = True

    def _has_exited(self) -> bool:
        """Whether it has exited; leaves it uncollected, because its number also stands for its process group."""
        if self._popen is None or self._closed:
            return True
        try:
            return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else has collected it
            return True

    async def kill(self) -> None:
        """Kills the process, and what its handler has started in its process group; waits until it is gone."""
        self._kill()
        await asyncio.wait([self.ended], timeout=KILL_TIMEOUT)
        if not self.ended.done():
            logger.error("worker process %s does not end although it was killed", self._popen and self._popen.pid)

    def dismiss(self) -> None:
        """Lets the process end by itself."""
        self._dismissed = True
        if self._transport is not None:
            self._transport.close()

    def _kill(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._popen is not None and self._popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # macOS forbids it if only zombies are left
                os.killpg(self._popen.pid, signal.SIGKILL)
        if self._lifeline >= 0:
            _lifelines.remove(self._lifeline)
            os.close(self._lifeline)
        if self._transport is not None:
            self._transport.abort()
        if not self._dismissed:
            self._reap()

    def _reap(self) -> None:
        """Collects the process, once it has ended."""
        if self._popen is not None and self._popen.poll() is None:
            asyncio.get_running_loop().call_later(self._reaping.next(), self._reap)
        elif not self.ended.done():
            self._kill()  # frees what it holds
            self.ended.set_result(None)
            self._forget(self)

    def end_described(self) -> str:
        """Returns how it ended."""
        status = self._popen.returncode if self._popen is not None else None
        if status is None or self._hung_up:
            return "closed its connection to the runtime"
        if status >= 0:
            return f"exited with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ", perhaps because memory ran out," if -status == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"

    # Calls

    async def run(self, name: str, call: bytes, task: Task) -> tuple[bytes, bytes]:
        """Sends a call; returns the frame with its outcome.

        Raises:
            WorkerProcessDied: the process ended before, or could not start the handler.
        """
        reused, self._used, self._running, self._begun = self._used, True, True, False
        limit = asyncio.timeout(START_TIMEOUT)
        try:
            async with limit:
                self._send(protocol.CALL, call)
                return await self._outcome(name, task, limit)
        except EOFError:
            await self._wait_for_exit()
            await self.kill()
            if reused and not self._begun:
                raise EndedIdle from None
            when = "before the handler returned" if self._begun else "before the handler could start"
            raise WorkerProcessDied(f"{name}(): its process {self.end_described()} {when}") from None
        except TimeoutError:
            if not limit.expired():
                raise
            raise WorkerProcessDied(
                f"{name}(): its process has not imported the handler within {START_TIMEOUT:g} s"
            ) from None
        finally:
            self._running = False
            if self._transport is None:  # it has ended meanwhile
                self._kill()

    async def _outcome(self, name: str, task: Task, limit: asyncio.Timeout) -> tuple[bytes, bytes]:
        while True:
            kind, body = await self._next()
            if kind == protocol.BEGUN:
                self._begun = True
                limit.reschedule(None)
                task.begin()
            elif kind == protocol.LOG:
                process_logs.replay(body)
            elif kind == protocol.PROGRESS:
                await self._report(task, body)
            elif kind == protocol.ERROR and not self._begun:
                raise _not_started(name, unpack_error(body))
            else:
                return kind, body

    async def _report(self, task: Task, body: bytes) -> None:
        number, fraction, note = protocol.decode_progress(body)
        failure = b""
        try:
            await task.progress(fraction, note)
        except Exception as error:  # noqa: BLE001 - the handler gets it
            failure = pack_error(error)
        self._send(protocol.NOTED, protocol.encode((number, failure)))

    async def _next(self) -> tuple[bytes, bytes]:
        while not self._received:
            if self._closed or self._transport is None:
                raise EOFError
            await self._wakeup.wait()
        return self._received.popleft()

    def _send(self, kind: bytes, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(protocol.pack_frame(kind, body))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for kind, body in self._frames.feed(data):
            if kind == protocol.LOG and not self._running:  # from a thread that a handler has left behind
                process_logs.replay(body)
            else:
                self._received.append((kind, body))
        self._wakeup.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`."""
        self._transport = None
        self._wakeup.set()
        if self._dismissed:
            self._reap()
        elif not self._running:
            self._kill()


def _setup() -> dict[str, Any]:
    """Returns what `multiprocessing.spawn.prepare` needs to know in the process.

    `multiprocessing.spawn.get_preparation_data` returns the same, but it also fixes the start method for good.
    """
    main: Any = sys.modules["__main__"]
    start = multiprocessing_process.ORIGINAL_DIR  # type: ignore[attr-defined]  # as in multiprocessing.spawn
    data: dict[str, Any] = {
        "authkey": bytes(multiprocessing_process.current_process().authkey),
        "sys_path": [path or start for path in sys.path if isinstance(path, str)],
        "sys_argv": sys.argv,
        "orig_dir": start,
    }
    with suppress(FileNotFoundError):  # it may have been deleted
        data["dir"] = os.getcwd()  # noqa: PTH109 - as in multiprocessing.spawn
    if method := multiprocessing.get_start_method(allow_none=True):
        data["start_method"] = method
    name, path = getattr(getattr(main, "__spec__", None), "name", None), getattr(main, "__file__", None)
    if path is not None:
        path = os.path.normpath(os.path.join(start, path))  # noqa: PTH118 - likewise
    if name is not None:
        data["init_main_from_name"] = name
    elif path is not None:
        data["init_main_from_path"] = path
    return data | {"main_name": name, "main_path": path}


def _not_started(name: str, error: Exception) -> WorkerProcessDied:
    what = f"{exception_names(error)[0]}: {error}"
    failure = WorkerProcessDied(f"{name}(): its process could not start the handler: {what}")
    for note in getattr(error, "__notes__", ()):
        failure.add_note(note)
    return failure
