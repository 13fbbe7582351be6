"""What executors read of a claim: the call, whether it may run, and how its attempt failed."""

from __future__ import annotations

import asyncio
from typing import Final

from fairactor._model import record
from fairactor._util.failures import exception_names, text_of, traceback_of

from .claim import Claim

_CONTAINERS: Final = (list, dict)
_HISTORY_LIMIT: Final = 500  # characters of a message, in the history


def due_of(claim: Claim, header: record.Header) -> float:
    """Returns when the attempt was due, by the monotonic clock of this process."""
    last = record.last_attempt(claim.body)
    return claim.claimed - claim.server_time + record.due_in(header.stamp, [] if last is None else [last])


def has_containers(call: record.Call) -> bool:
    """Whether an argument is a list or a dict, so that plugins may have to load it."""
    for value in call.args:
        if type(value) in _CONTAINERS:
            return True
    return bool(call.kwargs) and any(type(value) in _CONTAINERS for value in call.kwargs.values())


def decode(claim: Claim) -> record.Call:
    """Decodes the record of a claim, and returns its call; raises `record.UNREADABLE`."""
    claim.header, claim.body = record.unpack(claim.record)
    claim.call = record.call_in(claim.body)
    return claim.call


def is_expired(claim: Claim, call: record.Call) -> bool:
    """Whether it is too late for an attempt."""
    options = call.options
    return bool(options) and "expires" in options and claim.age() > options["expires"]


def attempt_of(claim: Claim, header: record.Header, error: BaseException) -> record.Attempt:
    """Describes an attempt that has failed, for the history of the task."""
    message = text_of(error)[:_HISTORY_LIMIT]
    began = claim.server_clock(claim.begun)
    trace = traceback_of(error)[-record.LONGEST_TRACEBACK :]
    return record.Attempt(
        header.attempt, began, claim.seconds, claim.runtime, exception_names(error)[0], message, 0, trace
    )


def explained(error: BaseException) -> BaseException:
    """Gives a message to the cancellation of a handler that fairactor has not canceled."""
    if error.args or not isinstance(error, asyncio.CancelledError):
        return error
    text = "not by fairactor: the handler canceled its own asyncio task, or awaited something that was canceled"
    return asyncio.CancelledError(text).with_traceback(error.__traceback__)
