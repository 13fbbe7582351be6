"""A task for each element of a result."""

from __future__ import annotations

from typing import Any

from fairactor import actor, current_task
from fairactor.errors import RuntimeNotRunning
from fairactor.plugins import Actor, Graph

from ._graph import chain
from ._results import OF_ALL_BUT_FIRST, OF_FIRST, IdOf, ResultOf
from ._send import NAME


@actor(name=f"{NAME}.spread")
async def spread(target: str, items: Any, args: list[Any], kwargs: dict[str, Any], joined: str) -> int:
    """Sends a task for each item, and has the one that joins them wait for all; returns how many.

    Done twice it changes nothing: the ids of these tasks are made of that of the one that joins them.
    """
    task = current_task()
    runtime = task.runtime
    if runtime is None:
        raise RuntimeNotRunning("each() needs a server: send the graph")
    if not isinstance(items, list):
        raise TypeError(f"each({target}, …) goes over a list, and what came before it returned {items!r:.80}")
    of_target = runtime.host.actor(target)
    run = {"xcom_run": task.options["xcom_run"]} if "xcom_run" in task.options else {}
    messages = []
    for number, item in enumerate(items):
        positional, named = of_target.codec.arguments_from_json([item, *args], dict(kwargs))
        message = of_target(*positional, **named)
        messages.append((task.tenant, message.options(id=f"{joined}/{number}", priority=task.priority, **run)))
    handles = await runtime.send_many(messages)
    if handles:
        await runtime.host.call(f"{NAME}/grow", task.tenant, joined, *(handle.id for handle in handles))
    return len(handles)


@actor(name=f"{NAME}.join")
async def join(found: list[Any]) -> list[Any]:
    """What the tasks of `spread` have returned, in the order of the items."""
    return found


def each(target: Actor[..., Any], items: Any = None, /, *args: Any, **kwargs: Any) -> Graph:
    """A task for each item of a list, beside each other, and then one whose result is the list of theirs.

    ``list_users() >> each(invoice) >> report(results())``. The actor gets the item as its first argument. Where one of
    the tasks fails, so does what waits for all.

    Args:
        target: an actor, a function; the runtime that runs the graph has it too.
        items: a list, or ``result_of(…)`` one; None: the result of what comes before.
        args: further arguments, for all alike.
        kwargs: likewise.

    Raises:
        TypeError: they do not fit the actor.
    """
    pattern = target(ResultOf(OF_FIRST), *args, **kwargs)
    (_, *positional), named = target.codec.arguments_to_json(pattern.args, pattern.kwargs)
    found: Any = ResultOf(OF_ALL_BUT_FIRST)  # it stands for a list, as the other for an id
    joined = join(found)
    joins: Any = IdOf(joined)
    over = ResultOf(OF_FIRST) if items is None else items
    return chain(spread(target.name, over, positional, named, joins), joined)
