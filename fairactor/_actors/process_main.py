"""The program of a worker process: runs the calls that its runtime sends, one after the other, in the main thread.

It starts no thread and no event loop of its own, so handlers may fork, use signals and start other programs. It leads a
session, so a Ctrl-C in the terminal reaches only the runtime, which decides. When the runtime ends, however that
happens, the kernel closes the runtime's end of a pipe, and then kills this process and all that its handler has started
in its process group.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of all signals that are blocked, with each call
import asyncio
import contextvars
import multiprocessing.process
import os
import pickle
import runpy
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import spawn
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from anyio._core._eventloop import claim_worker_thread, threadlocals

from fairactor._model.states import Priority
from fairactor._server.keeper import die_with
from fairactor.errors import ConfigurationError, RuntimeNotRunning

from . import process_logs
from . import process_protocol as protocol
from .codec import check_result_size
from .process_errors import pack_error, unpack_error
from .process_protocol import Call
from .retry import UnstorableResult
from .task import Task, enter_task

if TYPE_CHECKING:
    from anyio.abc import AsyncBackend


ALL_SIGNALS: Final = signal.valid_signals()
_CHANGEABLE: Final = [
    number
    for number in signal.Signals
    if number not in {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores the last two
]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds back all signals, since what a handler does about one may raise anything, or log."""
    before = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        yield
    finally:
        _signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Connection:
    """The connection to the runtime. A process that a handler has forked has none."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._frames = protocol.Frames()
        self._received: deque[tuple[bytes, bytes]] = deque()
        self._sending = threading.Lock()
        self.forked = False
        os.register_at_fork(after_in_child=self._close_in_fork)

    def _close_in_fork(self) -> None:
        self.forked = True
        self._socket.close()  # otherwise the runtime would not notice the end of this process

    def send(self, kind: bytes, body: bytes) -> None:
        if self.forked:
            raise RuntimeNotRunning("a process that a handler has forked cannot report to the runtime")
        with _uninterrupted(), self._sending:
            self._socket.sendall(protocol.pack_frame(kind, body))

    def receive(self) -> tuple[bytes, bytes] | None:
        """Waits for the next frame; returns None if the runtime has closed the connection."""
        while not self._received:
            self._socket.recv(1, socket.MSG_PEEK)  # a signal may interrupt this, and nothing is lost
            with _uninterrupted():
                piece = self._socket.recv(1 << 16)
                self._received.extend(self._frames.feed(piece))
            if not piece:
                return None
        return self._received.popleft()


class _Worker:
    """Runs calls."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._logs = process_logs.Forwarder(connection.send)
        self._asking = threading.Lock()
        self._asked = 0
        self._main: _Main
        self._running = False

    def run(self) -> None:
        """Sets the process up, then runs calls until the runtime closes the connection."""
        self._logs.take_over()
        try:
            while (frame := self._connection.receive()) is not None and self._obey(*frame):
                pass
        except OSError:  # the runtime is gone
            return

    def _obey(self, kind: bytes, body: bytes) -> bool:
        """Does what a frame says; returns whether the process can go on."""
        if kind == protocol.NOTED:  # nobody waits for it any more
            return True
        try:
            with _released_signals():
                if kind == protocol.SETUP:
                    self._main = _Main(pickle.loads(body))  # noqa: S301 - from the runtime
                    self._logs.take_over()
                    return True
                call = protocol.decode_call(body)
                function = self._prepare(call)
        except BaseException as error:  # noqa: BLE001 - the modules that it imports may raise anything
            self._connection.send(protocol.ERROR, pack_error(error))
            return False
        self._connection.send(protocol.BEGUN, b"")
        answer = self._answer(call, function)
        _flush()
        self._connection.send(*answer)
        return True

    def _prepare(self, call: Call) -> Callable[[Task], bytes]:
        """Imports the handler and decodes its arguments; returns the function that runs it."""
        known = call.module in sys.modules
        if call.module == "__main__":
            self._main.load()
        actor: Any = __import__(call.module, fromlist=["_"])
        for part in call.qualname.split("."):
            actor = getattr(actor, part)
        if not getattr(actor, "process", False):
            raise ConfigurationError(
                f"{call.module}.{call.qualname} is not an actor there, so it cannot run in a worker process: decorate "
                "it where it is defined"
            )
        if not known:
            self._logs.take_over()
        process_logs.set_levels(call.levels)
        args, kwargs = actor.codec.arguments_from_json(*msgspec.json.decode(call.arguments))
        restore = _restore_trace(call)

        def function(task: Task) -> bytes:
            restore()
            with enter_task(task):
                result = actor.function(*args, **kwargs)
            try:
                value: bytes = actor.codec.result_to_json(result)
                check_result_size(call.actor, value, call.max_result)
                attachments = msgspec.to_builtins(task.attachments, str_keys=True)
            except Exception as error:
                raise UnstorableResult(error) from error
            return protocol.encode(protocol.Result(value, attachments))

        return function

    def _answer(self, call: Call, function: Callable[[Task], bytes]) -> tuple[bytes, bytes]:
        """Runs a handler; returns the frame that says how it ended, whatever it raises."""
        task = Task(
            id=call.id,
            tenant=call.tenant,
            actor=call.actor,
            attempt=call.attempt,
            priority=Priority(call.priority),
            options=call.options,
            report=self._report,
            began=time.monotonic(),
        )
        self._logs.task_id = call.id
        self._running = True
        try:
            with _released_signals(), _Here():
                answer = protocol.RESULT, contextvars.Context().run(function, task)
        except UnstorableResult as refused:
            answer = protocol.REFUSED, pack_error(refused.reason)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            if self._connection.forked:
                _end_fork(error)
            answer = protocol.ERROR, pack_error(error)
        if self._connection.forked:
            _end_fork(None)
        with self._asking:
            self._running = False
        self._logs.task_id = ""
        return answer

    async def _report(self, _: Task, fraction: float, note: str) -> None:
        """Reports progress through the runtime, and waits until that is done."""
        with self._asking:
            if not self._running:
                return
            self._asked += 1
            self._connection.send(protocol.PROGRESS, protocol.encode((self._asked, fraction, note)))
            number, error = -1, b""
            while number != self._asked:  # otherwise a signal has interrupted an earlier wait
                frame = self._connection.receive()
                if frame is None:
                    return
                number, error = protocol.decode_noted(frame[1])
        if error:
            raise unpack_error(error, "In the runtime")


def _restore_trace(call: Call) -> Callable[[], None]:
    """Returns what restores the OpenTelemetry context of a call."""
    if not call.trace:
        return lambda: None
    from fairactor._util.tracing import restore  # slow to import

    return partial(restore, call.trace)


class _Here:
    """Lets `anyio.from_thread` work in a handler: it runs async functions in this thread."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._claim = claim_worker_thread(cast("type[AsyncBackend]", self), None)

    def __enter__(self) -> None:
        self._claim.__enter__()
        threadlocals.current_cancel_scope = None

    def __exit__(self, *raised: object) -> None:
        del threadlocals.current_cancel_scope
        self._claim.__exit__(None, None, None)
        if self._runner is not None:
            self._runner.close()

    def run_async_from_thread(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...], **_: object
    ) -> Any:
        """Runs an async function to its end."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(function(*args), context=contextvars.copy_context())

    def run_sync_from_thread(self, function: Callable[..., Any], args: tuple[Any, ...], **_: object) -> Any:
        """Calls a function."""
        return function(*args)

    def check_cancelled(self) -> None:
        """Does nothing: a canceled process is killed."""


def _end_fork(error: BaseException | None) -> None:
    """Ends a process that the handler has forked, and that has left the handler as well."""
    code = error.code if isinstance(error, SystemExit) else error and 1
    _flush()
    os._exit(code if isinstance(code, int) else 1 if code else 0)


class _Main:
    """The main module of the runtime, which is imported as ``__mp_main__``, as `multiprocessing` does.

    `multiprocessing` leaves out each module that is called ``__main__``, since few have a guard. It is loaded here if
    an actor is in it.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._name = data["main_name"]
        self._path = data["main_path"]
        with _setting_up():
            spawn.prepare(data)

    def load(self) -> None:
        """Loads the module, if that was not done."""
        if sys.modules["__main__"].__name__ == "__mp_main__" or self._path is None:
            return
        main = ModuleType("__mp_main__")
        with _setting_up():
            if "." in (self._name or ""):
                content = runpy.run_module(self._name, run_name="__mp_main__", alter_sys=True)
            else:  # of a folder or an archive
                content = runpy.run_path(self._path, run_name="__mp_main__")
        main.__dict__.update(content)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main


@contextmanager
def _setting_up() -> Iterator[None]:
    """Makes `multiprocessing` and runtimes refuse to start anything, because the main module may have no guard."""
    me: Any = multiprocessing.process.current_process()
    me._inheriting = True  # noqa: SLF001 - as `multiprocessing` does
    try:
        yield
    finally:
        del me._inheriting  # noqa: SLF001 - as above


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be closed, or the handler's own
            stream.flush()


@contextmanager
def _released_signals() -> Iterator[None]:
    """Gives all signals their default handlers, drops those that came meanwhile, and lets them through in the block.

    Outside of such blocks they are held back: a late one must not hit the next handler.
    """
    try:
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        came = signal.sigpending()
        for number in _CHANGEABLE:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            if number in came or signal.getsignal(number) is not usual:
                signal.signal(number, signal.SIG_IGN)
                signal.signal(number, usual)
        _signal.pthread_sigmask(signal.SIG_SETMASK, ())
        yield
    finally:
        _signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)


def _die_at_end_of(lifeline: int, runtime: int) -> None:
    """Makes the kernel kill this process group when the other end of a pipe is closed.

    On systems that cannot do that, a thread does it, and Linux kills at least this process.
    """
    os.set_inheritable(lifeline, False)
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                os.read(lifeline, 1)
                os._exit(1)  # it was closed before
            return

    die_with(runtime)  # not above: it would come first, and leave what the handler has started

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="fairactor lifeline", daemon=True).start()


def main(connection: int, lifeline: int, runtime: int) -> None:
    """Runs the process.

    Args:
        connection: the file descriptor of the socket to the runtime.
        lifeline: that of a pipe whose other end the runtime keeps open.
        runtime: the process id of the runtime.
    """
    _signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    _die_at_end_of(lifeline, runtime)
    with suppress(Exception):  # it may be closed
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what stands there is what Python opened
    _Worker(_Connection(connection)).run()
