"""Plugins for tests: a base class with a name and a log, and a plugin that wraps sending and running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairactor import Handle, Task
from fairactor.plugins import Addressed, ProceedExecute, ProceedSend


class Named:
    def __init__(self, name: str = "", log: list[Any] | None = None, **rest: Any) -> None:
        self.name = name or type(self).__name__.lower()
        self.log = [] if log is None else log
        vars(self).update(rest)


class Wrapper(Named):
    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        self.log.append(f"{self.name} sends {len(messages)}")
        try:
            return await proceed(messages)
        finally:
            self.log.append(f"{self.name} sent")

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        self.log.append(f"{self.name} starts {task.actor}")
        try:
            return await proceed()
        finally:
            self.log.append(f"{self.name} ended")
