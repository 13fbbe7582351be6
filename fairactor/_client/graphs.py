"""Sends graphs beside messages, and asks for their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fairactor._actors.graph import Graph, Run
from fairactor._actors.handle import Handle
from fairactor._actors.host import Host
from fairactor._actors.message import Message

from .sender import Sender


async def send_together(
    sender: Sender, host: Host, given: Sequence[tuple[str, Message[Any] | Graph]]
) -> list[Handle[Any] | Run]:
    """Sends messages and graphs as one batch; returns a handle for each message, and a run for each graph."""
    messages: list[tuple[str, Message[Any]]] = []
    ends: list[tuple[int, Callable[[Sequence[Handle[Any]]], Run] | None]] = []
    for tenant, each in given:
        finish = None
        if isinstance(each, Graph):
            some, finish = each.prepare(host, tenant)
            messages += some
        else:
            messages.append((tenant, each))
        ends.append((len(messages), finish))
    handles, begun = await sender.send_many(messages), 0
    found: list[Handle[Any] | Run] = []
    for end, finish in ends:
        found.append(finish(handles[begun:end]) if finish else handles[begun])
        begun = end
    return found


async def ask_graph(sender: Sender, host: Host, tenant: str, graph: Graph, timeout: float | None) -> Any:  # noqa: ASYNC109 - as in Runtime.ask
    """Sends a graph and returns the result of its run; raises as `Runtime.ask`."""
    messages, sent = graph.prepare(host, tenant)
    await sender.check_deadlock({to for to, _ in messages})
    return await sent(await sender.send_many(messages)).result(timeout)
