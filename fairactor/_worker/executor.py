"""The executor: runs one attempt at a task. It decodes the call, runs the handler, and encodes the outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
import attrs
import msgspec

from fairactor._actors.codec import check_result_size
from fairactor._actors.host import Client
from fairactor._actors.named import BY_NAME, with_options_of
from fairactor._actors.plugin_options import tasks_in
from fairactor._actors.registry import Handler
from fairactor._actors.retry import MOST_UNCOUNTED, Retry, UnstorableResult, delay_before_next, may_retry
from fairactor._actors.task import ChargeLimit, ReportProgress, Slots, Task, set_current
from fairactor._actors.task_log import TaskLog
from fairactor._model import record
from fairactor._model.route import read_route
from fairactor._model.states import Priority
from fairactor._model.wire import Settlement, pack_extra
from fairactor._plugin_chain import Observers, PluginChain
from fairactor._util.checks import DEFAULT_QUEUE
from fairactor._util.failures import exception_name, exception_names, line_of, text_of, traceback_of
from fairactor._util.meters import Meters
from fairactor._util.spans import AttemptSpan, Spans
from fairactor._util.tracing import restore
from fairactor.errors import InvalidPayload, TaskCanceled
from fairactor.settings import Settings

from .claim import Claim, again
from .claimed_calls import attempt_of, decode, due_of, explained, has_containers, is_expired
from .unserved import Unserved

logger: Final = logging.getLogger(__name__)

MOST_REFUSALS: Final = 5
"""How often a task goes on to a process with another version of its actor, because its arguments do not fit."""

_CANCELED: Final = exception_name(TaskCanceled)
_INTERRUPTED: Final = exception_name(asyncio.CancelledError)


@attrs.define(eq=False)
class Executor:
    """Runs claims with the handlers of this process."""

    handlers: dict[str, Handler]
    settings: Settings
    report: ReportProgress
    spans: Spans | None
    """Makes spans; None without an OpenTelemetry SDK."""
    plugins: PluginChain
    runtime: Client
    is_ending: Callable[[], bool]
    """Whether the event loop ends, and so cancels every asyncio task."""
    meters: Meters | None = None
    """Records metrics; None without an OpenTelemetry SDK."""
    slots: Slots | None = None
    charge: ChargeLimit | None = attrs.field(init=False, default=None)
    _observers: Observers = attrs.field(init=False)
    _plain: dict[str, Handler] = attrs.field(init=False)  # for plain routes: the actors of the default queue
    _unserved: Unserved = attrs.field(init=False, factory=Unserved)

    def __attrs_post_init__(self) -> None:
        self._observers = self.plugins.observers
        self._plain = self.handlers if self._serves(DEFAULT_QUEUE) else {}

    async def run_traced(self, claim: Claim) -> Settlement:
        """Runs one attempt, ends its span, and records its metrics."""
        try:
            settlement = await self.run(claim)
        except (asyncio.CancelledError, GeneratorExit):
            if claim.span is not None and claim.cancel_reason is None:  # otherwise `canceled` ends it
                claim.span.interrupt()
            self._note(claim, None)
            raise
        if claim.span is not None:
            claim.span.end()
        self._note(claim, settlement)
        return settlement

    def _note(self, claim: Claim, settlement: Settlement | None) -> None:
        """Records the metrics of an attempt, given its outcome; None if it was interrupted or canceled."""
        meters, header, call = self.meters, claim.header, claim.call
        if meters is None or (settlement is not None and settlement.state == "U"):  # that one never began
            return
        error = claim.error_type
        if settlement is None:
            error = _INTERRUPTED if claim.cancel_reason is None else _CANCELED
        elif settlement.state == "R" and error:
            meters.retried(call.actor if call else "", error)
        waited = claim.server_clock(claim.begun) - header.stamp / 1e6 if header else None
        actor, queue = (call.actor, call.queue) if call else ("", "")
        meters.processed(actor, queue, time.monotonic() - claim.begun, waited, error)

    async def run(self, claim: Claim) -> Settlement:  # noqa: C901, PLR0911 - each a reason for which it cannot run
        """Runs one attempt. Whatever the handler raises becomes the outcome. Only a cancellation by us is raised."""
        try:
            try:
                call = decode(claim)
            except record.UNREADABLE as error:
                return self._failed(claim, InvalidPayload(f"the task cannot be decoded: {error}"))
            handler = self._plain.get(call.route) or self._find(call.route)
            if handler is None:
                return self._cannot_run(claim, call)
            if BY_NAME in call.options:
                call = claim.call = with_options_of(call, handler.actor.options)
            if self.spans is not None:
                self._span_of(claim, self.spans).enter()
            elif call.trace:
                restore(call.trace)
            if call.options and self.plugins.loads_arguments and has_containers(call):
                try:
                    call = await self._loaded(claim, call)
                except Exception as error:  # noqa: BLE001 - the attempt fails like any other
                    return self._tried(claim, call, error)
            try:
                args, kwargs = handler.actor.codec.arguments_from_json(call.args, call.kwargs)
            except BaseException as error:  # noqa: BLE001 - it builds objects of the user's classes
                return self._refused(claim, error)
            if call.options and is_expired(claim, call):
                return self._expired(claim, call.options["expires"])
            return await self._attempt(claim, call, handler, args, kwargs)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            logger.exception("task %s: fairactor itself failed", claim.id)
            return self._failed(claim, error)

    async def _loaded(self, claim: Claim, call: record.Call) -> record.Call:
        """Returns a call with the arguments that plugins have loaded."""
        assert claim.header is not None  # noqa: S101 - set by `run`
        args, kwargs = await self.plugins.load_arguments(
            call.options, call.actor, claim.header.tenant, call.args, call.kwargs
        )
        return (
            call
            if args is call.args and kwargs is call.kwargs
            else msgspec.structs.replace(call, args=args, kwargs=kwargs)
        )

    async def _attempt(
        self, claim: Claim, call: record.Call, handler: Handler, args: list[Any], kwargs: dict[str, Any]
    ) -> Settlement:
        task = self._task(claim)
        set_current(task)
        self._observers.started(task)
        try:
            result = await self._invoke(claim, task, handler, args, kwargs)
            try:
                encoded = handler.actor.codec.result_to_json(result)
                check_result_size(task.actor, encoded, self.settings.max_payload)
                extra = pack_extra(task.attachments)
            except Exception as error:
                raise UnstorableResult(error) from error
        except (asyncio.CancelledError, GeneratorExit) as error:
            if claim.lost or claim.cancel_reason is not None or self.is_ending():
                raise
            return self._tried(claim, call, explained(error))
        except UnstorableResult as refused:
            if claim.lost:
                raise asyncio.CancelledError from refused
            return self._tried(claim, call, refused.reason, final=True)
        except BaseException as error:  # whatever a handler raises is its outcome, even SystemExit
            if claim.lost:
                raise asyncio.CancelledError from error
            return self._tried(claim, call, error)
        finally:
            task.end()
        self._observers.finished(task, result)
        return self._settle(claim, "F", self._ttl(call), encoded, extra=extra)

    def _invoke(
        self, claim: Claim, task: Task, handler: Handler, args: list[Any], kwargs: dict[str, Any]
    ) -> Awaitable[Any]:
        timeout = task.options.get("timeout", self.settings.timeout)
        if timeout is None and not handler.actor.process:
            return self._run_handler(task, handler, args, kwargs)
        return self._run_limited(claim, task, handler, args, kwargs, timeout)

    async def _run_limited(
        self,
        claim: Claim,
        task: Task,
        handler: Handler,
        args: list[Any],
        kwargs: dict[str, Any],
        timeout: float | None,  # noqa: ASYNC109 - it comes from the task's options or the settings
    ) -> Any:
        if handler.actor.process:  # its clock starts when the process does
            limit = anyio.CancelScope()
            task.call_when_begun(partial(_begin, claim, task, limit, timeout))
        else:
            limit = anyio.move_on_after(timeout)
        with limit:
            return await self._run_handler(task, handler, args, kwargs)
        raise TimeoutError(f"the attempt took longer than its timeout of {timeout:g} s")

    def _run_handler(self, task: Task, handler: Handler, args: list[Any], kwargs: dict[str, Any]) -> Awaitable[Any]:
        if not self.plugins.wraps_execute(task.options):
            return handler.invoke(args, kwargs)
        return self.plugins.wrap_execute(task, partial(handler.invoke, args, kwargs))()

    def _task(self, claim: Claim) -> Task:
        """Returns the task of a claim, as far as the claim could be decoded."""
        if claim.task is None:
            header, call = claim.header, claim.call
            claim.task = Task(
                id=claim.id,
                tenant=header.tenant if header else "",
                actor=call.actor if call else "",
                attempt=header.attempt if header else 1,
                priority=_PRIORITIES[header.priority] if header else Priority.NORMAL,
                options=call.options if call else {},
                runtime=self.runtime,
                report=self.report,
                charge=self.charge,
                slots=claim.slots or self.slots,
                due=claim.claimed - claim.server_time + header.stamp / 1e6 if header else None,
                began=claim.begun if claim.begun != claim.claimed else None,
                log=TaskLog.of(self.settings, header.attempt if header else 1) if self.settings.task_logs else None,
            )
            if header is not None and b"\n" in claim.body:  # there were attempts before
                claim.task.due = due_of(claim, header)
        return claim.task

    @staticmethod
    def _span_of(claim: Claim, spans: Spans) -> AttemptSpan:
        """Returns the span of an attempt, which begins with the first call."""
        if claim.span is None:
            header, call = claim.header, claim.call
            claim.span = spans.attempt(
                call.actor if call else "",
                header.tenant if header else "",
                claim.id,
                header.attempt if header else None,
                call.trace if call else {},
                call.queue if call else "",
            )
        return claim.span

    def _expired(self, claim: Claim, expires: float) -> Settlement:
        """Returns the outcome of an expired task: canceled if it was never started, otherwise failed."""
        header = claim.header
        assert header is not None  # noqa: S101 - the task was decoded
        why = f"it expired {expires:g} s after it was sent, before"
        if header.attempt == 1 and not record.uncounted_in(claim.body):
            return self.canceled(claim, f"{why} it could start")
        return self._failed(
            claim, TimeoutError(f"{why} attempt {header.attempt}; see its history for the earlier attempts")
        )

    def canceled(self, claim: Claim, reason: str) -> Settlement:
        """Returns the outcome of a canceled task, which may not have started."""
        if claim.header is None:
            with suppress(*record.UNREADABLE):
                decode(claim)
        if self.spans is not None:
            self._span_of(claim, self.spans).cancel(reason)
            claim.span = None
        claim.error_type = _CANCELED
        self._observers.canceled(self._task(claim), reason)
        return self._settle(claim, "C", self.settings.canceled_ttl, error=record.Error("TaskCanceled", reason))

    def _tried(self, claim: Claim, call: record.Call, error: BaseException, *, final: bool = False) -> Settlement:
        """Returns the outcome of a failed attempt: another attempt if one is left, and it is not the ``final`` one."""
        if claim.cancel_reason is not None:
            return self.canceled(claim, claim.cancel_reason)
        header = claim.header
        assert header is not None  # noqa: S101 - the task was decoded
        claim.keep_log()
        attempt = attempt_of(claim, header, error)
        delay = delay_before_next(error, header.attempt, call.options)
        in_time = not final and claim.age() + delay <= call.options.get("expires", float("inf"))
        if in_time and isinstance(error, Retry) and not error.count:
            uncounted = 1 + record.uncounted_in(claim.body)
            if uncounted <= MOST_UNCOUNTED:
                put_off = msgspec.structs.replace(attempt, uncounted=uncounted, traceback="", delay=delay)
                return self._put_off(claim, call, error, put_off, delay)
        claim.error_type = attempt.error
        self._observers.failed(self._task(claim), error)
        if not in_time or not may_retry(error, header.attempt, call.options, self.settings.max_retries):
            return self._failed(claim, error, attempt)
        message = "task %s (%s): attempt %d failed: %s; retrying in %.3g s"
        logger.info(message, claim.id, call.actor, header.attempt, line_of(error), delay)
        if claim.span is not None:
            claim.span.fail(error)
        self._observers.retried(self._task(claim), error, delay)
        attempt = msgspec.structs.replace(attempt, delay=delay)
        return again(claim, record.pack_retried(header, claim.body, attempt), delay)

    def _put_off(
        self, claim: Claim, call: record.Call, error: BaseException, attempt: record.Attempt, delay: float
    ) -> Settlement:
        """Returns the outcome of an attempt that does not count."""
        assert claim.header is not None  # noqa: S101 - the task was decoded
        message = "task %s (%s): attempt %d does not count: %s; again in %.3g s"
        logger.info(message, claim.id, call.actor, attempt.attempt, line_of(error), delay)
        if claim.span is not None:
            claim.span.put_off(delay)
        self._observers.retried(self._task(claim), error, delay)
        return again(claim, record.pack_retried(claim.header, claim.body, attempt), delay)

    def _find(self, packed: str) -> Handler | None:
        """Returns the handler for a route; None if its tasks cannot run here."""
        route = read_route(packed)
        handler = self.handlers.get(route.actor)
        if handler is None or not self._serves(route.queue):
            return None
        return handler if handler.actor.version >= route.version else None

    def _serves(self, queue: str) -> bool:
        return self.settings.queues is None or queue in self.settings.queues

    def _cannot_run(self, claim: Claim, call: record.Call) -> Settlement:
        """Returns the outcome of a task that cannot run here. Scripts let others claim it from then on."""
        if is_expired(claim, call):
            return self._expired(claim, call.options["expires"])
        self._unserved.note(read_route(call.route))
        return claim.for_others()

    def _refused(self, claim: Claim, error: BaseException) -> Settlement:
        """Returns the outcome of a task whose arguments do not fit; other processes may have a handler that they do."""
        assert claim.header is not None  # noqa: S101 - the task was decoded
        if record.refusals_in(claim.header, claim.body) >= MOST_REFUSALS:
            return self._failed(claim, error)
        logger.info("task %s does not fit the handler here: %s", claim.id, line_of(error))
        claim.tell_dead = partial(self._tell_dead, claim, error)
        return self._dead_letter(claim, error, state="V")

    def _failed(self, claim: Claim, error: BaseException, attempt: record.Attempt | None = None) -> Settlement:
        self._tell_dead(claim, error)
        return self._dead_letter(claim, error, attempt)

    def _tell_dead(self, claim: Claim, error: BaseException) -> None:
        logger.warning("task %s (%s) failed: %s", claim.id, claim.call.actor if claim.call else "?", line_of(error))
        if self.meters is not None:
            self.meters.failed(claim.call.actor if claim.call else "", exception_names(error)[0])
        self._observers.dead(self._task(claim), error)

    def _dead_letter(
        self, claim: Claim, error: BaseException, attempt: record.Attempt | None = None, *, state: str = "X"
    ) -> Settlement:
        if self.spans is not None:
            self._span_of(claim, self.spans).fail(error)
        failure = record.Error(exception_names(error)[0], text_of(error), traceback_of(error))
        claim.error_type = failure.type
        return self._settle(claim, state, self.settings.failed_ttl, error=failure, attempt=attempt)

    def _ttl(self, call: record.Call) -> float:
        ttl: float = call.options.get("result_ttl", self.settings.result_ttl)
        return ttl

    def _settle(
        self,
        claim: Claim,
        state: str,
        ttl: float,
        result: bytes = b"null",
        error: record.Error | None = None,
        attempt: record.Attempt | None = None,
        extra: bytes = b"",
    ) -> Settlement:
        header, call, task = claim.header, claim.call, claim.task
        claim.keep_log()
        actor = task.actor if task is not None else call.actor if call else ""
        began, ended = claim.server_clock(claim.begun), claim.server_clock(time.monotonic())
        after = tasks_in(call.options, record.MOST_AFTER) if state == "F" and call and call.options else ()
        outcome = record.Outcome(actor, msgspec.Raw(result), error, began, ended, after)
        body = record.without_call(claim.body) if state == "F" else claim.body
        ms = max(1, round(ttl * 1000)) if ttl > 0 else 0
        packed = record.pack_settled(
            "X" if state == "V" else state, header.rest if header else record.NO_HEADER, outcome, body, attempt
        )
        return Settlement(claim.id, claim.turn, state, ms, packed, claim.seconds, extra, claim.kind)


def _begin(claim: Claim, task: Task, limit: anyio.CancelScope, timeout: float | None) -> None:
    """Starts the clock of an attempt again, because its handler starts only now."""
    claim.begun = task.began = time.monotonic()
    if timeout is not None:
        limit.deadline = anyio.current_time() + timeout


_PRIORITIES: Final = {priority.value: priority for priority in Priority}
