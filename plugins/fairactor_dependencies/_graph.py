"""Graphs of messages: what ``>>``, ``<<`` and ``|`` make, and what is sent whole."""

from __future__ import annotations

from typing import Any

import attrs

from fairactor.plugins import Graph, Host, Operand, Run

from ._plan import Plan, in_sequence, is_part, plan_of, side_by_side
from ._run import send_plan


@attrs.frozen(eq=False)
class MessageGraph(Graph):
    """See `Graph`."""

    plan: Plan

    def __rshift__(self, other: Operand) -> Graph:
        return chain(self, other) if is_part(other) else NotImplemented

    def __lshift__(self, other: Operand) -> Graph:
        return chain(other, self) if is_part(other) else NotImplemented

    def __or__(self, other: Operand) -> Graph:
        return group(self, other) if is_part(other) else NotImplemented

    def __rrshift__(self, other: Operand) -> Graph:
        return chain(other, self) if is_part(other) else NotImplemented

    def __rlshift__(self, other: Operand) -> Graph:
        return chain(self, other) if is_part(other) else NotImplemented

    def __ror__(self, other: Operand) -> Graph:
        return group(other, self) if is_part(other) else NotImplemented

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
    """Gives a message, or the messages of a graph, another tenant than the run's.

    The messages whose results they take get that tenant, too.
    """
    return MessageGraph(plan_of(part).for_tenant(tenant))


def then(left: Any, right: Any) -> Any:
    """``left >> right``."""
    return chain(left, right) if is_part(left) and is_part(right) else NotImplemented


def after(left: Any, right: Any) -> Any:
    """``left << right``."""
    return chain(right, left) if is_part(left) and is_part(right) else NotImplemented


def beside(left: Any, right: Any) -> Any:
    """``left | right``."""
    return group(left, right) if is_part(left) and is_part(right) else NotImplemented
