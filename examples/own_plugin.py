"""A custom plugin: a spending limit for each tenant, and an audit trail.

It adds the option ``cost``, wraps sending to refuse messages that a tenant cannot pay for, and observes tasks that
finish or fail for good. It counts in the memory of one process: with several, each would allow the whole limit, and a
restart would forget what was spent. So keep such numbers in a database, or in Redis as the plugins of fairactor do.

As a package with an entry point it would be discovered automatically: docs/write-a-plugin.md says how.

It prints::

    refused: acme has spent 6 of 10, and 5 more is asked
    acme: summarize for 1 gave 'a lon'
    acme: translate failed: nothing to translate
    globex: translate for 5 gave 'TWO'
    this process has spent {'acme': 6.0, 'globex': 5.0}; another one would count for itself
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fairactor import Handle, Runtime, Task, actor
from fairactor.errors import ConfigurationError
from fairactor.plugins import Addressed, Option, ProceedSend

NAME: Final = "budget"


class OverBudget(Exception):
    """A tenant would spend more than its limit."""


def _cost(value: float) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise ConfigurationError(f"cost={value!r}: give a number, 0 or more")
    return float(value)


cost = Option("cost", plugin=NAME, convert=_cost)


class Budget:
    """Limits what each tenant spends by sending from this process, and records what became of its tasks here."""

    name = NAME

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.spent: Counter[str] = Counter()
        self.trail: list[str] = []

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Accepts a whole send or refuses it."""
        wanted: Counter[str] = Counter()
        for tenant, message in messages:
            wanted[tenant] += message.task_options.plugin_options.get("cost", 0)
        for tenant, more in wanted.items():
            if self.spent[tenant] + more > self.limit:
                raise OverBudget(
                    f"{tenant} has spent {self.spent[tenant]:g} of {self.limit:g}, and {more:g} more is asked"
                )
        handles = await proceed(messages)
        self.spent.update(wanted)
        return handles

    def finished(self, task: Task, result: Any) -> None:
        """Records a finished task."""
        self.trail.append(f"{task.tenant}: {task.actor} for {task.options.get('cost', 0):g} gave {result!r}")

    def dead(self, task: Task, error: BaseException) -> None:
        """Records a task that failed for good."""
        self.trail.append(f"{task.tenant}: {task.actor} failed: {error}")


@actor(cost(1))
async def summarize(text: str) -> str:
    """Summarizes a text, cheaply."""
    return text[:5]


@actor(cost(5))
async def translate(text: str) -> str:
    """Translates a text, at a higher cost."""
    if not text:
        raise ValueError("nothing to translate")
    return text.upper()


async def main() -> None:
    """Spends until the budget is used up."""
    logging.getLogger("fairactor").setLevel(logging.ERROR)  # one task fails on purpose
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
    print(f"this process has spent {dict(sorted(budget.spent.items()))}; another one would count for itself")


if __name__ == "__main__":
    asyncio.run(main())
