"""Templates: messages and graphs that scripts send many times."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from fairactor._actors.graph import Graph
from fairactor._actors.host import Host, PackedGraph
from fairactor._actors.message import Message
from fairactor._actors.plugin_options import tasks_named_by
from fairactor._model.wire import pack_item
from fairactor.errors import ConfigurationError, PayloadTooLarge
from fairactor.plugins import Addressed

from .envelope import repeated
from .sender import Sender

_MOST_STEPS: Final = 500
"""The most steps of a graph, which one script sends."""
_SAME_RUN: Final = "run"
"""The id of the run in all digests."""


def check_repeatable(message: object, ids: Collection[str] = ()) -> None:
    """Checks that a message can be sent many times. A value that is not a message is left to the encoder.

    Args:
        message: the message.
        ids: the ids of the tasks that are sent with it.

    Raises:
        ConfigurationError: it names an earlier task, for which it would wait each time.
    """
    named = tasks_named_by(message.task_options.plugin_options) if isinstance(message, Message) else ()
    for option, task_id in named:
        if task_id not in ids:
            raise ConfigurationError(
                f"a message that is sent many times has no {option}=, and this one names {task_id!r}: it would wait "
                "for the same task each time. Give a graph, such as a() >> b(), whose steps are all sent each time"
            )


async def pack_graph(host: Host, sender: Sender, tenant: str, graph: Graph, run_id: str) -> PackedGraph:
    """See `Host.pack_graph`."""
    messages, _ = graph.prepare(host, tenant, run_id)
    _check_batch(tenant, messages)
    items = [repeated(item) for item in await sender.encode_all(messages)]
    size = sum(len(item.body) for item in items)
    if size > host.settings.max_payload:
        raise PayloadTooLarge(
            f"the calls of the graph take {size} bytes, the limit is {host.settings.max_payload} (max_payload=); store "
            "the data elsewhere and send references to it"
        )
    packed = [pack_item(item._replace(flag="+" if n else "")) for n, item in enumerate(items)]
    plugins = {plugin for item in items if item.extra for plugin in msgspec.msgpack.decode(item.extra)}
    same, _ = graph.prepare(host, tenant, _SAME_RUN)
    return PackedGraph(packed, [item.id for item in items], plugins, _digest(same))


def _check_batch(tenant: str, messages: Sequence[Addressed]) -> None:
    """Checks that messages can be sent many times as one batch.

    Raises:
        ConfigurationError: one cannot be.
    """
    ids = {message.task_options.id or "" for _, message in messages}
    if len(messages) > _MOST_STEPS:
        raise ConfigurationError(
            f"the graph has {len(messages)} steps, and {_MOST_STEPS} at most can be sent at once: let a step send "
            "the others, or use each()"
        )
    for owner, message in messages:
        name = message.actor.name
        if owner != tenant:
            raise ConfigurationError(
                f"{name}() is for tenant {owner!r}, and the graph for {tenant!r}: let a step send it there"
            )
        if message.task_options.eta is not None:
            raise ConfigurationError(f"{name}() has eta=, and is sent many times: use delay=")
        check_repeatable(message, ids)


def _digest(messages: Sequence[Addressed]) -> bytes:
    """Returns a hash of messages that were not yet given anything random."""
    found = hashlib.sha256()
    for _, message in messages:
        call: Any = [message.actor.route(message.task_options), repr(message.task_options)]
        call += message.actor.codec.arguments_to_json(message.args, message.kwargs)
        found.update(msgspec.json.encode(call, enc_hook=repr) + b"\n")
    return found.hexdigest()[:32].encode()
