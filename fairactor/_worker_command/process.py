"""A process that runs tasks: the program that the supervisor of ``fairactor worker`` starts.

It is connected to the supervisor by a socket. The supervisor sends its options as the first line, then ``stop`` and
``now``. The process says when it is ready and when it wants to be replaced. When the supervisor is gone, the socket
closes, and the process stops gracefully.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from fairactor._server.embedded import allow_private_server
from fairactor.config import load
from fairactor.errors import (
    ConfigurationError,
    EmbeddedServerError,
    FairactorError,
    NamespaceMismatch,
    ServerError,
    ServerUnavailable,
)
from fairactor.runtime import Runtime
from fairactor.settings import Settings

from .adapting import adapt
from .application import NoApplication, find_application
from .limits import Counter, Limits
from .logging_setup import logger, say_failure, set_up_logging
from .options import FAILED, INTERRUPTED, NO_SERVER, STOPPED, UNUSABLE, WorkerOptions

if TYPE_CHECKING:
    from fairactor.prometheus import MetricsServer

_AGAIN: Final = 1.0
"""The seconds after which to look again whether all is drained, if the server did not answer."""

Say = Callable[..., None]


def main(descriptor: int) -> int:
    """Runs the process that has the socket with this descriptor; returns its exit code."""
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        received = b""
        while not received.endswith(b"\n"):  # the supervisor sends nothing else before the process is ready
            if not (some := connection.recv(1 << 16)):
                return STOPPED
            received += some

        def say(**said: Any) -> None:
            with contextlib.suppress(OSError):  # the supervisor has gone
                connection.sendall(json.dumps(said).encode() + b"\n")

        options = WorkerOptions.unpacked(received)
        set_up_logging(options)
        return run_process(options, say, connection)


def run_process(options: WorkerOptions, say: Say, connection: socket.socket | None) -> int:
    """Runs tasks until it is told to stop; returns the exit code.

    Args:
        options: the options.
        say: sends something to the supervisor.
        connection: to the supervisor; None if there is none, so signals tell when to stop.
    """
    counter = Counter()
    try:
        runtime, private = _runtime(options, counter)
        metrics = _serve_metrics(options)
    except NoApplication as error:
        say(fatal=True)
        say_failure(options, str(error), error.trace)
        return UNUSABLE
    except FairactorError as error:
        say(fatal=True)
        say_failure(options, str(error))
        return UNUSABLE

    async def run() -> int:
        return await Process(options, runtime, counter, say, private=private).run(connection)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(run())
    finally:
        if metrics is not None:
            metrics.stop()


def _serve_metrics(options: WorkerOptions) -> MetricsServer | None:
    """Serves the metrics of this process, if that is wanted.

    While processes are replaced there are twice as many, so it tries that many ports.

    Raises:
        ConfigurationError: no port is free, or packages are missing.
    """
    first = options.metrics_port
    if first is None:
        return None
    from fairactor.prometheus import start

    last = first + (0 if first == 0 else 2 * max(1, options.processes) - 1)
    for port in range(first, last + 1):
        try:
            server = start(port)
        except ConfigurationError:
            if port == last:
                raise
        else:
            logger.info("metrics of this process: port %d", server.port)
            return server
    return None


def _runtime(options: WorkerOptions, counter: Counter) -> tuple[Runtime, bool]:
    """Returns the runtime to enter, and whether it keeps its tasks in a private server."""
    found = find_application(options.targets)
    plugins = [counter] if options.max_tasks or options.until_drained else []
    if found.runtime is None:
        config = load(options.config, worker=options.worker, flags=options.settings)
        runtime = Runtime.from_config(config, actors=found.actors, plugins=plugins)
        adapt(runtime, settings={}, name=options.name)
    else:
        runtime = found.runtime
        changes = _changes(options)
        adapt(runtime, settings=changes, name=options.name, actors=found.actors, plugins=plugins)
    if not runtime.settings.workers:
        raise ConfigurationError("the Runtime has workers=0, so it runs no tasks: give --workers")
    settings = runtime.settings
    private = settings.url is None and settings.path is None and not os.environ.get("FAIRACTOR_URL")
    if private:
        if os.environ.get("FAIRACTOR_EMBEDDED"):
            allow_private_server()
        adapt(runtime, settings={"path": options.fallback})
    return runtime, private


def _changes(options: WorkerOptions) -> dict[str, Any]:
    """Returns the settings that replace those of a runtime: what a file says that the command line names, and flags."""
    changes = dict(options.settings)
    if options.config is not None or options.worker is not None:
        config = load(options.config, worker=options.worker, flags=options.settings)
        known = {field.name for field in attrs.fields(Settings)}
        given = known & config.options(config.worker).keys()
        changes = {name: getattr(config.settings, name) for name in given} | changes
    if "url" in changes or "path" in changes:
        changes = {"url": None, "path": None} | changes
    return changes


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Process:
    """Runs a runtime until it is told to stop.

    Args:
        options: the options.
        runtime: a runtime that was not entered.
        counter: counts its tasks.
        say: sends something to the supervisor.
        private: whether it keeps its tasks in a private server.
    """

    def __init__(self, options: WorkerOptions, runtime: Runtime, counter: Counter, say: Say, *, private: bool) -> None:
        self._options = options
        self._runtime = runtime
        self._counter = counter
        self._say = say
        self._private = private
        self._starting = anyio.CancelScope()
        self._ready = False
        self._stopping = anyio.Event()
        self._hurry = anyio.Event()
        self._signal: signal.Signals | None = None

    async def run(self, connection: socket.socket | None) -> int:
        """Enters the runtime, and leaves it when it is told to; returns the exit code."""
        code = FAILED
        async with anyio.create_task_group() as group:
            if connection is None:
                await group.start(self._follow_signals, signal.SIGTERM, signal.SIGINT)
            else:
                await group.start(self._follow_signals, signal.SIGTERM)
                group.start_soon(self._follow_supervisor, connection)
            try:
                with self._starting:
                    code = await self._live()
                if self._starting.cancelled_caught:
                    code = self._code()
            except Exception as error:  # noqa: BLE001 - entering runs code of users and plugins
                code = self._explain(error)
            group.cancel_scope.cancel()
        return code

    async def _live(self) -> int:
        async with self._runtime as runtime:
            self._ready = True
            self._say(ready=self._described(runtime))
            async with anyio.create_task_group() as group:
                limits = Limits(self._options, self._counter, lambda why: self._say(renew=why))
                group.start_soon(limits.watch)
                if self._options.until_drained:
                    group.start_soon(self._end_when_drained, runtime)
                await self._stopping.wait()
                group.cancel_scope.cancel()
            await self._stop(runtime)
        return self._code()

    def _code(self) -> int:
        if self._signal is signal.SIGINT and (not self._ready or self._hurry.is_set()):
            return INTERRUPTED
        return FAILED if self._options.until_drained and self._counter.failures else STOPPED

    async def _stop(self, runtime: Runtime) -> None:
        """Stops the workers: at once if it has to hurry."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_now, group.cancel_scope)
            await runtime.stop(runtime.settings.grace)
            group.cancel_scope.cancel()

    async def _stop_now(self, scope: anyio.CancelScope) -> None:
        await self._hurry.wait()
        scope.cancel()

    def _told(self, *, at_once: bool = False) -> None:
        """Stops gracefully, or at once."""
        self._stopping.set()
        if at_once:
            self._hurry.set()
        if not self._ready:
            self._starting.cancel()

    async def _follow_signals(self, *numbers: signal.Signals, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*numbers) as signals:
            task_status.started()
            async for received in signals:
                again = self._signal is not None
                self._signal = self._signal or signal.Signals(received)
                logger.info("%s: stopping%s", signal.Signals(received).name, " at once" if again else "")
                self._told(at_once=again)

    async def _follow_supervisor(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        while True:
            try:
                said = await asyncio.get_running_loop().sock_recv(connection, 4096)
            except OSError:
                said = b""
            if not said:
                logger.warning("the supervisor of this process has gone: stopping")
                self._told()
                return
            for word in said.split():
                self._told(at_once=word == b"now")

    async def _end_when_drained(self, runtime: Runtime) -> None:
        while True:
            try:
                await runtime.drain()
            except ServerError as error:
                logger.warning("%s; trying again", error)
                await anyio.sleep(_AGAIN)
            else:
                self._say(drained=True)
                self._stopping.set()
                return

    def _described(self, runtime: Runtime) -> dict[str, Any]:
        """Returns what the supervisor says of its processes."""
        engine = runtime._engine  # noqa: SLF001 - the command belongs to the runtime
        assert engine is not None  # noqa: S101 - it was entered
        of_plugins = {getattr(actor, "name", "") for actor in runtime._plugins.actors}  # noqa: SLF001 - likewise
        return {
            "server": engine.shards.server.where,
            "private": self._private,
            "namespace": runtime.settings.namespace,
            "queues": runtime.settings.queues,
            "workers": runtime.settings.workers,
            "actors": sorted(runtime._registry.actors.keys() - of_plugins),  # noqa: SLF001 - likewise
            "grace": runtime.settings.grace,
        }

    def _explain(self, error: Exception) -> int:
        """Says why the runtime could not be entered, or has failed; returns the exit code."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, FairactorError | OSError):
            usual = isinstance(error, ServerUnavailable) or not isinstance(
                error, ConfigurationError | NamespaceMismatch | ServerError | EmbeddedServerError
            )
            if not usual and not self._ready:
                self._say(fatal=True)
            say_failure(self._options, str(error))
            if isinstance(error, ServerError | NamespaceMismatch | EmbeddedServerError):
                return NO_SERVER
            return UNUSABLE if isinstance(error, ConfigurationError) else FAILED
        what = "the runtime has failed" if self._ready else "the runtime could not be started"
        said = traceback.format_exception_only(error)[-1].strip()
        say_failure(self._options, f"{what}: {said}", "".join(traceback.format_exception(error)).rstrip())
        return FAILED
