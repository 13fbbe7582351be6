"""A tenant, as a runtime sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from .errors import ConfigurationError
from .handle import Handle
from .message import Message
from .shard import Counts

if TYPE_CHECKING:
    from .runtime import Runtime

R = TypeVar("R")

WEIGHTS: Final = (1e-3, 1e6)
"""The least and the most that a weight may be: beyond it, tags would lose their precision."""


@attrs.frozen
class Policy:
    """How a tenant is served."""

    weight: float = 1.0
    """Its share of service beside tenants of weight 1."""
    concurrency: int | None = None
    """The most of its tasks that run at once, over the whole fleet; None: no limit."""


@attrs.frozen
class Tenant:
    """One tenant of a runtime's namespace."""

    _runtime: Runtime
    name: str

    async def send(self, message: Message[R], **options: Any) -> Handle[R]:
        """As `Runtime.send`, to this tenant."""
        return await self._runtime.send(self.name, message, **options)

    async def ask(self, message: Message[R], *, timeout: float | None = None, **options: Any) -> R:  # noqa: ASYNC109
        """As `Runtime.ask`, to this tenant."""
        return await self._runtime.ask(self.name, message, timeout=timeout, **options)

    async def configure(self, **policy: Any) -> Policy:
        """Changes how the tenant is served, for the whole fleet at once; returns the policy as it is now.

        Args:
            policy: ``weight=`` (more than 0; None: 1) and ``concurrency=`` (1 or more: that many tasks at once, 1 is
                a classic actor; None: no limit). What is left out stays as it is.

        Raises:
            ConfigurationError: a value cannot work; nothing is changed.
        """
        changes: dict[str, float | None] = {}
        for key, value in policy.items():
            if key == "weight":
                changes[key] = None if value is None else _weight(value)
            elif key == "concurrency":
                if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                    raise ConfigurationError(f"concurrency={value!r}: give a whole number, 1 or more, or None")
                changes[key] = value
            else:
                raise ConfigurationError(f"a tenant has no {key!r} to configure; there are weight and concurrency")
        self._runtime.check()
        now = await self._runtime.shard(self.name).configure(self.name, changes)
        concurrency = now.get("concurrency")
        return Policy(now.get("weight", 1.0), None if concurrency is None else int(concurrency))

    async def stats(self) -> Counts:
        """How many tasks it has in each state, at a cost that does not depend on how many."""
        self._runtime.check()
        return await self._runtime.shard(self.name).tenant_stats(self.name)


def _weight(value: float) -> float:
    least, most = WEIGHTS
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"weight={value!r}: give a number from {least:g} to {most:g}, or None")
    return float(value)
