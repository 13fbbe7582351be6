"""Steps as they are sent: ids replace the messages that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairactor import Message
from fairactor.plugins import Graph, Placeholder

from ._options import NAME, Parents
from ._placeholders import EarlierIds, IdOf, ResultOf, Selection, map_arguments, results_in
from ._plan import Step, last_step


class Context(NamedTuple):
    """What the messages of a run have in common."""

    ids: Mapping[Step, str]
    """The id of each step."""
    with_run: Mapping[str, str]
    """The option that shares the run's values."""
    tenants: Mapping[str, str | None]
    """By id the tenants of the steps that were sent before."""
    past: Mapping[Step, Sequence[str]]
    """The earlier ids of joining steps."""


def message_of(step: Step, parents: Sequence[Step], silent: int, context: Context) -> Message[Any]:
    """Returns a step as it is sent: ids replace the steps that its options and arguments name.

    Args:
        step: the step.
        parents: the steps that it waits for.
        silent: how many of these, the last ones, do not give it their results.
        context: the run.
    """
    own, ids = step.task_options.plugin_options, context.ids

    def with_ids(argument: Any) -> Any:
        if isinstance(argument, IdOf):
            return ids[argument.of]
        if isinstance(argument, EarlierIds):
            return list(context.past.get(argument.of, ()))
        if isinstance(argument, ResultOf) and isinstance(argument.of, Message | Graph):
            return ResultOf(ids[last_step(argument.of)], tag=argument.tag)
        return argument

    options: dict[str, Any] = {} if "xcom_run" in own else dict(context.with_run)
    if parents:
        given: Parents | None = own.get("depends_on")
        before, tenants = (given, {**context.tenants, **given.tenants}) if given else ((), context.tenants)
        options["depends_on"] = Parents([*before, *[ids[parent] for parent in parents]], tenants, silent)
    if not _has_placeholders(step):
        return step.rewritten(id=ids[step], plugin_options=options)
    tags = _tags(step, parents[: len(parents) - silent], bool(own.get("depends_on"))) if results_in(step) else {}
    args, kwargs = map_arguments(step, with_ids)
    for place, tag in tags.items():
        arguments: Any = args if isinstance(place, int) else kwargs
        arguments[place] = ResultOf(arguments[place].of, tag=tag)
    return step.rewritten(args=args, kwargs=kwargs, id=ids[step], plugin_options=options)


def _tags(step: Step, parents: Sequence[Step], others: bool) -> dict[int | str, str]:  # noqa: FBT001 - internal
    """Returns by argument the name of the type that its result has to travel with, because the parameter is a union.

    Args:
        step: the step that takes results.
        parents: the steps of the graph that give them.
        others: whether tasks give it theirs that were sent before: their types are not known.

    Raises:
        ConfigurationError: a result would arrive as another type.
    """
    if step.actor.name.startswith(f"{NAME}."):
        return {}  # they pass on JSON
    found: dict[int | str, str] = {}
    taken = {last_step(result.of) for result in results_in(step) if isinstance(result.of, Message | Graph)}
    arguments: list[tuple[int | str, Any]] = [*enumerate(step.args), *step.kwargs.items()]
    for place, argument in arguments:
        if not isinstance(argument, ResultOf):
            continue
        many = argument.of is Selection.ALL
        if isinstance(argument.of, Message | Graph):
            giving = [last_step(argument.of)]
        elif others or isinstance(argument.of, str):  # an id says nothing of the type
            continue
        else:
            giving = [*parents] if many else ([each for each in parents if each not in taken] or [*parents])[:1]
        if giving or many:
            tag = step.actor.codec.tag_for([each.actor.codec for each in giving], place, many=many)
            if tag is not None:
                found[place] = tag
    return found


def _has_placeholders(message: Message[Any]) -> bool:
    for argument in message.args:
        if isinstance(argument, Placeholder):
            return True
    return bool(message.kwargs) and any(isinstance(argument, Placeholder) for argument in message.kwargs.values())


def takes_messages(message: Message[Any]) -> bool:
    """Returns whether a message takes results of messages that are to be sent with it."""
    return _has_placeholders(message) and any(isinstance(result.of, Message | Graph) for result in results_in(message))
