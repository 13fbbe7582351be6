"""One task per item of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from fairactor import actor, current_task
from fairactor.errors import RuntimeNotRunning
from fairactor.plugins import Actor, Addressed, Graph, shown

from ._graph import chain
from ._options import NAME
from ._placeholders import IdOf, ResultOf, Selection

T = TypeVar("T")
P = ParamSpec("P")


@actor(name=f"{NAME}.spread")
async def spread(target: str, items: Any, args: list[Any], kwargs: dict[str, Any], joined: str) -> int:
    """Sends a task for each item and makes the joining task wait for all of them; returns how many there are.

    Running it twice changes nothing, because the ids of these tasks derive from the id of the joining task.
    """
    task = current_task()
    runtime = task.runtime
    if runtime is None:
        raise RuntimeNotRunning("each() needs a server: send the graph")
    if not isinstance(items, list):
        raise TypeError(f"each({target}, …) needs a list of items, and got {shown(items)}")
    handler = runtime.host.actor(target)
    run = {"xcom_run": task.options["xcom_run"]} if "xcom_run" in task.options else {}
    messages: list[Addressed] = []
    for number, item in enumerate(items):
        positional, named = handler.codec.arguments_from_json([item, *args], dict(kwargs))
        message = handler(*positional, **named)
        messages.append((task.tenant, message.options(id=f"{joined}/{number}", priority=task.priority, **run)))
    handles = await runtime.send_many(messages)
    if handles:
        await runtime.host.call(f"{NAME}/grow", task.tenant, joined, *(handle.id for handle in handles))
    return len(handles)


@actor(name=f"{NAME}.join")
async def join(found: list[Any]) -> list[Any]:
    """Returns the results of the tasks that `spread` sent, in the order of the items."""
    return found


def each(
    target: Actor[Concatenate[T, P], Any], items: Sequence[T] | None = None, /, *args: P.args, **kwargs: P.kwargs
) -> Graph:
    """Runs a task per item of a list, side by side, and then one that returns the list of their results.

    ``list_users() >> each(invoice) >> report(results())``. The actor receives the item as its first argument. If one of
    the tasks fails, the joining task is canceled.

    Args:
        target: a function that is an actor. The runtime that runs the graph needs it, too.
        items: a list, or ``result_of(…)`` an earlier step; None: the result of the step before.
        args: further arguments, the same for all items.
        kwargs: likewise, by name.

    Raises:
        TypeError: the arguments do not fit the actor.
    """
    first: Any = ResultOf(Selection.FIRST)
    pattern = target(first, *args, **kwargs)
    (_, *positional), named = target.codec.arguments_to_json(pattern.args, pattern.kwargs)
    others: Any = ResultOf(Selection.ALL_BUT_FIRST)
    joined = join(others)
    id_of_joined: Any = IdOf(joined)
    given: Any = first if items is None else items
    if isinstance(items, list | tuple):  # they travel in the form of the actor's first argument
        given = [target.codec.arguments_to_json((item,), {})[0][0] for item in items]
    return chain(spread(target.name, given, positional, named, id_of_joined), joined)
