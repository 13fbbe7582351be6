"""The plugin, and what handlers use."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from fairactor import Task, current_task
from fairactor.errors import PayloadTooLarge, RuntimeNotRunning
from fairactor.plugins import Option, ProceedExecute, check_name, check_seconds, read_lua, to_seconds, whole_ms
from fairactor.serialization import converter, encode_json

from ._values import MISSING, NAME, TaskRef, TaskRefs, Value, Values, decode, id_of, listed

TTL: Final = 86400.0
"""Seconds for which a value is kept, if nothing else is said."""
MAX_VALUE: Final = 64 * 1024
"""The longest value, in bytes of JSON."""


def _key(value: Any) -> str:
    return check_name("xcom key", value)


def _run(value: Any) -> str:
    return check_name("xcom_run", value)


Option("xcom", plugin=NAME, convert=_key)
Option("xcom_run", plugin=NAME, convert=_run)


class XCom:
    """The plugin. It is installed with fairactor, so every runtime has it that is not told otherwise."""

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

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Pushes the result of an actor with ``xcom=``."""
        result = await proceed()
        await xcom.push(task.options["xcom"], result)
        return result


class _Here:
    """XCom in a handler: the values of the run that its task belongs to."""

    async def push(self, key: str, value: Any, *, ttl: float | timedelta | None = None) -> None:
        """Leaves a value for others, who see it when this task has finished. A later one of the same key replaces it.

        Args:
            key: any text.
            value: anything that cattrs has a form for.
            ttl: for how many seconds it is kept; None: a day; 0: for ever, until it is deleted.

        Raises:
            ConfigurationError: a key or a time that cannot be.
            NotSerializable: the value has no JSON form. PayloadTooLarge: it is longer than 64 KiB.
            RuntimeNotRunning: this is not in a handler.
        """
        _key(key)
        after = to_seconds(ttl)
        kept = TTL if after is None else check_seconds("ttl", after)
        packed = encode_json(f"xcom value {key!r} ", converter.unstructure(value))
        if len(packed) > MAX_VALUE:
            raise PayloadTooLarge(
                f"xcom value {key!r}: {len(packed)} bytes, the limit is {MAX_VALUE}; store it elsewhere and push where"
            )
        task = current_task()
        run, values = (task.attachments or {}).get(NAME, (_run_of(task), []))
        others = [pushed for pushed in values if pushed[0] != key]
        task.attach(NAME, (run, [*others, (key, packed.decode(), whole_ms(kept))]))

    async def pull(
        self,
        key: str,
        *,
        from_task: TaskRefs = None,
        type: Any = Any,  # noqa: A002 - as in Values
        default: Any = MISSING,
    ) -> Any:
        """As `Values.pull`, of this run; what this task has pushed itself it sees already.

        In a task without ``xcom_run=``, ``from_task`` is one that had none either.
        """
        task = current_task()
        _, pushed = (task.attachments or {}).get(NAME, ("", []))
        for own, packed, _ in pushed:
            if own == key and (from_task is None or from_task == task.id):
                return decode(key, packed, type)
        values = self.values()
        if from_task is None or "xcom_run" in task.options:
            return await values.pull(key, from_task=from_task, type=type, default=default)
        given, several = listed(from_task)
        found = [
            await attrs.evolve(values, run=id_of(each)).pull(key, from_task=each, type=type, default=default)
            for each in given
        ]
        return found if several else found[0]

    async def list(self) -> builtins.list[Value]:
        """As `Values.list`, of this run."""
        return await self.values().list()

    async def delete(self, key: str, *, from_task: TaskRef | None = None) -> int:
        """As `Values.delete`, of this run."""
        return await self.values().delete(key, from_task=from_task)

    async def clear(self) -> int:
        """As `Values.clear`, of this run."""
        return await self.values().clear()

    def values(self) -> Values:
        """The values of the run that the running task belongs to.

        Raises:
            RuntimeNotRunning: this is not in a handler, or in one that was called without a server.
        """
        task = current_task()
        if task.runtime is None:
            raise RuntimeNotRunning(
                "xcom needs a server: send the message; awaited in place it has no values of others"
            )
        return Values(task.runtime, task.tenant, _run_of(task))


xcom: Final = _Here()
"""XCom in a handler: ``await xcom.push(key, value)``, ``await xcom.pull(key)``."""


def _run_of(task: Task) -> str:
    run: str = task.options.get("xcom_run", task.id)
    return run
