"""Graphs of messages: what ``>>``, ``<<`` and ``|`` make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, cast

import attrs

from fairactor import Handle
from fairactor.plugins import Addressed, Graph, Host, Operand, Run

from ._plan import Ends, Plan, Planned, Planner, check_parts, is_operand
from ._run import prepare_run

_DEEPEST: Final = 100
"""The most graphs inside each other that are planned at once. What lies deeper is planned before."""


@attrs.define(eq=False, repr=False)
class MessageGraph(Planned):
    """See `Graph`.

    A graph is planned when somebody needs the plan, so a graph that grows in a loop, ``graph = graph >> step``, costs
    no more than one that is made at once. Such a graph shares the list of its parts with the graph before it.
    """

    _parts: list[object]
    _many: int
    """How many of the parts belong to this graph."""
    _in_sequence: bool = attrs.field(alias="in_sequence")
    _depth: int = 0
    _plan: Plan | None = attrs.field(default=None, alias="plan")

    @classmethod
    def of(cls, parts: Sequence[object], *, in_sequence: bool) -> MessageGraph:
        """Makes a graph of parts.

        Raises:
            ConfigurationError: a part is neither a message nor a graph.
        """
        check_parts(parts)
        made = cls(list(parts), len(parts), in_sequence)
        made._sink(parts)
        return made

    @classmethod
    def planned(cls, plan: Plan) -> Self:
        """Makes a graph of a plan."""
        return cls([], 0, in_sequence=False, plan=plan)

    def grown(self, part: object) -> MessageGraph:
        """Returns a graph with one more part."""
        check_parts([part])
        parts = self._parts if len(self._parts) == self._many else self._parts[: self._many]
        parts.append(part)
        made = MessageGraph(parts, len(parts), self._in_sequence, self._depth)
        made._sink([part])
        return made

    def is_open(self, *, in_sequence: bool) -> bool:
        """Returns whether `grown` adds what an operator of this kind adds."""
        return bool(self._parts) and self._in_sequence is in_sequence

    def _sink(self, parts: Iterable[object]) -> None:
        self._depth = max(self._depth, *(_depth_of(part) + 1 for part in parts), 0)
        if self._depth > _DEEPEST:
            _ = self.plan

    @property
    def depth(self) -> int:
        """How many graphs lie inside each other, without those that were planned."""
        return 0 if self._plan else self._depth

    @property
    def plan(self) -> Plan:
        """See `Planned`."""
        if self._plan is None:
            planner = Planner()
            self._plan = planner.plan(self.add_to(planner))
        return self._plan

    def add_to(self, planner: Planner) -> Ends:
        """See `Planned`."""
        if self._plan is not None:
            return planner.add_plan(self._plan)
        parts = self._parts[: self._many]
        return planner.in_sequence(parts) if self._in_sequence else planner.side_by_side(parts)

    def __rshift__(self, other: Any) -> Any:
        return then(self, other)

    def __lshift__(self, other: Operand) -> Graph:
        return after(self, other)

    def __or__(self, other: Any) -> Any:
        return beside(self, other)

    def __rrshift__(self, other: Operand) -> Graph:
        return then(other, self)

    def __rlshift__(self, other: Operand) -> Graph:
        return after(other, self)

    def __ror__(self, other: Operand) -> Graph:
        return beside(other, self)

    def __repr__(self) -> str:
        return f"<graph of {len(self.plan.steps)} messages>"

    def __len__(self) -> int:
        return len(self.plan.in_order()[0])

    def to_mermaid(self) -> str:
        """See `Graph`."""
        return self.plan.to_mermaid()

    def prepare(
        self, host: Host, tenant: str, run_id: str | None = None
    ) -> tuple[list[Addressed], Callable[[Sequence[Handle[Any]]], Run]]:
        """See `Graph`."""
        return prepare_run(host, tenant, self.plan, run_id)

    async def send_to(self, host: Host, tenant: str) -> Run:
        """See `Graph`."""
        messages, sent = self.prepare(host, tenant)
        return sent(await host.runtime.send_many(messages))


def graph(*parts: Operand) -> Graph:
    """Makes one graph of messages, graphs and lists of them, which run side by side.

    It also contains the messages whose results they take.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph.of(parts, in_sequence=False)


def group(*parts: Operand) -> Graph:
    """Runs all parts side by side: ``a | b | c``.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph.of(parts, in_sequence=False)


def chain(*parts: Operand) -> Graph:
    """Runs the parts one after the other: ``a >> b >> c``. The members of a list run side by side.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph.of(parts, in_sequence=True)


def at(tenant: str, part: Operand) -> Graph:
    """Sends a message, or the messages of a graph or a list, to another tenant than the rest of the run.

    The messages whose results they take go to that tenant too, unless the graph names them elsewhere.

    Raises:
        ConfigurationError: the part is neither a message nor a graph.
    """
    return MessageGraph.planned(MessageGraph.of([part], in_sequence=False).plan.for_tenant(tenant))


def then(left: object, right: object) -> Graph:
    """Applies ``left >> right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return _combine(left, right, in_sequence=True)


def after(left: object, right: object) -> Graph:
    """Applies ``left << right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return then(right, left)


def beside(left: object, right: object) -> Graph:
    """Applies ``left | right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return _combine(left, right, in_sequence=False)


def _combine(left: object, right: object, *, in_sequence: bool) -> Graph:
    if not (is_operand(left) and is_operand(right)):
        return cast("Graph", NotImplemented)
    if isinstance(left, MessageGraph) and left.is_open(in_sequence=in_sequence):
        return left.grown(right)
    return MessageGraph.of((left, right), in_sequence=in_sequence)


def _depth_of(part: object) -> int:
    if isinstance(part, list | tuple):
        return max((_depth_of(member) for member in part), default=0)
    return part.depth if isinstance(part, MessageGraph) else 0
