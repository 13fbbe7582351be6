"""Graphs of messages: which comes before which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import TYPE_CHECKING, Any

import attrs

from fairactor import Message
from fairactor.errors import ConfigurationError

from ._errors import GraphError
from ._results import ResultOf
from ._text import label, mermaid

if TYPE_CHECKING:
    from fairactor import Runtime

    from ._run import Run

Step = Message[Any]


@attrs.frozen(eq=False)
class Graph:
    """Messages, and which of them comes before which. A message that is named twice is one step.

    ``a >> b`` and ``b << a``: all that ends ``a`` comes before all that begins ``b``; ``a | b``: beside each other.
    """

    steps: dict[Step, str | None]
    """With the tenant, where that is another than the run's."""
    edges: list[tuple[Step, Step]]
    """Which comes directly before which."""
    sources: tuple[Step, ...]
    """Those with which it begins."""
    sinks: tuple[Step, ...]
    """Those with which it ends."""

    def __rshift__(self, other: Any) -> Any:
        """This, then the other."""
        return then(self, other)

    def __lshift__(self, other: Any) -> Any:
        """The other, then this."""
        return after(self, other)

    def __or__(self, other: Any) -> Any:
        """This beside the other."""
        return beside(self, other)

    def __ror__(self, other: Any) -> Any:
        """The other beside this."""
        return beside(other, self)

    def __rrshift__(self, other: Any) -> Any:
        """The other, then this."""
        return then(other, self)

    def __len__(self) -> int:
        return len(self.in_order()[0])

    def in_order(self) -> tuple[list[Step], dict[Step, list[Step]]]:
        """The steps in an order in which each comes after those before it, and of each those directly before it.

        Raises:
            GraphError: they go round in a circle.
        """
        before: dict[Step, dict[Step, None]] = {step: {} for step in self.steps}
        for first, second in self.edges:
            before[second][first] = None
        found = list(before)
        for step in found:  # results of others may bring in more
            for argument in (*step.args, *step.kwargs.values()):
                if isinstance(argument, ResultOf) and isinstance(argument.of, Message):
                    before[step][argument.of] = None
                    if argument.of not in before:
                        before[argument.of] = {}
                        found.append(argument.of)
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " → ".join(label(step) for step in reversed(error.args[1]))
            raise GraphError(f"the graph goes round in a circle: {circle}; nothing was sent") from None
        return order, {step: list(firsts) for step, firsts in before.items()}

    def to_mermaid(self) -> str:
        """A picture of it, as text that Mermaid draws."""
        order, before = self.in_order()
        numbers = {step: number for number, step in enumerate(order)}
        edges = [(numbers[first], numbers[step]) for step in order for first in before[step]]
        return mermaid([label(step) for step in order], edges)

    async def send_to(self, runtime: Runtime, tenant: str) -> Run:
        """See `Runtime.send`: sends it whole."""
        from ._run import send_graph

        return await send_graph(runtime, tenant, self)


def graph(*parts: Any) -> Graph:
    """One graph of messages, graphs and lists of them, beside each other; with the results in them."""
    return group(*parts)


def group(*parts: Any) -> Graph:
    """All of these beside each other: ``a | b | c``.

    Raises:
        ConfigurationError: one is neither a message nor a graph.
    """
    graphs = [_graph_of(part) for part in _flat(parts)]
    steps: dict[Step, str | None] = {}
    for each in graphs:
        _add_steps(steps, each)
    return Graph(
        steps,
        [edge for each in graphs for edge in each.edges],
        _once(step for each in graphs for step in each.sources),
        _once(step for each in graphs for step in each.sinks),
    )


def chain(*parts: Any) -> Graph:
    """All of these after each other: ``a >> b >> c``. A list is a group.

    Raises:
        ConfigurationError: one is neither a message nor a graph.
    """
    graphs = [group(*part) if isinstance(part, list | tuple) else _graph_of(part) for part in parts]
    steps: dict[Step, str | None] = {}
    edges: list[tuple[Step, Step]] = []
    for number, each in enumerate(graphs):
        _add_steps(steps, each)
        edges.extend(each.edges)
        if number:
            edges.extend(product(graphs[number - 1].sinks, each.sources))
    return Graph(steps, edges, graphs[0].sources if graphs else (), graphs[-1].sinks if graphs else ())


def at(tenant: str, part: Any) -> Graph:
    """A message, or the messages of a graph, for another tenant than the run's."""
    given = _graph_of(part)
    return attrs.evolve(given, steps={step: own or tenant for step, own in given.steps.items()})


def then(left: Any, right: Any) -> Any:
    """``left >> right``."""
    return chain(left, right) if _fits(left) and _fits(right) else NotImplemented


def after(left: Any, right: Any) -> Any:
    """``left << right``."""
    return chain(right, left) if _fits(left) and _fits(right) else NotImplemented


def beside(left: Any, right: Any) -> Any:
    """``left | right``."""
    return group(left, right) if _fits(left) and _fits(right) else NotImplemented


def _fits(part: Any) -> bool:
    return isinstance(part, Message | Graph | list | tuple)


def _graph_of(part: Any) -> Graph:
    if isinstance(part, Graph):
        return part
    if not isinstance(part, Message):
        raise ConfigurationError(f"{part!r} is no step of a graph: give messages, such as f(1), or graphs of them")
    return Graph({part: None}, [], (part,), (part,))


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        else:
            yield part


def _add_steps(steps: dict[Step, str | None], graph: Graph) -> None:
    for step, tenant in graph.steps.items():
        known = steps.get(step)
        if known is not None and tenant is not None and known != tenant:
            raise GraphError(f"{label(step)} is to be a task of {known!r} and of {tenant!r}: make two messages of it")
        steps[step] = known or tenant


def _once(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(steps))
