"""Plugins that wrap attempts, around a handler that runs for several of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from fairactor._actors.task import Task, set_current
from fairactor._plugin_chain import PluginChain
from fairactor.plugins import ProceedExecute

Run = Callable[[Sequence[Task]], Awaitable[Sequence[Any]]]
"""Runs the handler for some of the tasks; returns the result of each, or an exception."""


class BatchWrappers:
    """Runs a handler once all wrappers have proceeded, those of each task in an asyncio task of their own.

    Args:
        tasks: the tasks.
        run: runs the handler.
    """

    def __init__(self, tasks: Sequence[Task], run: Run) -> None:
        self._tasks: Final = tasks
        self._run: Final = run
        self._chains: dict[Task, asyncio.Task[Any]] = {}
        self._undecided: set[Task] = set()  # whose wrappers have neither proceeded nor ended
        self._decided = asyncio.Event()
        self._proceeding: set[Task] = set()
        self._outcomes: dict[Task, Any] = {}
        self._have_run = asyncio.Event()

    async def run(self, plugins: PluginChain) -> Sequence[Any]:
        """Returns the result of each task, or an exception; raises what the handler raises if no plugin wraps."""
        wrapped: dict[Task, ProceedExecute] = {}
        for task in self._tasks:
            proceed = partial(self._proceed, task)
            around = plugins.wrap_execute(task, proceed) if plugins.wraps_execute(task.options) else proceed
            if around is not proceed:
                wrapped[task] = around
        if not wrapped:
            return await self._run(self._tasks)
        self._undecided.update(wrapped)
        try:
            for task, around in wrapped.items():
                self._start(task, around)
            await self._decided.wait()
            await self._run_those([task for task in self._tasks if task in self._proceeding or task not in wrapped])
            self._have_run.set()
            await asyncio.wait(self._chains.values())
        finally:
            await self._end()
        return [
            _outcome_of(self._chains[task]) if task in self._chains else self._outcomes[task] for task in self._tasks
        ]

    def _start(self, task: Task, around: ProceedExecute) -> None:
        async def chain() -> Any:
            return await around()

        context = copy_context()
        context.run(set_current, task)
        made = self._chains[task] = asyncio.get_running_loop().create_task(chain(), context=context)
        made.add_done_callback(lambda _: self._decide(task))

    def _decide(self, task: Task) -> None:
        self._undecided.discard(task)
        if not self._undecided:
            self._decided.set()

    async def _proceed(self, task: Task) -> Any:
        self._proceeding.add(task)
        self._decide(task)
        await self._have_run.wait()
        outcome = self._outcomes[task]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _run_those(self, tasks: Sequence[Task]) -> None:
        try:
            outcomes = await self._run(tasks) if tasks else []
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises reaches the wrappers
            outcomes = [error] * len(tasks)
        self._outcomes.update(zip(tasks, outcomes, strict=True))

    async def _end(self) -> None:
        """Ends the wrappers, if the batch was canceled."""
        running = [chain for chain in self._chains.values() if not chain.done()]
        for chain in running:
            chain.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _outcome_of(chain: asyncio.Task[Any]) -> Any:
    if chain.cancelled():
        return asyncio.CancelledError()
    error = chain.exception()
    return chain.result() if error is None else error
