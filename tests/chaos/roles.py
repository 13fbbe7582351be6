"""What the workers of a seed can run: all alike, or each kind something else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import attrs

QUEUE: Final = "gpu"
"""A queue beside the default one."""
_EVERYWHERE: Final = (
    "echo", "piece", "broken", "killer", "self_canceler", "exiter", "thread_exiter", "blocker", "process_echo",
    "process_exiter", "process_killer", "process_hanger",
)  # fmt: skip
_IN_QUEUE: Final = ("echo", "flaky", "parent")
_MAY_BE_IN_QUEUE: Final = (*_IN_QUEUE, "narrow")


@attrs.frozen
class Role:
    """A kind of workers."""

    actors: Sequence[str] = ()
    """The names of their actors; none: all of them."""
    queues: Sequence[str] | None = None
    """The queues that they serve; None: all."""

    @property
    def settings(self) -> dict[str, Any]:
        return {} if self.queues is None else {"queues": list(self.queues)}

    def runs(self, actor: str, queue: str) -> bool:
        """Whether these workers can run such tasks."""
        return (not self.actors or actor in self.actors) and (self.queues is None or queue in self.queues)


ALIKE: Final = (Role(),)
APART: Final = (
    Role((*_EVERYWHERE, "flaky", "parent")), Role((*_EVERYWHERE, "plain", "doomed"), ["default"]),
    Role(_IN_QUEUE, [QUEUE]),
)  # fmt: skip
"""Three kinds; each actor and queue has workers of at least one of them."""
LIMITED_APART: Final = tuple(
    Role((*role.actors, *more), role.queues)
    for role, more in zip(APART, (("narrow",), ("narrow", "single"), ("narrow",)), strict=True)
)
"""Likewise, with actors that have limits."""


def queue_for(rng: random.Random, actor: str) -> str | None:
    """Returns the queue of a task, if it is not the default one."""
    return QUEUE if actor in _MAY_BE_IN_QUEUE and rng.random() < 0.3 else None
