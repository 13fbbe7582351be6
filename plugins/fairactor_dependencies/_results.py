"""Results of earlier tasks as arguments, and the ids of these tasks inside a handler."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from fairactor import Handle, Message, current_task
from fairactor.errors import ConfigurationError
from fairactor.plugins import Graph, shown

from ._placeholders import ResultOf, Selection
from ._plan import Planned

R = TypeVar("R")


@overload
def result_of(task: Message[R] | Handle[R]) -> R: ...
@overload
def result_of(task: Graph | str) -> Any: ...


def result_of(task: Any) -> Any:
    """Stands for the result of an earlier task in the arguments of a message: ``load(result_of(transformed))``.

    The handler receives the value, converted to the annotation of its parameter. If the earlier task did not finish but
    the trigger rule still lets the message run, the value is None.

    Args:
        task: a message of the same graph, or a graph with one last step such as ``each(…)``, which becomes a parent; or
            the handle or the id of a task in ``depends_on=``.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(task, Handle):
        return ResultOf(task.id)
    if isinstance(task, str | Message) or (isinstance(task, Planned) and len(task.plan.sinks) == 1):
        return ResultOf(task)
    raise ConfigurationError(
        f"result_of({shown(task)}): give a message, a graph with one last step, or the handle or the id of a task"
    )


def result() -> Any:
    """Stands for the result of the step before in the arguments of a message: ``extract() >> load(result())``.

    The handler receives the value, converted to the annotation of its parameter. Behind ``each(…)`` that is the list of
    the items' results. If the step before did not finish but the trigger rule still lets the message run, the value is
    None. It needs one step before; behind several, take `results`.
    """
    return ResultOf(Selection.ONLY)


def results() -> Any:
    """Stands for the results of all parents in the arguments of a message: ``[a(), b()] >> join(results())``.

    The handler receives a list in the order of the parents, with None for each parent that did not finish. Behind an
    empty group the list is empty. For the result of a single step before, take `result`.
    """
    return ResultOf(Selection.ALL)


def parents() -> list[str]:
    """Returns the ids of the running task's parents. As a function it also fits ``xcom.pull(key, from_task=parents)``.

    Raises:
        RuntimeNotRunning: it is called outside a handler.
    """
    ids: list[str] = list(current_task().options.get("depends_on", ()))
    return ids
