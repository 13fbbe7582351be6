"""The envelope: encodes a message as the item that travels to the server."""

from __future__ import annotations

import os

from fairactor._actors.conversion import encode_json
from fairactor._actors.message import Message, check_message
from fairactor._actors.options import Options
from fairactor._model import record
from fairactor._model.states import Priority
from fairactor._model.wire import Item, pack_extra, pack_key
from fairactor._util import tracing
from fairactor._util.checks import check_name
from fairactor.errors import NotSerializable, PayloadTooLarge

_NORMAL = Priority.NORMAL.value
_ID_BYTES = 12  # 96 random bits: no two tasks of a fleet ever get the same id


def encode_message(tenant: str, message: Message[object], *, watch: bool, max_payload: int, sdk: bool) -> Item:
    """Encodes a message for a tenant's mailbox.

    Args:
        tenant: the owner of the mailbox.
        message: the message.
        watch: whether the sender waits for the outcome.
        max_payload: the longest body, in bytes.
        sdk: whether to make a span, because an OpenTelemetry SDK is installed.

    Raises:
        ConfigurationError: the value is not a message, or the tenant's name is invalid.
        NotSerializable: an argument cannot be encoded as JSON.
        PayloadTooLarge: the body is too long.
    """
    check_message(message)
    actor, options = message.actor, message.task_options
    task_id = options.id or os.urandom(_ID_BYTES).hex()
    args, kwargs = actor.codec.arguments_to_json(message.args, message.kwargs)
    trace = tracing.outgoing(actor.name, tenant, task_id, sdk=sdk)
    call = record.Call(actor.name, args, kwargs, options.travelling, trace)
    try:
        body = record.encode(call)
        if record.too_deep(body):
            raise RecursionError(f"it has more than {record.DEEPEST} levels")  # noqa: TRY301 - as one that is far deeper
        extra = pack_extra(options.script_options)
    except Exception as error:
        encode_json(f"{actor.name}() argument ", actor.codec.named(args, kwargs))  # raises, and names the argument
        raise NotSerializable(f"{actor.name}(): the call has no JSON form: {error}") from error
    if len(body) > max_payload:
        raise _too_large(call, len(body), max_payload)
    priority = options.priority.value if options.priority else _NORMAL
    key = b"" if options.key is None else pack_key(options.key, options.key_window or 0.0)
    flag = "w" if watch else ""
    return Item(task_id, check_name("tenant", tenant), priority, _due(options), flag, body, key, extra)


def as_template(item: Item) -> Item:
    """Returns an item that can be sent many times: without an id, a due time or a trace context."""
    call = record.without_trace(record.decode_call(item.body))
    return item._replace(id="", due="", flag="", body=record.encode(call))


def _too_large(call: record.Call, size: int, limit: int) -> PayloadTooLarge:
    sizes = {option: len(record.encode(value)) for option, value in call.options.items()}
    largest = max(sizes, key=sizes.__getitem__, default="")
    advice = "store the data elsewhere and send a reference to it"
    if sizes.get(largest, 0) > size / 2:
        advice = f"its option {largest}= takes most of them: give that fewer values, or raise max_payload="
    return PayloadTooLarge(
        f"{call.actor}(): the call takes {size} bytes, the limit is {limit} (max_payload=); {advice}"
    )


def _due(options: Options) -> str:
    """Returns when the task is due, in the form that send.lua reads."""
    if options.delay:
        return f"+{max(1, round(options.delay * 1000))}"
    if options.eta is not None:
        return str(max(0, round(options.eta.timestamp() * 1000)))
    return ""
