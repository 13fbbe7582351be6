"""The plugin, and `xcom`, which handlers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import attrs

from fairactor import Task, current_task
from fairactor.errors import NotSerializable, PayloadTooLarge, RuntimeNotRunning
from fairactor.plugins import (
    Option,
    ProceedExecute,
    UnstorableResult,
    check_name,
    check_seconds,
    read_lua,
    shown,
    to_seconds,
    whole_ms,
)
from fairactor.serialization import value_to_json

from ._values import NAME, RunValues, Values, check_key, read_values

TTL: Final = 86400.0
"""Seconds for which a value is kept by default."""
MAX_VALUE: Final = 64 * 1024
"""The largest value, in bytes of JSON."""

_check_run: Final = partial(check_name, "xcom_run")

Option[str]("xcom", plugin=NAME, convert=check_key)
Option[str]("xcom_run", plugin=NAME, convert=_check_run)


class XCom:
    """The plugin. It is installed with fairactor, so every runtime uses it unless ``plugins=`` leaves it out."""

    name = NAME
    only_with: Final = ("xcom",)

    @property
    def lua(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaHooks`."""
        return {"ended": read_lua(NAME, "ended")}

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {script: read_lua(NAME, script) for script in ("pull", "list", "delete")}

    @property
    def lua_keys(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaKeys`."""
        return {"*": "hash"}

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Pushes the result of a task that has the option ``xcom=``, under that key."""
        result = await proceed()
        try:
            await xcom.push(task.options["xcom"], result)
        except (NotSerializable, PayloadTooLarge) as error:
            raise UnstorableResult(error) from error
        return result


class _CurrentRun(RunValues):
    """The values of the run that the running task belongs to.

    ``pull`` also sees what this task has pushed so far. In a task without ``xcom_run=``, ``from_task=`` names other
    tasks without it.
    """

    async def push(self, key: str, value: object, *, ttl: float | timedelta | None = None) -> None:
        """Stores a value for other tasks, which see it once this task has finished.

        It replaces what this task pushed under the same key before.

        Args:
            key: any string.
            value: anything that can be an argument.
            ttl: for how many seconds to keep it; None: for a day; 0: until it is deleted.

        Raises:
            ConfigurationError: the key or the time cannot work.
            NotSerializable: the value has no JSON form. PayloadTooLarge: it is larger than 64 KiB.
            RuntimeNotRunning: it is called outside a handler.
        """
        check_key(key)
        seconds = to_seconds(ttl)
        kept = TTL if seconds is None else check_seconds("ttl", seconds)
        packed = value_to_json(f"xcom value {shown(key)} ", value)
        if len(packed) > MAX_VALUE:
            raise PayloadTooLarge(
                f"xcom value {shown(key)}: {len(packed)} bytes, the limit is {MAX_VALUE}; store it elsewhere and push "
                "its address"
            )
        task = current_task()
        others = [pushed for pushed in _pushed(task) if pushed[0] != key]
        task.attach(NAME, (_run_of(task), [*others, (key, packed.decode(), whole_ms(kept))]))

    def values(self) -> Values:
        """Returns the values of the run that the running task belongs to.

        Raises:
            RuntimeNotRunning: it is called outside a handler, or in a handler that runs without a server.
        """
        task = current_task()
        if task.runtime is None:
            raise RuntimeNotRunning(
                "xcom needs a server to read values of other tasks: send the message instead of awaiting it"
            )
        return Values(task.runtime, task.tenant, _run_of(task))

    def _run(self) -> Values:
        return self.values()

    async def _read(self, key: str, tasks: Sequence[str]) -> Sequence[bytes | str | None]:
        task = current_task()
        own = {each: packed for pushed, packed, _ in _pushed(task) if pushed == key for each in ("", task.id)}
        others = [each for each in tasks if each not in own]
        stored: dict[str, bytes | None] = {}
        if others and ("xcom_run" in task.options or others == [""]):
            stored = dict(zip(others, await read_values(self.values(), key, others), strict=True))
        else:  # each task is a run by itself
            for each in others:
                (stored[each],) = await read_values(attrs.evolve(self.values(), run=each), key, [each])
        return [own[each] if each in own else stored[each] for each in tasks]


xcom: Final = _CurrentRun()
"""The values of the running task's run: ``await xcom.push(key, value)``, ``await xcom.pull(key)``."""


def _run_of(task: Task) -> str:
    run: str = task.options.get("xcom_run", task.id)
    return run


def _pushed(task: Task) -> list[tuple[str, str, int]]:
    """Returns what a task has pushed so far: (key, JSON, ms to keep it)."""
    pushed: list[tuple[str, str, int]] = (task.attachments or {}).get(NAME, ("", []))[1]
    return pushed
