"""Worker processes, from the side of the runtime: starts them, sends them calls, and kills them."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing import process as multiprocessing_process
from typing import Any, Final, Protocol

import anyio

from fairactor.errors import WorkerProcessDied
from fairactor.settings import available_processors

from . import process_logs
from . import process_protocol as protocol
from .codec import Codec
from .process_errors import unpack_error
from .retry import UnstorableResult
from .task import Task, running_task
from .worker_process import END_TIMEOUT, EndedIdle, WorkerProcess

logger: Final = logging.getLogger(__name__)


class _Function(Protocol):
    """The part of an actor that is needed to run its function in a worker process."""

    name: str
    codec: Codec
    __module__: str
    __qualname__: str


class ProcessPool:
    """Runs handlers in worker processes, which start when they are needed and are used again.

    Args:
        size: the most processes.
        max_result: the longest encoded result, in bytes.
    """

    def __init__(self, size: int, *, max_result: float = math.inf) -> None:
        self._slots = asyncio.Semaphore(size)
        self._max_result = max_result
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()

    async def run(self, actor: _Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Runs a handler in a process, which imports it by name. If the caller is canceled, the process is killed.

        Raises:
            WorkerProcessDied: the process could not start, or ended before the handler returned.
            RemoteError: the handler raised what cannot be carried from one process to another.
            UnstorableResult: the handler returned what cannot be stored.
            Exception: the handler raised it.
        """
        task = running_task() or Task(id="local", tenant="local", actor=actor.name)
        call = protocol.encode(_call(actor, task, args, kwargs, self._max_result))
        async with self._slots:
            kind, body = await self._run(actor.name, call, task)
        if kind == protocol.ERROR:
            raise unpack_error(body)
        if kind == protocol.REFUSED:
            raise UnstorableResult(unpack_error(body))
        result = protocol.decode_result(body)
        for plugin, data in (result.attachments or {}).items():
            task.attach(plugin, data)
        return actor.codec.result_from_json(result.value)

    async def _run(self, name: str, call: bytes, task: Task) -> tuple[bytes, bytes]:
        while self._idle:
            with suppress(EndedIdle):  # it has ended just now
                async with self._process() as process:
                    return await process.run(name, call, task)
        async with self._process() as process:
            return await process.run(name, call, task)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[WorkerProcess]:
        """Yields an idle or a new process; kills it if the block raises."""
        process = self._idle.pop() if self._idle else WorkerProcess(self._forget)
        self._all.add(process)
        try:
            try:
                await process.start()
            except OSError as error:
                raise WorkerProcessDied(f"a worker process cannot be started: {error}") from error
            yield process
        except BaseException:
            with anyio.CancelScope(shield=True):
                await process.kill()
            raise
        if process in self._all:
            self._idle.append(process)

    def _forget(self, process: WorkerProcess) -> None:
        """Forgets a process that has ended."""
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
            logger.warning("an idle worker process %s", process.end_described())

    async def close(self) -> None:
        """Ends all processes."""
        for process in self._idle:
            process.dismiss()
        idle, self._idle = self._idle, []
        if idle:
            await asyncio.wait([process.ended for process in idle], timeout=END_TIMEOUT)
        for process in list(self._all):
            await process.kill()


def _call(
    actor: _Function, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], max_result: float
) -> protocol.Call:
    from fairactor._util.tracing import carried  # slow to import

    from .conversion import encode_plain  # likewise

    arguments = encode_plain(f"{actor.name}() arguments", actor.codec.arguments_to_json(args, kwargs))
    facts = (task.id, task.tenant, task.actor, task.attempt, int(task.priority), dict(task.options))
    levels = process_logs.levels()
    return protocol.Call(actor.__module__, actor.__qualname__, arguments, max_result, levels, *facts, carried())


def refuse_in_set_up() -> None:
    """Refuses to start a runtime in a process that is only importing the main module.

    Raises:
        RuntimeError: it does.
    """
    if getattr(multiprocessing_process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "the main module starts a Runtime when a worker process imports it: start it only under "
            "if __name__ == '__main__'"
        )


_local: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[ProcessPool, list[None]]]] = (
    weakref.WeakKeyDictionary()
)
"""For each event loop the pool of handlers that are awaited directly, and an entry for each that runs."""


async def run_in_own_process(actor: _Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs a handler in a process without a runtime. The processes end when no such handler runs any more."""
    loop = asyncio.get_running_loop()
    pool, users = _local.setdefault(loop, (ProcessPool(available_processors()), []))
    users.append(None)
    try:
        return await pool.run(actor, args, kwargs)
    except UnstorableResult as refused:
        raise refused.reason from None
    finally:
        users.pop()
        if not users:
            del _local[loop]
            with anyio.CancelScope(shield=True):
                await pool.close()
