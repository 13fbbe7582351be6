"""One task per item of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from fairactor import Message, Retry, actor, current_task
from fairactor.errors import MailboxFull, RuntimeNotRunning, UnknownActor
from fairactor.plugins import BATCH_WITH_DATA, Actor, Addressed, Client, Graph, Host, TriggerRule, shown, whole_ms

from ._graph import MessageGraph, chain
from ._late import with_shard
from ._mapped import JOIN, SPREAD, item_id
from ._options import NAME
from ._placeholders import EarlierIds, IdOf, ResultOf, Selection
from ._plan import plan_of
from ._results import result_of

T = TypeVar("T")
P = ParamSpec("P")

_ADOPTED_AT_ONCE: Final = 100
_SHORTEST_WAIT: Final = 0.1
"""Seconds until the first try after a mailbox was full; doubled each time."""
_LONGEST_WAIT: Final = 10.0
_ELSEWHERE: Final = 0.25
"""Seconds until the next try if the runtime lacks the actor: another one may take it then."""


@actor(name=SPREAD, max_retries=60_000, retry_on=())
async def spread(target: str, items: Any, joined: str, earlier: list[str], /, *args: Any, **kwargs: Any) -> int:
    """Sends a task for each item, and makes the joining task wait for all of them; returns how many there are.

    Running it again sends nothing twice: the server knows how many were sent, and refuses those of a canceled run.
    Items that finished in an earlier attempt at the run are not sent again.
    """
    task = current_task()
    runtime = task.runtime
    if runtime is None:
        raise RuntimeNotRunning("each() needs a server: send the graph")
    if not isinstance(items, list):
        raise TypeError(f"each({target}, …) needs a list of items, and got {shown(items)}")
    if not items:
        return 0
    host = runtime.host
    try:
        handler = host.actor(target)
    except UnknownActor as error:
        if task.attempt * _ELSEWHERE > host.settings.unknown_ttl:
            raise
        raise Retry(f"each() waits for a runtime that has the actor {target!r}", delay=_ELSEWHERE) from error
    may_send, sent = await host.call(f"{NAME}/map", task.tenant, joined, len(items))
    if not may_send:
        return len(items)
    adopted = await _adopt(runtime, task.tenant, joined, earlier, len(items)) if earlier else set[int]()
    pattern = handler(ResultOf(Selection.ONLY), *args, **kwargs).options(priority=task.priority)
    options = {"xcom_run": task.options["xcom_run"]} if "xcom_run" in task.options else None
    keep = whole_ms(host.settings.canceled_ttl)
    left = [number for number in range(sent, len(items)) if number not in adopted]
    for at in range(0, len(left), BATCH_WITH_DATA):
        messages: list[Addressed] = []
        for number in left[at : at + BATCH_WITH_DATA]:
            positional, named = handler.codec.arguments_from_json([items[number], *args], dict(kwargs))
            message = pattern.rewritten(
                args=positional,
                kwargs=named,
                id=item_id(joined, number),
                plugin_options=options,
                script_options={NAME: {"dependencies": {"item": (joined, number + 1), "keep": keep}}},
            )
            messages.append((task.tenant, message))
        await _send(runtime, messages, task.attempt)
    return len(items)


async def _adopt(runtime: Client, tenant: str, joined: str, earlier: Sequence[str], many: int) -> set[int]:
    """Gives the joining task the results of the items that finished before; returns their numbers.

    Those that finished before their tenant moved to another shard are where it was.
    """
    host = runtime.host
    await host.find([tenant])
    home, *others = host.shards_of(tenant)
    found = await _adopt_from(host, home, [joined, "", len(earlier), *earlier], range(many))
    for shard in others:
        left = [number for number in range(many) if number not in found]
        found |= await _adopt_from(host, shard, [joined, home, len(earlier), *earlier], left)
    return found


async def _adopt_from(host: Host, shard: int, arguments: Sequence[str | int], numbers: Sequence[int]) -> set[int]:
    found: set[int] = set()
    step = max(_ADOPTED_AT_ONCE // (len(arguments) - 3), 1)
    at = 0
    while at < len(numbers):
        some = numbers[at : at + step]
        flags = await host.call(f"{NAME}/adopt", shard, *arguments, *some)
        found.update(number for number, finished in zip(some, flags, strict=False) if finished)
        at += len(flags)
    return found


async def _send(runtime: Client, messages: Sequence[Addressed], attempt: int) -> None:
    """Sends messages in their order, as many at once as the mailbox has room for.

    Raises:
        Retry: it has room for none. The worker is free meanwhile.
    """
    at, many = 0, len(messages)
    while at < len(messages):
        try:
            await runtime.send_many(messages[at : at + many])
        except MailboxFull as error:
            if many == 1:
                delay = min(_SHORTEST_WAIT * 2 ** min(attempt, 10), _LONGEST_WAIT)
                raise Retry(f"each() waits for room: {error}", delay=delay) from None
            many = (many + 1) // 2
        else:
            at += many


@actor(name=JOIN)
async def join(found: Any) -> Any:
    """Returns the results of the tasks that `spread` sent, in the order of the items, or a reference to them."""
    task = current_task()
    if task.runtime is None:
        raise RuntimeNotRunning("each() needs a server: send the graph")
    await task.runtime.host.find([task.tenant])
    return with_shard(found, task.runtime.host.shard_of(task.tenant))


def each(
    target: Actor[Concatenate[T, P], Any],
    items: Sequence[T] | Message[Any] | Graph | None = None,
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> MappedGraph:
    """Runs a task per item of a list, side by side, and then one that returns the list of their results.

    ``list_users() >> each(invoice) >> report(result())``. The actor receives the item as its first argument. If one of
    the tasks fails, the others go on, and the joining task is canceled; ``each(…).options(trigger_rule="all_done")``
    joins what has finished instead, with None for each of the others.

    Args:
        target: a function that is an actor. A runtime that has it sends the tasks. To find one at once, give it a
            queue, or give all runtimes the actor.
        items: a list, or the earlier step that returns it; None: the result of the step before.
        args: further arguments, the same for all items.
        kwargs: likewise, by name.

    Raises:
        TypeError: the arguments do not fit the actor, or the items are no list.
        ConfigurationError: the items are those of a graph with several last steps.
    """
    if not hasattr(target, "codec"):
        raise TypeError(f"each({shown(target)}, …) needs an actor: decorate the function with @actor")
    if isinstance(items, Message | Graph):
        items = result_of(items)
    elif not isinstance(items, Sequence | ResultOf | None) or isinstance(items, str | bytes | bytearray | memoryview):
        raise TypeError(
            f"each({target.name}, …) needs a list of items, and got {shown(items)}: give list(…), the step that "
            "returns the list, or nothing for the result of the step before"
        )
    first: Any = ResultOf(Selection.ONLY)
    pattern = target(first, *args, **kwargs)
    (_, *positional), named = target.codec.arguments_to_json(pattern.args, pattern.kwargs)
    given: Any = first if items is None else items
    if isinstance(items, Sequence):  # they travel in the form of the actor's first argument
        given = [target.codec.arguments_to_json((item,), {})[0][0] for item in items]
    return MappedGraph.spread(target.name, given, positional, named, target.options.queue)


class MappedGraph(MessageGraph):
    """What `each` returns: a graph of the task that sends the items' tasks, and of the one that joins their results."""

    __slots__ = ("call",)
    call: tuple[str, Any, Sequence[Any], dict[str, Any], str | None]
    """What it was made of: actor, items, arguments, queue."""

    @classmethod
    def spread(
        cls, target: str, items: Any, args: Sequence[Any], kwargs: dict[str, Any], queue: str | None, **options: Any
    ) -> MappedGraph:
        """Makes the two steps. They run in the queue of the actor, where a runtime has it."""
        others: Any = ResultOf(Selection.ALL_BUT_FIRST)
        joined = join(others).options(queue=queue, **options)
        id_of_joined: Any = IdOf(joined)
        earlier: Any = EarlierIds(joined)
        first = spread(target, items, id_of_joined, earlier, *args, **kwargs).options(queue=queue)
        made = cls.planned(plan_of(chain(first, joined)))
        made.call = (target, items, args, kwargs, queue)
        return made

    def options(self, *, trigger_rule: TriggerRule | None = None, result_ttl: float | None = None) -> MappedGraph:
        """Returns a copy in which the task that joins the results has these options.

        Args:
            trigger_rule: when it runs, see `Options.trigger_rule`. With "all_done" it runs when all items have ended.
            result_ttl: how long the joined results are kept, in seconds.
        """
        given: dict[str, Any] = {"trigger_rule": trigger_rule, "result_ttl": result_ttl}
        return self.spread(*self.call, **{name: value for name, value in given.items() if value is not None})
