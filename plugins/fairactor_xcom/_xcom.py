"""The plugin, and `xcom`, which handlers use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

from fairactor import Task, current_task
from fairactor.errors import ConfigurationError, NotSerializable, PayloadTooLarge, RuntimeNotRunning
from fairactor.plugins import (
    Option,
    ProceedExecute,
    UnstorableResult,
    check_name,
    check_seconds,
    read_lua,
    shown,
    to_seconds,
    unknown,
    whole_ms,
)

from ._values import NAME, RunValues, Stored, Values, check_key, encode, read_values

TTL: Final = 86400.0
"""Seconds for which a value is kept, unless somebody says otherwise."""
MAX_VALUE: Final = 64 * 1024
"""The largest value, in bytes of JSON."""
MAX_VALUES: Final = 1_000
"""The most values of a task."""
MAX_TOTAL: Final = 64 * MAX_VALUE
"""The most bytes of JSON of a task's values together."""

_check_run: Final = partial(check_name, "xcom_run")


def _to_ttl(setting: str, value: float | timedelta) -> float:
    seconds = to_seconds(value)
    return check_seconds(setting, TTL if seconds is None else seconds)


Option[str]("xcom", plugin=NAME, convert=check_key)
Option[str]("xcom_run", plugin=NAME, convert=_check_run)
Option[float | timedelta]("xcom_ttl", plugin=NAME, convert=partial(_to_ttl, "xcom_ttl"))


class XCom:
    """The plugin. It is installed with fairactor, so every runtime uses it unless ``without_plugins=`` names it.

    Args:
        ttl: the seconds (or a timedelta) for which the values of this runtime's tasks are kept, unless the task has
            ``xcom_ttl=`` or ``push`` has ``ttl=``; 0 keeps them until they are deleted. To change it:
            ``Runtime(plugins=[XCom(ttl=3600)])``.

    Raises:
        ConfigurationError: the time is invalid.
    """

    name = NAME
    section = "xcom"
    only_with: Final = ("xcom",)

    def __init__(self, *, ttl: float | timedelta = TTL) -> None:
        self.ttl: Final = _to_ttl("XCom(ttl=)", ttl)

    def check_section(self, table: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], str]]:
        """See `fairactor.plugins.Configurable`."""
        for key, value in table.items():
            if key != "ttl":
                yield (key,), unknown(key, ["ttl"], "setting")
                continue
            try:
                check_seconds("ttl", value)
            except ConfigurationError as error:
                yield (key,), str(error)

    def configured(self, table: Mapping[str, Any]) -> XCom:
        """Returns a plugin with the settings of a configuration."""
        return XCom(**table)

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
        return {"index:*": "zset", "expiry:*": "zset", "run:*": "string", "*": "hash"}

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

    ``pull`` also sees what this task has pushed so far. If its run has no value, it looks for one of the task's
    parents in a graph or in ``depends_on=``, whatever their runs are. ``from_task=`` finds tasks of other runs, too.
    """

    async def push(self, key: str, value: object, *, ttl: float | timedelta | None = None) -> None:
        """Stores a value for other tasks, which see it once this task has finished.

        It replaces what this task pushed under the same key before.

        Args:
            key: any string.
            value: anything that can be an argument. What JSON does not have, such as a date or an object of a class,
                has to be pulled with its ``type=``.
            ttl: for how many seconds to keep it; None: as ``xcom_ttl=`` of the task says, or else the plugin, which
                says a day by default; 0: until it is deleted.

        Raises:
            ConfigurationError: the key or the time cannot work, or the runtime does not use the plugin.
            NotSerializable: the value has no JSON form. PayloadTooLarge: it is larger than 64 KiB, or
                the task has pushed 1,000 values or 4 MiB.
            RuntimeNotRunning: it is called outside a handler.
        """
        check_key(key)
        task = current_task()
        kept = _default_ttl(task) if ttl is None else _to_ttl("ttl", ttl)
        packed = encode(key, value)
        if len(packed) > MAX_VALUE:
            raise PayloadTooLarge(
                f"xcom value {shown(key)}: {len(packed)} bytes, the limit is {MAX_VALUE}; store it elsewhere and push "
                "its address"
            )
        others = [pushed for pushed in _pushed(task) if pushed[0] != key]
        if len(others) >= MAX_VALUES or len(packed) + sum(len(pushed[1]) for pushed in others) > MAX_TOTAL:
            raise PayloadTooLarge(
                f"xcom value {shown(key)}: with it the task would have {len(others) + 1} values, and {MAX_VALUES} of "
                f"{MAX_TOTAL} bytes together are the limit; push fewer larger ones, or the address of where they are"
            )
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

    async def _read(self, key: str, tasks: Sequence[str]) -> Sequence[Stored | None]:
        task, run = current_task(), _run_of(current_task())
        own = {each: packed for pushed, packed, _ in _pushed(task) if pushed == key for each in ("", task.id)}
        found: dict[str, Stored | None] = {each: Stored(packed) for each, packed in own.items()}

        async def read(places: Sequence[tuple[str, str]]) -> list[Stored | None]:
            return await read_values(self.values(), key, places) if places else []

        others = [each for each in dict.fromkeys(tasks) if each not in found]
        found.update(zip(others, await read([(run, each) for each in others]), strict=True))
        elsewhere = [each for each in others if each and found[each] is None]
        found.update(zip(elsewhere, await read([("", each) for each in elsewhere]), strict=True))
        if "" in others and found[""] is None:
            of_parents = await read([("", parent) for parent in task.options.get("depends_on", ())])
            found[""] = max(filter(None, of_parents), key=lambda stored: stored.stored_at, default=None)
        return [found[each] for each in tasks]


xcom: Final = _CurrentRun()
"""The values of the running task's run: ``await xcom.push(key, value)``, ``await xcom.pull(key)``."""


def _default_ttl(task: Task) -> float:
    """Returns for how many seconds the values of a task are kept.

    Raises:
        ConfigurationError: its runtime does not use the plugin.
    """
    plugin = XCom() if task.runtime is None else task.runtime.host.plugins.get(NAME)
    if plugin is None:
        raise ConfigurationError(
            f"xcom.push() needs the plugin {NAME!r}, which this Runtime leaves out: take it out of without_plugins="
        )
    ttl: float = task.options.get("xcom_ttl", plugin.ttl)
    return ttl


def _run_of(task: Task) -> str:
    run: str = task.options.get("xcom_run", task.id)
    return run


def _pushed(task: Task) -> list[tuple[str, str, int]]:
    """Returns what a task has pushed so far: (key, JSON, ms to keep it)."""
    pushed: list[tuple[str, str, int]] = (task.attachments or {}).get(NAME, ("", []))[1]
    return pushed
