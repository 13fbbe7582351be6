"""Plans: the pure structure of a graph. They know which message runs before which, and nothing about sending."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, product
from typing import Any, Final, TypeGuard

import attrs

from fairactor import Message, TaskState
from fairactor.errors import ConfigurationError
from fairactor.plugins import Graph, Operand, shown

from ._errors import GraphError
from ._mermaid import flowchart, label
from ._placeholders import results_in

_SHOWN: Final = 10  # steps of a cycle in a message
Step = Message[Any]


@attrs.frozen(eq=False)
class Plan:
    """Messages, and which of them runs before which. A message that occurs twice is one step."""

    steps: dict[Step, str | None]
    """Each step with its tenant, if that differs from the run's."""
    edges: list[tuple[Step, Step]]
    """(parent, child)."""
    sources: tuple[Step, ...]
    """The first steps."""
    sinks: tuple[Step, ...]
    """The last steps."""
    implied: frozenset[Step] = frozenset()
    """The steps that nobody named, but whose results others take."""

    def in_order(self) -> tuple[list[Step], dict[Step, list[Step]]]:
        """Returns the steps, parents first, and the parents of each step.

        Raises:
            GraphError: the graph has a cycle.
        """
        parents: dict[Step, dict[Step, None]] = {step: {} for step in self.steps}
        for parent, child in self.edges:
            parents[child][parent] = None
        return _topological_order(parents), {step: list(found) for step, found in parents.items()}

    def to_mermaid(self, states: Mapping[Step, TaskState | None] | None = None) -> str:
        """Draws the plan as a Mermaid flowchart, with the states of its steps if they are given."""
        order, parents = self.in_order()
        numbers = {step: number for number, step in enumerate(order)}
        edges = [(numbers[parent], numbers[step]) for step in order for parent in parents[step]]
        return flowchart([label(step) for step in order], edges, [states[step] for step in order] if states else ())

    def for_tenant(self, tenant: str) -> Plan:
        """Returns a copy in which the steps without a tenant have this one."""
        return attrs.evolve(self, steps={step: own or tenant for step, own in self.steps.items()})


class Planned(Graph):
    """A graph with a plan."""

    __slots__ = ()
    plan: Plan


def is_operand(value: object) -> TypeGuard[Operand]:
    """Returns whether this may stand beside an operator: a message, a graph or a list."""
    return isinstance(value, Message | Planned | list | tuple)


def plan_of(part: object) -> Plan:
    """Returns the plan of a graph, or makes one of a message and the messages whose results it takes.

    Raises:
        ConfigurationError: it is neither a message nor a graph.
    """
    if not isinstance(part, Message):
        if isinstance(part, Planned):
            return part.plan
        raise ConfigurationError(
            f"{shown(part)} cannot be a step of a graph: give messages, such as f(1), or graphs of messages"
        )
    steps: dict[Step, str | None] = {part: None}
    edges: list[tuple[Step, Step]] = []
    found: list[Step] = [part]
    for step in found:  # it grows
        for result in results_in(step):
            if not isinstance(result.of, Message | Graph):
                continue
            parent = last_step(result.of)
            edges.append((parent, step))
            if parent in steps:
                continue
            if isinstance(result.of, Message):
                steps[parent] = None
                found.append(parent)
            else:
                source = plan_of(result.of)
                steps |= source.steps
                edges += source.edges
    return Plan(steps, edges, (part,), (part,), frozenset(steps) - {part})


def last_step(part: Message[Any] | Graph) -> Step:
    """Returns a message itself, and the last step of a graph that has one."""
    return part if isinstance(part, Message) else plan_of(part).sinks[0]


def side_by_side(parts: Iterable[object]) -> Plan:
    """Returns one plan in which all parts run side by side. Lists are flattened.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    plans = [plan_of(part) for part in _flatten(parts)]
    return _merge(
        plans,
        [edge for plan in plans for edge in plan.edges],
        _unique(step for plan in plans for step in plan.sources),
        _unique(step for plan in plans for step in plan.sinks),
    )


def in_sequence(parts: Iterable[object]) -> Plan:
    """Returns one plan in which the parts run one after the other. The members of a list run side by side.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    plans = [side_by_side(part) if isinstance(part, list | tuple) else plan_of(part) for part in parts]
    edges = [edge for plan in plans for edge in plan.edges]
    for before, after in pairwise(plans):
        edges.extend(product(before.sinks, after.sources))
    return _merge(plans, edges, plans[0].sources if plans else (), plans[-1].sinks if plans else ())


def _topological_order(parents: Mapping[Step, Collection[Step]]) -> list[Step]:
    """Sorts steps topologically (Kahn 1962). `graphlib` takes four times as long, but it can name a cycle.

    Raises:
        GraphError: the graph has a cycle.
    """
    missing = {step: len(its_parents) for step, its_parents in parents.items()}
    children: dict[Step, list[Step]] = {step: [] for step in parents}
    for step, its_parents in parents.items():
        for parent in its_parents:
            children[parent].append(step)
    order = [step for step, many in missing.items() if not many]
    for step in order:  # it grows
        for child in children[step]:
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    if len(order) < len(parents):
        try:
            TopologicalSorter(parents).prepare()
        except CycleError as error:
            steps = [label(step) for step in reversed(error.args[1])]
            cycle = " → ".join(steps if len(steps) <= _SHOWN else [*steps[:_SHOWN], "…", steps[-1]])
            raise GraphError(f"the graph has a cycle: {cycle}; nothing was sent") from None
    return order


def _flatten(parts: Iterable[object]) -> Iterator[object]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flatten(part)
        else:
            yield part


def _merge(
    plans: Sequence[Plan], edges: list[tuple[Step, Step]], sources: tuple[Step, ...], sinks: tuple[Step, ...]
) -> Plan:
    """Merges plans. A step gets the tenant of the plan that names it, otherwise of the plan that takes its result.

    Raises:
        GraphError: two plans give a step different tenants.
    """
    steps: dict[Step, str | None] = {}
    implied: set[Step] = set()
    for plan in plans:
        for step, tenant in plan.steps.items():
            known, named = steps.get(step), step not in plan.implied
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
                        f"{label(step)} cannot be a task of both {known!r} and {tenant!r}: make two messages of it"
                    )
                steps[step] = known or tenant
    return Plan(steps, edges, sources, sinks, frozenset(implied))


def _unique(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(steps))
