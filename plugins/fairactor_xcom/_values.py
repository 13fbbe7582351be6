"""The values of a run, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import msgspec

from fairactor import Handle
from fairactor.errors import InvalidPayload
from fairactor.plugins import Client
from fairactor.serialization import converter

NAME: Final = "fairactor_xcom"

MISSING: Final[Any] = type("Missing", (), {"__repr__": lambda _: "MISSING", "__bool__": lambda _: False})()
"""What a value is that is not there, where no default is given."""

TaskRef = Handle[Any] | str
"""A task, by its handle or its id."""
TaskRefs = TaskRef | Iterable[TaskRef] | Callable[[], Iterable[TaskRef]] | None
"""One, several, what returns several, such as `fairactor_dependencies.parents`; None: whichever."""


@attrs.frozen
class Value:
    """What is known of a value without reading it."""

    key: str
    task: str
    """The id of the task that has left it."""
    pushed_at: float
    """When its task finished, unix seconds by the server's clock."""
    expires_at: float | None
    """Until when it is kept; None: for ever."""


@attrs.frozen
class Values:
    """The values of one run of a tenant.

    Args:
        runtime: any that has the plugin.
        tenant: whose they are.
        run: the ``xcom_run=`` of the tasks that have left them, or the id of a task that had none.
    """

    runtime: Client
    tenant: str
    run: str

    async def pull(
        self,
        key: str,
        *,
        from_task: TaskRefs = None,
        type: Any = Any,  # noqa: A002 - as in msgspec
        default: Any = MISSING,
    ) -> Any:
        """The value of a key.

        Args:
            key: the key.
            from_task: the task that has left it, by handle or id; several give a list, and so does a function that
                returns them, such as ``fairactor_dependencies.parents``. None: the last one of the run.
            type: what to make of it, as cattrs does; by default it stays as JSON has it.
            default: what it is where there is none (any more).

        Raises:
            InvalidPayload: it is no such type.
            KeyError: there is none, and no default was given.
        """
        given, several = listed(from_task)
        tasks = ["" if task is None else id_of(task) for task in given]
        found = (
            await self.runtime.host.call(f"{NAME}/pull", self.tenant, self.tenant, self.run, key, *tasks)
            if tasks
            else []
        )
        values = [
            self._missing(key, task, default) if packed is None else decode(key, packed, type)
            for task, packed in zip(tasks, found, strict=True)
        ]
        return values if several else values[0]

    async def list(self) -> list[Value]:
        """All values of the run, the oldest first."""
        flat = iter(await self.runtime.host.call(f"{NAME}/list", self.tenant, self.tenant, self.run))
        found = [
            Value(key.decode(), task.decode(), int(came) / 1e6, int(till) / 1000 or None)
            for task, key, till, came in zip(flat, flat, flat, flat, strict=True)
        ]
        return sorted(found, key=lambda value: (value.pushed_at, value.key, value.task))

    async def delete(self, key: str, *, from_task: TaskRef | None = None) -> int:
        """Deletes the values of a key, all or that of one task; returns how many there were."""
        task = "" if from_task is None else id_of(from_task)
        return int(await self.runtime.host.call(f"{NAME}/delete", self.tenant, self.tenant, self.run, key, task))

    async def clear(self) -> int:
        """Deletes all values of the run; returns how many there were."""
        return int(await self.runtime.host.call(f"{NAME}/delete", self.tenant, self.tenant, self.run))

    def _missing(self, key: str, task: str, default: Any) -> Any:
        if default is MISSING:
            whose = f"task {task!r}" if task else f"run {self.run!r}"
            raise KeyError(
                f"{whose} of tenant {self.tenant!r} has no value {key!r} (any more): it was not pushed, its task has "
                "not finished, or its time is over. Give default= where that may be"
            )
        return default


def decode(key: str, packed: bytes | str, kind: Any) -> Any:
    """A value as it is stored, as a type.

    Raises:
        InvalidPayload: it is none.
    """
    value = msgspec.json.decode(packed)
    try:
        return value if kind is Any else converter.structure(value, kind)
    except Exception as error:
        raise InvalidPayload(f"the value {key!r} is no {getattr(kind, '__name__', kind)}: {error}") from error


def listed(tasks: TaskRefs) -> tuple[list[Any], bool]:
    """Tasks as a list, and whether they were given as several."""
    if callable(tasks):
        return list(tasks()), True
    if tasks is None or isinstance(tasks, Handle | str):
        return [tasks], False
    return list(tasks), True


def id_of(task: TaskRef) -> str:
    """The id of a task."""
    return task if isinstance(task, str) else task.id
