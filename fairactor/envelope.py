"""From a message to what travels to the server."""

from __future__ import annotations

import os
from typing import Any

from . import record, tracing
from .codec import dump
from .errors import ConfigurationError, NotSerializable, PayloadTooLarge
from .message import Message, Options
from .settings import name
from .states import Priority
from .wire import Item, pack_extra, pack_key

_ID_BYTES = 12  # 96 random bits: no two tasks of a fleet ever get the same


def seal(tenant: str, message: Message[Any], *, watch: bool, max_payload: int, sdk: bool) -> Item:
    """A message as it goes into a tenant's mailbox.

    Args:
        tenant: whose mailbox.
        message: the call.
        watch: the sender waits for the outcome.
        max_payload: the longest body, in bytes.
        sdk: whether to make a span.

    Raises:
        ConfigurationError: this is no message, or the tenant's name cannot be.
        NotSerializable: an argument has no JSON form. PayloadTooLarge: the body is too long.
    """
    if not isinstance(message, Message):
        raise ConfigurationError(f"{message!r} is no message: call an actor to make one, as in send(tenant, f(1))")
    actor, how = message.actor, message.how
    task_id = how.id or os.urandom(_ID_BYTES).hex()
    args, kwargs = actor.codec.arguments_to_json(message.args, message.kwargs)
    trace = tracing.outgoing(actor.name, tenant, task_id, sdk=sdk)
    call = record.Call(actor.name, args, kwargs, how.travelling, trace)
    try:
        body = record.encode(call)
    except Exception as error:
        dump(f"{actor.name}() argument ", actor.codec.named(args, kwargs))  # raises, and names the culprit
        raise NotSerializable(f"{actor.name}(): the call has no JSON form: {error}") from error
    if len(body) > max_payload:
        raise PayloadTooLarge(
            f"{actor.name}(): the call takes {len(body)} bytes, the limit is {max_payload} (max_payload=); store the "
            "data elsewhere and send where"
        )
    priority = how.priority or Priority.NORMAL
    key = b"" if how.key is None else pack_key(how.key, how.key_window or 0.0)
    flag, extra = "w" if watch else "", pack_extra(how.for_scripts)
    return Item(task_id, name("tenant", tenant), priority.value, _due(how), flag, body, key, extra)


def _due(how: Options) -> str:
    """When the task is due, as send.lua takes it."""
    if how.delay:
        return f"+{max(1, round(how.delay * 1000))}"
    if how.eta is not None:
        return str(max(0, round(how.eta.timestamp() * 1000)))
    return ""
