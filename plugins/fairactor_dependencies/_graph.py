"""Graphs of messages: which comes before which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import attrs

from fairactor import Message, TaskState
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
    implied: frozenset[Step] = frozenset()
    """Those that are there since others take their results, and were not named themselves."""

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
        return _sorted(before), {step: list(firsts) for step, firsts in before.items()}

    def to_mermaid(self) -> str:
        """A picture of it, as text that Mermaid draws."""
        return self.drawn({})

    def drawn(self, states: Mapping[Step, TaskState | None]) -> str:
        """A picture of it with the states of its steps, where there are any."""
        order, before = self.in_order()
        numbers = {step: number for number, step in enumerate(order)}
        edges = [(numbers[first], numbers[step]) for step in order for first in before[step]]
        return mermaid([label(step) for step in order], edges, [states[step] for step in order] if states else ())

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
    graphs = [graph_of(part) for part in _flat(parts)]
    return _merged(
        graphs,
        [edge for each in graphs for edge in each.edges],
        _once(step for each in graphs for step in each.sources),
        _once(step for each in graphs for step in each.sinks),
    )


def chain(*parts: Any) -> Graph:
    """All of these after each other: ``a >> b >> c``. A list is a group.

    Raises:
        ConfigurationError: one is neither a message nor a graph.
    """
    graphs = [group(*part) if isinstance(part, list | tuple) else graph_of(part) for part in parts]
    edges = [edge for each in graphs for edge in each.edges]
    for first, second in pairwise(graphs):
        edges.extend(product(first.sinks, second.sources))
    return _merged(graphs, edges, graphs[0].sources if graphs else (), graphs[-1].sinks if graphs else ())


def at(tenant: str, part: Any) -> Graph:
    """A message, or the messages of a graph, for another tenant than the run's; with those whose results they take."""
    given = graph_of(part)
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


def _sorted(before: dict[Step, dict[Step, None]]) -> list[Step]:
    """The steps, each behind those before it (Kahn 1962); `graphlib` takes four times as long, and finds circles.

    Raises:
        GraphError: they go round in a circle.
    """
    missing = {step: len(firsts) for step, firsts in before.items()}
    behind: dict[Step, list[Step]] = {step: [] for step in before}
    for step, firsts in before.items():
        for first in firsts:
            behind[first].append(step)
    order = [step for step, many in missing.items() if not many]
    for step in order:  # it grows
        for second in behind[step]:
            missing[second] -= 1
            if not missing[second]:
                order.append(second)
    if len(order) < len(before):
        try:
            TopologicalSorter(before).prepare()
        except CycleError as error:
            circle = " → ".join(label(step) for step in reversed(error.args[1]))
            raise GraphError(f"the graph goes round in a circle: {circle}; nothing was sent") from None
    return order


def _fits(part: Any) -> bool:
    return isinstance(part, Message | Graph | list | tuple)


def graph_of(part: Any) -> Graph:
    """A graph of a message, and of those whose results it takes.

    Raises:
        ConfigurationError: it is neither a message nor a graph.
    """
    if isinstance(part, Graph):
        return part
    if not isinstance(part, Message):
        raise ConfigurationError(f"{part!r} is no step of a graph: give messages, such as f(1), or graphs of them")
    steps: dict[Step, str | None] = {part: None}
    edges: list[tuple[Step, Step]] = []
    found: list[Step] = [part]
    for step in found:  # it grows
        for argument in (*step.args, *step.kwargs.values()):
            if isinstance(argument, ResultOf) and not isinstance(argument.of, str):
                more: Graph | None = argument.of if isinstance(argument.of, Graph) else None
                first: Any = more.sinks[0] if more else argument.of
                edges.append((first, step))
                if first not in steps:
                    steps |= more.steps if more else {first: None}
                    edges += more.edges if more else []
                    found += [] if more else [first]
    return Graph(steps, edges, (part,), (part,), frozenset(steps) - {part})


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        else:
            yield part


def _merged(
    graphs: Sequence[Graph], edges: list[tuple[Step, Step]], sources: tuple[Step, ...], sinks: tuple[Step, ...]
) -> Graph:
    """One graph of the steps of all. Whose a step is, says who names it; else who takes its result.

    Raises:
        GraphError: a step is to be a task of two tenants.
    """
    steps: dict[Step, str | None] = {}
    implied: set[Step] = set()
    for each in graphs:
        for step, tenant in each.steps.items():
            known, named = steps.get(step), step not in each.implied
            if step not in steps:
                steps[step] = tenant
                if not named:
                    implied.add(step)
            elif named and step in implied:
                steps[step] = tenant
                implied.discard(step)
            elif named or step in implied:
                if known and tenant and known != tenant:
                    raise GraphError(
                        f"{label(step)} is to be a task of {known!r} and of {tenant!r}: make two messages of it"
                    )
                steps[step] = known or tenant
    return Graph(steps, edges, sources, sinks, frozenset(implied))


def _once(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(steps))
