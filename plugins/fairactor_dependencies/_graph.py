"""Graphs of messages: what ``>>``, ``<<`` and ``|`` make."""

from __future__ import annotations

import attrs

from fairactor.plugins import Graph, Host, Operand, Run

from ._plan import Plan, Planned, in_sequence, is_operand, side_by_side
from ._run import send_plan


@attrs.frozen(eq=False, repr=False)
class MessageGraph(Planned):
    """See `Graph`."""

    plan: Plan

    def __rshift__(self, other: Operand) -> Graph:
        return then(self, other)

    def __lshift__(self, other: Operand) -> Graph:
        return after(self, other)

    def __or__(self, other: Operand) -> Graph:
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

    async def send_to(self, host: Host, tenant: str) -> Run:
        """See `Graph`."""
        return await send_plan(host, tenant, self.plan)


def graph(*parts: Operand) -> Graph:
    """Makes one graph of messages, graphs and lists of them, which run side by side.

    It also contains the messages whose results they take.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph(side_by_side(parts))


def group(*parts: Operand) -> Graph:
    """Runs all parts side by side: ``a | b | c``.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph(side_by_side(parts))


def chain(*parts: Operand) -> Graph:
    """Runs the parts one after the other: ``a >> b >> c``. The members of a list run side by side.

    Raises:
        ConfigurationError: a part is neither a message nor a graph.
    """
    return MessageGraph(in_sequence(parts))


def at(tenant: str, part: Operand) -> Graph:
    """Sends a message, or the messages of a graph or a list, to another tenant than the rest of the run.

    The messages whose results they take go to that tenant too, unless the graph names them elsewhere.

    Raises:
        ConfigurationError: the part is neither a message nor a graph.
    """
    return MessageGraph(side_by_side([part]).for_tenant(tenant))


def then(left: object, right: object) -> Graph:
    """Applies ``left >> right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return chain(left, right) if is_operand(left) and is_operand(right) else NotImplemented


def after(left: object, right: object) -> Graph:
    """Applies ``left << right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return then(right, left)


def beside(left: object, right: object) -> Graph:
    """Applies ``left | right``; returns `NotImplemented` for other operands than messages, graphs and lists."""
    return group(left, right) if is_operand(left) and is_operand(right) else NotImplemented
