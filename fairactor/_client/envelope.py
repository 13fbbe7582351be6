"""The envelope: encodes a message as the item that travels to the server."""

from __future__ import annotations

import os

from fairactor._actors.conversion import check_encodable
from fairactor._actors.message import Message, check_message
from fairactor._actors.named import BY_NAME, NamedActor
from fairactor._actors.options import Options
from fairactor._model import record
from fairactor._model.states import Priority
from fairactor._model.wire import Item, pack_extra, pack_key
from fairactor._util.checks import check_name
from fairactor._util.spans import CreationSpan
from fairactor._util.tracing import carried, carried_by_template
from fairactor.errors import ConfigurationError, NotSerializable, PayloadTooLarge

_ID_BYTES = 12  # 96 random bits: no two tasks of a fleet ever get the same id


def encode_message(
    tenant: str,
    message: Message[object],
    *,
    watch: bool,
    max_payload: int,
    priority: Priority = Priority.NORMAL,
    span: CreationSpan | None = None,
) -> Item:
    """Encodes a message for a tenant's mailbox.

    Args:
        tenant: the owner of the mailbox.
        message: the message.
        watch: whether the sender waits for the outcome.
        max_payload: the longest body, in bytes.
        priority: the priority of a message that has none.
        span: the span that the task refers to. None means the caller's.

    Raises:
        ConfigurationError: the value is not a message, or the tenant's name is invalid.
        NotSerializable: an argument cannot be encoded as JSON.
        PayloadTooLarge: the body is too long.
    """
    check_message(message)
    actor, options = message.actor, message.task_options
    task_id = options.id or os.urandom(_ID_BYTES).hex()
    args, kwargs = actor.codec.arguments_to_json(message.args, message.kwargs)
    trace = carried() if span is None else span.carried(task_id)
    travelling = options.travelling if not isinstance(actor, NamedActor) else {**options.travelling, BY_NAME: True}
    call = record.Call(actor.route(options), args, kwargs, travelling, trace)
    try:
        body = record.encode(call)
        if record.too_deep(body):
            raise RecursionError(f"it has more than {record.DEEPEST} levels")  # noqa: TRY301 - as one that is far deeper
        extra = pack_extra(options.script_options)
    except Exception as error:
        check_encodable(actor.name, actor.codec.named(args, kwargs))  # raises, and names the argument
        raise NotSerializable(f"{actor.name}(): the call has no JSON form: {error}") from error
    if len(body) > max_payload:
        raise _too_large(call, len(body), max_payload)
    urgency = options.priority or priority
    if options.replace:
        _check_replacing(actor.name, options)
    key = (
        b"" if options.key is None else pack_key(options.key, options.key_window or 0.0, replace=bool(options.replace))
    )
    flag = "w" if watch else ""
    return Item(
        task_id,
        check_name("tenant", tenant),
        urgency.value,
        _due(options),
        flag,
        body,
        key,
        extra,
        options.id is not None,
        call.route,
    )


def repeated(item: Item, *, linked: bool = True) -> Item:
    """Returns an item that can be sent many times, with the caller's span as a link, or without any trace."""
    call = record.with_trace(record.decode_call(item.body), carried_by_template() if linked else {})
    return item._replace(body=record.encode(call))


def as_template(item: Item, *, linked: bool) -> Item:
    """Returns an item that can be sent many times: without an id or a due time.

    Args:
        item: the item.
        linked: whether its tasks link to the caller's span.
    """
    return repeated(item, linked=linked)._replace(id="", due="", flag="")


def _check_replacing(actor: str, options: Options) -> None:
    """Raises ConfigurationError if a message with ``replace=True`` could not replace another one."""
    if options.key is None:
        raise ConfigurationError(f"{actor}(): replace=True needs a key=: it replaces the waiting task with that key")
    if options.script_options:
        plugins = ", ".join(sorted(options.script_options))
        raise ConfigurationError(
            f"{actor}(): replace=True cannot be combined with options of {plugins} (such as depends_on=): a task that "
            "waits for others cannot take the place of another one. Leave out replace=True"
        )
    if options.id is not None:
        raise ConfigurationError(
            f"{actor}(): replace=True cannot have an id= or be a step of a graph, because the task that waits keeps "
            "its id: leave out one of the two"
        )


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
