"""One attempt at one task: decode it, run its handler, and say how it ended."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

import anyio
import attrs
import msgspec

from . import record, tracing
from .context import ReportProgress, Task, set_current
from .errors import InvalidPayload, PayloadTooLarge, UnknownActor
from .registry import Handler
from .retry import Retry
from .settings import Settings
from .shard import Settlement
from .states import Priority
from .worker import Claim, Pool

logger: Final = logging.getLogger(__name__)

BACKOFF: Final = 1.0
"""Seconds before the second attempt, at most; doubled for each one after it."""
BACKOFF_CAP: Final = 300.0
"""Seconds that no back-off exceeds."""
ELSEWHERE_DELAY: Final = 1.0
"""Seconds after which a task whose actor another runtime has is offered again."""

_MESSAGE_LIMIT: Final = 10_000  # characters
_TRACEBACK_LIMIT: Final = 20_000  # characters, from the end

IsKnownElsewhere = Callable[[str], Awaitable[bool]]


@attrs.define(eq=False)
class Executor:
    """Runs claims with the handlers of this process."""

    handlers: dict[str, Handler]
    settings: Settings
    is_known_elsewhere: IsKnownElsewhere
    report: ReportProgress
    tracing: bool
    pool: Pool | None = None

    async def run(self, claim: Claim) -> Settlement:
        """Runs one attempt. Whatever the handler raises becomes the outcome; a cancellation passes through."""
        try:
            return await self._run(claim)
        except Exception as error:
            logger.exception("task %s: fairactor itself failed", claim.id)
            return self._failed(claim, error)

    async def _run(self, claim: Claim) -> Settlement:
        try:
            call = _decode(claim)
        except (ValueError, msgspec.MsgspecError) as error:
            return self._failed(claim, InvalidPayload(f"the task cannot be decoded: {error}"))
        handler = self.handlers.get(call.actor)
        if handler is None:
            return await self._unknown(claim, call)
        try:
            args, kwargs = handler.actor.codec.arguments_from_json(call.args, call.kwargs)
        except InvalidPayload as error:
            return self._failed(claim, error)
        options = call.options
        if options and "expires" in options and claim.age() > options["expires"]:
            return self.canceled(claim, f"it expired {options['expires']:g} s after it was sent, before it could start")
        return await self._attempt(claim, call, handler, args, kwargs)

    async def _attempt(
        self, claim: Claim, call: record.Call, handler: Handler, args: list[Any], kwargs: dict[str, Any]
    ) -> Settlement:
        header = claim.header
        assert header is not None  # noqa: S101 - set by `run`
        task = Task(
            claim.id, header.tenant, call.actor, call.attempt, _PRIORITIES[header.priority], self.report, self.pool
        )
        set_current(task)
        context = copy_context()
        try:
            if self.tracing:
                with tracing.processing(call.actor, header.tenant, claim.id, call.trace):
                    result = await _invoke(call, handler, args, kwargs)
            else:
                result = await _invoke(call, handler, args, kwargs)
            encoded = handler.actor.codec.result_to_json(result)
            if len(encoded) > self.settings.max_payload:
                raise PayloadTooLarge(  # noqa: TRY301 - a failure of the attempt like any other
                    f"{call.actor}() result: {len(encoded)} bytes, the limit is {self.settings.max_payload} "
                    "(max_payload=); store it elsewhere and return where"
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            return self._tried(claim, call, error)
        except asyncio.CancelledError as error:
            if (worker := asyncio.current_task()) and worker.cancelling():
                raise
            return self._tried(claim, call, error)  # of something that the handler awaited, not of the handler
        finally:
            task.end()
            claim.stained = copy_context() != context
        return self._settle(claim, "F", self._ttl(call), encoded)

    def canceled(self, claim: Claim, reason: str) -> Settlement:
        """The outcome of a task that was canceled, perhaps before it started."""
        if claim.header is None:
            with suppress(ValueError, msgspec.MsgspecError):
                _decode(claim)
        error = record.Error("TaskCanceled", reason)
        return self._settle(claim, "C", self._ttl(claim.call), error=error)

    def _tried(self, claim: Claim, call: record.Call, error: BaseException) -> Settlement:
        """The outcome of a failed attempt: another one, if any is left."""
        if claim.cancel_reason is not None:
            return self.canceled(claim, claim.cancel_reason)
        if call.attempt > call.options.get("max_retries", 0):
            return self._failed(claim, error)
        delay = error.delay if isinstance(error, Retry) else None
        if delay is None:
            delay = random.uniform(0, min(BACKOFF_CAP, BACKOFF * 2 ** (call.attempt - 1)))  # noqa: S311 - jitter
        logger.info(
            "task %s (%s): attempt %d failed: %r; again in %.3g s", claim.id, call.actor, call.attempt, error, delay
        )
        return _again(claim, msgspec.structs.replace(call, attempt=call.attempt + 1), delay)

    async def _unknown(self, claim: Claim, call: record.Call) -> Settlement:
        """An actor that is not registered here: another runtime may have it, as during a deployment."""
        if await self.is_known_elsewhere(call.actor):
            return _again(claim, call, ELSEWHERE_DELAY)
        return self._failed(claim, UnknownActor(f"no running process has registered an actor {call.actor!r}"))

    def _failed(self, claim: Claim, error: BaseException) -> Settlement:
        text = _plain("".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:])
        logger.warning("task %s (%s) failed: %r", claim.id, claim.call.actor if claim.call else "?", error)
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return self._settle(claim, "X", self.settings.failed_ttl, error=record.Error(name, _text(error), text))

    def _ttl(self, call: record.Call | None) -> float:
        ttl: float = call.options.get("result_ttl", self.settings.result_ttl) if call else self.settings.result_ttl
        return ttl

    def _settle(
        self, claim: Claim, state: str, ttl: float, result: bytes = b"null", error: record.Error | None = None
    ) -> Settlement:
        header, call = claim.header, claim.call
        elapsed = time.monotonic() - claim.claimed
        outcome = record.Outcome(
            call.actor if call else "",
            msgspec.Raw(result),
            error,
            call.attempt if call else 1,
            claim.server_time + claim.begun - claim.claimed,
            claim.server_time + elapsed,
        )
        ms = max(1, round(ttl * 1000)) if ttl > 0 else 0
        packed = state.encode() + (header.rest if header else record.NO_HEADER) + record.encode(outcome)
        return Settlement(claim.id, claim.turn, f"{state}{ms}", packed)


def _decode(claim: Claim) -> record.Call:
    claim.header, body = record.unpack(claim.record)
    claim.call = record.decode_call(body)
    return claim.call


async def _invoke(call: record.Call, handler: Handler, args: list[Any], kwargs: dict[str, Any]) -> Any:
    timeout = call.options.get("timeout")
    if timeout is None:
        return await handler.invoke(args, kwargs)
    with anyio.move_on_after(timeout):
        return await handler.invoke(args, kwargs)
    raise TimeoutError(f"the attempt took longer than its timeout of {timeout:g} s")


def _again(claim: Claim, call: record.Call, delay: float) -> Settlement:
    assert claim.header is not None  # noqa: S101 - a task that was decoded
    return Settlement(claim.id, claim.turn, f"R{round(delay * 1000)}", record.pack(claim.header, record.encode(call)))


def _text(error: BaseException) -> str:
    try:
        return _plain(str(error)[:_MESSAGE_LIMIT])
    except Exception as broken:  # noqa: BLE001 - an exception's own __str__ may be broken
        return f"(its message cannot be read: {broken!r})"


def _plain(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode(errors="backslashreplace").decode()


_PRIORITIES: Final = {priority.value: priority for priority in Priority}
