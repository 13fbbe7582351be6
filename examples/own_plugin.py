"""A plugin of one's own: a spending limit of each tenant, which an option of its messages counts against, and a trail.

It wraps sending, to refuse what a tenant cannot pay for; it observes what finishes and what fails for good; and it adds
the option ``cost=``. As a package with an entry point it would be found by itself: see docs/write-a-plugin.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fairactor import Handle, Runtime, actor
from fairactor._actors.task import Task
from fairactor.errors import ConfigurationError
from fairactor.plugins import Addressed, Option, ProceedSend

NAME: Final = "budget"


class OverBudget(Exception):
    """A tenant would spend more than it has."""


def _cost(value: Any) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise ConfigurationError(f"cost={value!r}: give a number, 0 or more")
    return float(value)


Option("cost", plugin=NAME, convert=_cost)


class Budget:
    """Lets each tenant spend so much, and writes down what became of its tasks."""

    name: Final = NAME

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent: Counter[str] = Counter()
        self.trail: list[str] = []

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Refuses all of a send, or none of it."""
        wanted: Counter[str] = Counter()
        for tenant, message in messages:
            wanted[tenant] += message.how.of_plugins.get("cost", 0)
        for tenant, cost in wanted.items():
            if self.spent[tenant] + cost > self.limit:
                raise OverBudget(
                    f"{tenant} has spent {self.spent[tenant]:g} of {self.limit:g}, and {cost:g} more is asked"
                )
        handles = await proceed(messages)
        self.spent.update(wanted)
        return handles

    def finished(self, task: Task, result: Any) -> None:
        """Notes a task that has finished."""
        self.trail.append(f"{task.tenant}: {task.actor} for {task.options.get('cost', 0):g} gave {result!r}")

    def dead(self, task: Task, error: BaseException) -> None:
        """Notes a task that has failed for good."""
        self.trail.append(f"{task.tenant}: {task.actor} failed: {error}")


@actor(cost=1)
async def summarize(text: str) -> str:
    """Costs little."""
    return text[:5]


@actor(cost=5)
async def translate(text: str) -> str:
    """Costs more."""
    if not text:
        raise ValueError("nothing to translate")
    return text.upper()


async def main() -> None:
    """Spends until nothing is left."""
    logging.getLogger("fairactor").setLevel(logging.ERROR)  # one of these is meant to fail
    budget = Budget(limit=10)
    async with Runtime(actors=[summarize, translate], plugins=[budget]) as runtime:
        await runtime.ask("acme", summarize("a long text"))
        await runtime.send("acme", translate(""))
        try:
            await runtime.send_many([("acme", translate("one")), ("globex", translate("two"))])
        except OverBudget as refused:
            print(f"refused: {refused}")
        await runtime.ask("globex", translate("two"))
        await runtime.drain()
    print(*sorted(budget.trail), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
