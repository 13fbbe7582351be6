"""Runs batches: one run of a handler, and an outcome for each of its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import anyio
import attrs

from fairactor._actors.batch import outcomes_of
from fairactor._actors.codec import check_result_size
from fairactor._actors.named import BY_NAME, with_options_of
from fairactor._actors.registry import Handler
from fairactor._actors.retry import UnstorableResult
from fairactor._actors.task import Task, set_current
from fairactor._model import record
from fairactor._model.wire import Settlement, pack_extra
from fairactor.errors import InvalidPayload

from .batch import Batch
from .batch_wrappers import BatchWrappers
from .claim import Claim, Outcomes
from .claimed_calls import decode, explained, has_containers, is_expired
from .executor import Executor

logger: Final = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class _Attempt:
    """An attempt of a batch that is ready to run."""

    claim: Claim
    call: record.Call
    args: Sequence[Any]
    task: Task


@attrs.define(eq=False)
class BatchExecutor(Executor):
    """Runs claims, and batches of them."""

    def execute(self, claim: Claim) -> Coroutine[Any, Any, Settlement | Outcomes]:
        """Runs a claim or a batch; see `Executor.run`."""
        if isinstance(claim, Batch):
            return self._run_batch(claim)
        return self.run(claim) if self.spans is None and self.meters is None else self.run_traced(claim)

    def cancel(self, claim: Claim, reason: str) -> Settlement | Outcomes:
        """Returns the outcome of a claim or a batch that was canceled."""
        if not isinstance(claim, Batch):
            return self.canceled(claim, reason)
        for member in claim.members:
            if member not in claim.outcomes:
                claim.outcomes[member] = self.canceled(member, member.cancel_reason or reason)
        return self._collected(claim)

    async def _run_batch(self, batch: Batch) -> Outcomes:
        batch.begin()
        try:
            await self._run_members(batch)
        except (asyncio.CancelledError, GeneratorExit):
            for member in batch.members if batch.cancel_reason is None else ():
                if member.span is not None:
                    member.span.interrupt()
            for member in batch.members:
                self._note(member, None)
            raise
        except BaseException as error:
            logger.exception("fairactor itself failed with %s", batch.described())
            for member in batch.members:
                if member not in batch.outcomes:
                    batch.outcomes[member] = self._failed(member, error)
        for member in batch.members:
            self._note(member, batch.outcomes[member])
        return self._collected(batch)

    @staticmethod
    def _collected(batch: Batch) -> Outcomes:
        for member in batch.members:
            if member.span is not None:
                member.span.end()
        return batch.collected()

    async def _run_members(self, batch: Batch) -> None:
        handler = self.handlers[batch.actor]
        attempts = []
        for member in batch.members:
            found = await self._prepared(member, handler)
            if isinstance(found, Settlement):
                batch.outcomes[member] = found
            else:
                attempts.append(found)
        if attempts:
            await self._attempt_all(batch, attempts, handler)

    async def _prepared(self, claim: Claim, handler: Handler) -> _Attempt | Settlement:
        """Returns an attempt that is ready, or the outcome of a task that cannot run."""
        try:
            call = decode(claim)
        except record.UNREADABLE as error:
            return self._failed(claim, InvalidPayload(f"the task cannot be decoded: {error}"))
        if self._find(call.route) is not handler:
            return self._cannot_run(claim, call)
        if BY_NAME in call.options:
            call = claim.call = with_options_of(call, handler.actor.options)
        if self.spans is not None:
            self._span_of(claim, self.spans)
        if call.options and self.plugins.loads_arguments and has_containers(call):
            try:
                call = await self._loaded(claim, call)
            except Exception as error:  # noqa: BLE001 - the attempt fails like any other
                return self._tried(claim, call, error)
        try:
            args, _ = handler.actor.codec.arguments_from_json(call.args, call.kwargs)
        except BaseException as error:  # noqa: BLE001 - it builds objects of the user's classes
            return self._refused(claim, error)
        if call.options and is_expired(claim, call):
            return self._expired(claim, call.options["expires"])
        return _Attempt(claim, call, args, self._task(claim))

    async def _attempt_all(self, batch: Batch, attempts: Sequence[_Attempt], handler: Handler) -> None:
        batch.call = attempts[0].call
        tasks = [attempt.task for attempt in attempts]
        whole = self._stand_in(batch, tasks)
        set_current(whole)
        for task, attempt in zip(tasks, attempts, strict=True):
            task.log = whole.log
            task.canceled = attempt.claim.cancel_reason is not None
            self._observers.started(task)
        outcomes: Sequence[Any]
        try:
            outcomes = await self._invoke_all(attempts, handler)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if batch.lost or batch.cancel_reason is not None or self.is_ending():
                raise
            outcomes = [explained(error)] * len(attempts)
        except BaseException as error:  # whatever a handler raises is the outcome, even SystemExit
            if batch.lost:
                raise asyncio.CancelledError from error
            outcomes = [error] * len(attempts)
        finally:
            whole.end()
            for task in tasks:
                task.end()
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            batch.outcomes[attempt.claim] = self._outcome(attempt, outcome, handler)

    def _stand_in(self, batch: Batch, tasks: Sequence[Task]) -> Task:
        """Returns what stands for the tasks of a batch where one is expected, such as in the log."""
        first = tasks[0]
        others = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        return Task(
            id=f"{first.id}{others}",
            tenant=first.tenant,
            actor=first.actor,
            runtime=self.runtime,
            slots=batch.slots or self.slots,
            began=batch.begun,
            members=tasks,
            log=first.log,
        )

    async def _invoke_all(self, attempts: Sequence[_Attempt], handler: Handler) -> Sequence[Any]:
        own = (attempt.task.options.get("timeout", self.settings.timeout) for attempt in attempts)
        timeout = min((each for each in own if each is not None), default=None)
        with self._traced(attempts), anyio.move_on_after(timeout):
            tasks = [attempt.task for attempt in attempts]
            args = {attempt.task: attempt.args for attempt in attempts}
            return await BatchWrappers(tasks, partial(_run_handler, handler, args)).run(self.plugins)
        raise TimeoutError(f"the batch took longer than its timeout of {timeout:g} s")

    def _traced(self, attempts: Sequence[_Attempt]) -> Any:
        if self.spans is None:
            return nullcontext()
        spans = [attempt.claim.span for attempt in attempts if attempt.claim.span is not None]
        return self.spans.running_batch(attempts[0].task.actor, attempts[0].task.tenant, spans)

    def _outcome(self, attempt: _Attempt, outcome: Any, handler: Handler) -> Settlement:
        """Returns the outcome of a task, of the result or the exception that stands for it."""
        claim, call, task = attempt.claim, attempt.call, attempt.task
        if claim.cancel_reason is not None:
            return self.canceled(claim, claim.cancel_reason)
        if isinstance(outcome, UnstorableResult):
            return self._tried(claim, call, outcome.reason, final=True)
        if isinstance(outcome, asyncio.CancelledError):
            return self._tried(claim, call, explained(outcome))
        if isinstance(outcome, BaseException):
            return self._tried(claim, call, outcome)
        try:
            encoded = handler.actor.codec.result_to_json(outcome)
            check_result_size(task.actor, encoded, self.settings.max_payload)
            extra = pack_extra(task.attachments)
        except Exception as error:  # noqa: BLE001 - the value's own code may raise anything
            return self._tried(claim, call, error, final=True)
        self._observers.finished(task, outcome)
        return self._settle(claim, "F", self._ttl(call), encoded, extra=extra)


async def _run_handler(handler: Handler, args: dict[Task, Sequence[Any]], tasks: Sequence[Task]) -> Sequence[Any]:
    """Runs the handler for some of the tasks, with a list for each of its parameters."""
    lists = [list(values) for values in zip(*(args[task] for task in tasks), strict=True)]
    return outcomes_of(handler.actor.name, await handler.invoke(lists, {}), len(tasks))
