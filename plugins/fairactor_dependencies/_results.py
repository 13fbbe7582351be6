"""Results of the tasks before, as arguments."""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

from fairactor import Handle, Message, current_task
from fairactor.errors import ConfigurationError
from fairactor.plugins import Graph, Placeholder

R = TypeVar("R")

OF_ALL: Final = "all"
OF_ALL_BUT_FIRST: Final = "rest"
OF_FIRST: Final = "1"


class ResultOf(Placeholder):
    """The result of a task before, in the place of an argument."""

    way_out = (
        "it stands for the result of a task before: send it in a graph, or with depends_on=, and as an argument of its "
        "own, not within another one"
    )

    def __init__(self, of: Any, token: str | None = None) -> None:
        self.of = of
        """A message of the same graph, a graph, the id of a task, or which of all."""
        self.token = token

    def __repr__(self) -> str:
        return "results()" if self.of == OF_ALL else f"result_of({self.of!r})"


@overload
def result_of(task: Message[R] | Handle[R]) -> R: ...
@overload
def result_of(task: Graph | str) -> Any: ...


def result_of(task: Any) -> Any:
    """The result of a task before, as an argument of a message: ``load(result_of(transformed))``.

    It is the value that the handler gets, by its own annotation. Where that task has not finished, as the message's
    trigger rule may allow, it is None.

    Args:
        task: a message of the same graph, which so comes before, or a graph of which one is the last, such as
            ``each(…)``; or a handle or an id, of those in ``depends_on=``.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(task, Handle | str):
        return ResultOf(task if isinstance(task, str) else task.id)
    sinks = (task,) if isinstance(task, Message) else getattr(getattr(task, "plan", None), "sinks", ())
    if len(sinks) != 1:
        raise ConfigurationError(
            f"result_of({task!r:.80}): give a message, a graph of which one is the last, or a handle"
        )
    return ResultOf(task)


def results() -> Any:
    """The results of all tasks before, a list, as an argument of a message: in their order, None where one has none."""
    return ResultOf(OF_ALL)


def parents() -> list[str]:
    """In a handler: the ids of the tasks before the one that runs; ``xcom.pull(key, from_task=parents)`` takes it, too.

    Raises:
        RuntimeNotRunning: this is not in a handler.
    """
    ids: list[str] = list(current_task().options.get("depends_on", ()))
    return ids


class IdOf(Placeholder):
    """The id of a step of the same graph, in the place of an argument."""

    way_out = "it stands for a step of a graph: send it in one"

    def __init__(self, of: Message[Any]) -> None:
        self.of = of
