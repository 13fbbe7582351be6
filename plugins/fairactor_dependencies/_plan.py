"""Plans: the pure structure of a graph. They know which message runs before which, and nothing about sending."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any, Final, NamedTuple, TypeGuard

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
    closed: tuple[Step, ...] = ()
    """The last steps that only an empty group follows: the run waits for them, and takes no result of them."""
    implied: frozenset[Step] = frozenset()
    """The steps that nobody named, but whose results others take."""
    order: list[tuple[Step, Step]] = attrs.field(factory=list)
    """(parent, child), with an empty group in between: the child does not get the parent's result."""

    def in_order(self) -> tuple[list[Step], dict[Step, list[Step]]]:
        """Returns the steps, parents first, and the parents of each step.

        Raises:
            GraphError: the graph has a cycle.
        """
        parents: dict[Step, dict[Step, None]] = {step: {} for step in self.steps}
        for parent, child in (*self.edges, *self.order):
            parents[child][parent] = None
        return _topological_order(parents), {step: list(found) for step, found in parents.items()}

    def without_results(self) -> dict[Step, int]:
        """Returns how many of a step's parents, the last ones, do not give it their results."""
        if not self.order:
            return {}
        giving = set(self.edges)
        return Counter(child for parent, child in set(self.order) if (parent, child) not in giving)

    def to_mermaid(
        self,
        states: Mapping[Step, TaskState | None] | None = None,
        skipped: Collection[Step] = (),
        groups: Sequence[tuple[int, int, str]] = (),
    ) -> str:
        """Draws the plan as a Mermaid flowchart, with the states of its steps if they are given.

        Args:
            states: the states.
            skipped: the canceled steps that had nothing to do.
            groups: the items of each ``each()``, as (index of the step before, of the step after, text).
        """
        order, parents = self.in_order()
        numbers = {step: number for number, step in enumerate(order)}
        edges = [(numbers[parent], numbers[step]) for step in order for parent in parents[step]]
        words = (
            ["skipped" if step in skipped else state.value if (state := states[step]) else None for step in order]
            if states
            else []
        )
        return flowchart([label(step) for step in order], edges, words, groups)

    def for_tenant(self, tenant: str) -> Plan:
        """Returns a copy in which the steps without a tenant have this one."""
        return attrs.evolve(self, steps={step: own or tenant for step, own in self.steps.items()})


class Planned(Graph):
    """A graph with a plan."""

    __slots__ = ()

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """The steps, and their order."""

    @abstractmethod
    def add_to(self, planner: Planner) -> Ends:
        """Adds the steps to a plan."""


def is_operand(value: object) -> TypeGuard[Operand]:
    """Returns whether this may stand beside an operator: a message, a graph or a list."""
    return isinstance(value, Message | Planned | list | tuple)


def check_parts(parts: Iterable[object]) -> None:
    """Checks that all parts, and the members of lists among them, are messages or graphs.

    Raises:
        ConfigurationError: one is neither.
    """
    for part in parts:
        if isinstance(part, list | tuple):
            check_parts(part)
        elif not isinstance(part, Message | Planned):
            raise ConfigurationError(
                f"{shown(part)} cannot be a step of a graph: give messages, such as f(1), or graphs of messages"
            )


def last_step(part: Message[Any] | Graph) -> Step:
    """Returns a message itself, and the last step of a graph that has one."""
    if isinstance(part, Message):
        return part
    assert isinstance(part, Planned)  # noqa: S101 - `result_of` takes no others
    return part.plan.sinks[0]


def plan_of(part: Graph | Message[Any]) -> Plan:
    """Returns the plan of a graph or a message."""
    if isinstance(part, Planned):
        return part.plan
    planner = Planner()
    return planner.plan(planner.in_sequence([part]))


class Ends(NamedTuple):
    """The ends of a part of a graph, to which its neighbours are tied."""

    sources: tuple[Step, ...]
    sinks: tuple[Step, ...]
    closed: tuple[Step, ...]
    """The steps after which only an empty group comes."""


class Planner:
    """Makes a plan of parts that run side by side or one after the other."""

    def __init__(self) -> None:
        self._steps: dict[Step, str | None] = {}
        self._implied: set[Step] = set()
        self._edges: list[tuple[Step, Step]] = []
        self._order: list[tuple[Step, Step]] = []

    def plan(self, ends: Ends) -> Plan:
        """Returns the plan of what was added, with these ends."""
        return Plan(self._steps, self._edges, *ends, frozenset(self._implied), self._order)

    def in_sequence(self, parts: Iterable[object]) -> Ends:
        """Adds parts that run one after the other.

        An empty part gives no results, but what stands after it still waits for what stands before.
        """
        first: tuple[Step, ...] = ()
        sinks: tuple[Step, ...] = ()
        closed: tuple[Step, ...] = ()
        for part in parts:
            ends = self._add(part)
            if not ends.sources:
                sinks, closed = (), closed + sinks
                continue
            self._edges.extend(product(sinks, ends.sources))
            self._order.extend(product(closed, ends.sources))
            first = first or ends.sources
            sinks, closed = ends.sinks, ends.closed
        return Ends(first, sinks, closed)

    def side_by_side(self, parts: Iterable[object]) -> Ends:
        """Adds parts that run side by side. Empty ones change nothing."""
        found = [self._add(part) for part in parts]
        return Ends(*(_unique(step for ends in found for step in ends[which]) for which in range(3)))

    def _add(self, part: object) -> Ends:
        if isinstance(part, list | tuple):
            return self.side_by_side(part)
        if isinstance(part, Message):
            self._add_message(part)
            return Ends((part,), (part,), ())
        assert isinstance(part, Planned)  # noqa: S101 - checked when the graph was made
        return part.add_to(self)

    def add_plan(self, plan: Plan) -> Ends:
        """Adds a plan that was made before."""
        for step, tenant in plan.steps.items():
            self._name(step, tenant, named=step not in plan.implied)
        self._edges += plan.edges
        self._order += plan.order
        return Ends(plan.sources, plan.sinks, plan.closed)

    def _add_message(self, message: Step) -> None:
        """Adds a message and the steps whose results it takes."""
        known = message in self._steps
        self._name(message, None, named=True)
        if known:
            return
        found: list[Step] = [message]
        for step in found:  # it grows
            for result in results_in(step):
                if not isinstance(result.of, Message | Graph):
                    continue
                parent = last_step(result.of)
                self._edges.append((parent, step))
                if isinstance(result.of, Planned):
                    plan = result.of.plan
                    self.add_plan(attrs.evolve(plan, implied=frozenset(plan.steps)))
                elif parent not in self._steps:
                    self._name(parent, None, named=False)
                    found.append(parent)

    def _name(self, step: Step, tenant: str | None, *, named: bool) -> None:
        """Gives a step the tenant of the part that names it, otherwise of the part that takes its result.

        Raises:
            GraphError: two parts give it different tenants.
        """
        steps, implied = self._steps, self._implied
        if step not in steps:
            steps[step] = tenant
            if not named:
                implied.add(step)
        elif named and step in implied:
            steps[step] = tenant
            implied.discard(step)
        elif named or step in implied:
            known = steps[step]
            if known and tenant and known != tenant:
                raise GraphError(
                    f"{label(step)} cannot be a task of both {known!r} and {tenant!r}: make two messages of it"
                )
            steps[step] = known or tenant


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


def _unique(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(steps))
