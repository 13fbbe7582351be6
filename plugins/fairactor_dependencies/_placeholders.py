"""Placeholders: arguments that stand for something of another step until its task runs."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from fairactor import Message
from fairactor.plugins import Graph, Placeholder


class Selection(Enum):
    """Parents by their position, for a placeholder that names no step. The values are what the scripts read."""

    ALL = "all"
    ALL_BUT_FIRST = "rest"
    ONLY = "only"
    """The one that stands before the message in its graph."""


class ResultOf(Placeholder):
    """Stands for the result of a parent, or for a list of results."""

    way_out = (
        "it stands for the result of an earlier task: send it in a graph or with depends_on=, and as an argument by "
        "itself, not inside another one"
    )

    def __init__(
        self, of: Message[Any] | Graph | str | Selection, token: str | None = None, tag: str | None = None
    ) -> None:
        self.of = of
        """A step of the same graph, a graph with one last step, the id of a task, or parents by their position."""
        self.token = token
        self.tag = tag

    def __repr__(self) -> str:
        if isinstance(self.of, Selection):
            return "result()" if self.of is Selection.ONLY else "results()"
        of = f"{self.of.actor.name}(…)" if isinstance(self.of, Message) else repr(self.of)
        return f"result_of({of})"


class IdOf(Placeholder):
    """Stands for the id of a step of the same graph."""

    way_out = "it stands for a step of a graph: send it in that graph"

    def __init__(self, of: Message[Any]) -> None:
        self.of = of


class EarlierIds(Placeholder):
    """Stands for the ids that a step of the same graph had in earlier attempts at the run, the latest one first."""

    way_out = IdOf.way_out

    def __init__(self, of: Message[Any]) -> None:
        self.of = of


def results_in(message: Message[Any]) -> list[ResultOf]:
    """Returns the placeholders for results among the arguments of a message."""
    return [argument for argument in (*message.args, *message.kwargs.values()) if isinstance(argument, ResultOf)]


def map_arguments(message: Message[Any], function: Callable[[Any], Any]) -> tuple[list[Any], dict[str, Any]]:
    """Applies a function to each argument of a message; returns the positional ones and those by name."""
    return [function(argument) for argument in message.args], {
        name: function(argument) for name, argument in message.kwargs.items()
    }
