"""The values of a run: read, listed and deleted, from anywhere or in a handler."""

from __future__ import annotations

import builtins
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from types import UnionType
from typing import Any, Final, TypeVar, overload

import attrs

from fairactor import Handle
from fairactor.errors import ConfigurationError, InvalidPayload, NotSerializable
from fairactor.plugins import Client, check_name, shown, validate
from fairactor.serialization import encode_json, value_from_json, value_to_json

NAME: Final = "fairactor_xcom"

check_key: Final = partial(check_name, "xcom key")

_TYPED: Final = b" "
"""Stands before the JSON of a value that has to be pulled with a type. To JSON it is white space."""
_GOES_ON: Final = b"\xff"
"""Stands before an entry of the index, in place of a task: no id begins so."""
_AT_ONCE: Final = 100
"""The most values that one call reads."""

T = TypeVar("T")
D = TypeVar("D")

TaskRef = Handle[Any] | str
"""A task, by its handle or its id."""
TaskRefs = Iterable[TaskRef] | Callable[[], Iterable[TaskRef]]
"""Several tasks, or a function that returns them, such as `fairactor_dependencies.parents`."""


class _Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


@attrs.frozen
class Stored:
    """A value as it was read: JSON."""

    json: bytes | str
    stored_at: float = 0.0
    """Unix µs, by the server's clock."""


MISSING: Final = _Missing()
"""Stands for no default: without one, a value that does not exist is an error."""


@attrs.frozen
class Value:
    """A stored value, without the value itself."""

    key: str
    task: str
    """The id of the task that stored it."""
    pushed_at: float
    """When its task finished, in unix seconds by the server's clock."""
    expires_at: float | None
    """Until when it is kept; None: for ever."""


class RunValues(ABC):
    """The operations on the values of a run, which `Values` and `xcom` have in common."""

    __slots__ = ()

    @abstractmethod
    def _run(self) -> Values:
        """Returns the run."""

    # The overloads for one task come first, because a string is also an iterable of strings.
    @overload
    async def pull(self, key: str, *, from_task: TaskRef | None = None, type: type[T]) -> T: ...  # type: ignore[overload-overlap]
    @overload
    async def pull(self, key: str, *, from_task: TaskRef | None = None, type: type[T], default: D) -> T | D: ...  # type: ignore[overload-overlap]
    @overload
    async def pull(
        self, key: str, *, from_task: TaskRef | None = None, type: UnionType = ..., default: object = ...
    ) -> Any: ...
    @overload
    async def pull(self, key: str, *, from_task: TaskRefs, type: type[T]) -> builtins.list[T]: ...
    @overload
    async def pull(self, key: str, *, from_task: TaskRefs, type: type[T], default: D) -> builtins.list[T | D]: ...
    @overload
    async def pull(
        self, key: str, *, from_task: TaskRefs, type: UnionType = ..., default: object = ...
    ) -> builtins.list[Any]: ...

    async def pull(
        self,
        key: str,
        *,
        from_task: TaskRef | TaskRefs | None = None,
        type: Any = Any,  # noqa: A002 - as in msgspec
        default: Any = MISSING,
    ) -> Any:
        """Returns the value under a key.

        Args:
            key: the key.
            from_task: the task that stored it, by handle or id. For several tasks, or a function that returns them,
                such as ``fairactor_dependencies.parents``, it returns a list. None: the last value of the run that
                is still there. If there is none, ``xcom.pull`` takes the last one of the running task's parents.
            type: the type to convert it to, as annotations of handlers do. Without it, only a value that JSON has is
                returned: one that was pushed as a date or an object of a class would arrive as text or a dict.
            default: what to return if there is no such value.

        Raises:
            InvalidPayload: the value does not fit the type, or needs one.
            KeyError: there is no such value, and no default.
        """
        check_key(key)
        tasks, several = _to_ids(from_task)
        found = [
            self._missing(key, task, default) if stored is None else _decode(key, stored.json, type)
            for task, stored in zip(tasks, await self._read(key, tasks), strict=True)
        ]
        return found if several else found[0]

    async def list(self) -> builtins.list[Value]:
        """Lists all values of the run, the oldest first."""
        found: dict[tuple[str, str], Value] = {}
        for values in await _on_each_shard(self._run(), partial(_list, self._run())):
            for value in values:
                before = found.setdefault((value.task, value.key), value)
                if before.pushed_at < value.pushed_at:
                    found[value.task, value.key] = value
        return sorted(found.values(), key=lambda value: (value.pushed_at, value.key, value.task))

    async def delete(self, key: str, *, from_task: TaskRef | None = None) -> int:
        """Deletes the values under a key, of one task or of all; returns how many there were.

        Many are deleted in several steps, and those that are stored meanwhile may stay.
        """
        check_key(key)
        return await _delete(self._run(), key, "" if from_task is None else _id_of(from_task))

    async def clear(self) -> int:
        """Deletes all values of the run, as `delete` does; returns how many there were."""
        return await _delete(self._run())

    async def _read(self, key: str, tasks: Sequence[str]) -> Sequence[Stored | None]:
        """Reads the value of each task under a key; '' stands for the last value of the run."""
        run = self._run()
        return await read_values(run, key, [(run.run, task) for task in tasks])

    def _missing(self, key: str, task: str, default: Any) -> Any:
        if default is not MISSING:
            return default
        run = self._run()
        whose = f"task {task!r}" if task else f"run {run.run!r}"
        raise KeyError(
            f"{whose} of tenant {run.tenant!r} has no value {key!r}: it was not pushed, its task has not finished, or "
            "it has expired. If that can happen, give default="
        )


@attrs.frozen
class Values(RunValues):
    """The values of one run of a tenant.

    Args:
        runtime: any runtime with the plugin.
        tenant: the tenant.
        run: the ``xcom_run=`` of the tasks that stored the values, or the id of a task that had none.
    """

    runtime: Client
    tenant: str = attrs.field(validator=validate(check_name))
    run: str = attrs.field(validator=validate(check_name))

    def _run(self) -> Values:
        return self


async def read_values(run: Values, key: str, places: Sequence[tuple[str, str]]) -> builtins.list[Stored | None]:
    """Reads values of the tenant of a run under a key.

    Args:
        run: any run of the tenant.
        key: the key.
        places: for each value its run, or '' for the one that its task belongs to; and its task, or '' for the last
            value of the run.
    """
    found = await _on_each_shard(run, partial(_read_on, run, key, places))
    return [
        max(filter(None, stored), key=lambda each: each.stored_at, default=None) for stored in zip(*found, strict=True)
    ]


async def _on_each_shard(run: Values, call: Callable[[int], Awaitable[T]]) -> builtins.list[T]:
    """Calls a function with the number of each shard on which the tenant of a run is or was, and returns the replies.

    Values stay where they were pushed when their tenant moves to another shard.
    """
    host = run.runtime.host
    replies: dict[int, T] = {}
    while left := [number for number in host.shards_of(run.tenant) if number not in replies]:
        replies[left[0]] = await call(left[0])  # which may find out about more shards
    return [*replies.values()]


async def _list(run: Values, shard: int) -> builtins.list[Value]:
    found: builtins.list[Value] = []
    cursor: bytes | None = b""
    while cursor is not None:
        cursor, *reply = await _call(run, shard, "list", cursor)
        flat = iter(reply)
        found += [
            Value(key.decode(), task.decode(), int(pushed) / 1e6, int(until) / 1000 or None)
            for task, key, until, pushed in zip(flat, flat, flat, flat, strict=True)
        ]
    return found


async def _read_on(
    run: Values, key: str, places: Sequence[tuple[str, str]], shard: int
) -> builtins.list[Stored | None]:
    """Reads values on a shard, as `read_values` does."""
    found: builtins.list[Stored | None] = []
    left: builtins.list[tuple[str, str | bytes]] = [*reversed(places)]
    while left:
        flat = [part for place in left[: -_AT_ONCE - 1 : -1] for part in place]
        for reply in await run.runtime.host.call(f"{NAME}/pull", shard, run.tenant, key, *flat):
            of_run, _ = left.pop()
            if isinstance(reply, list):
                left.append((of_run, _GOES_ON + reply[0]))
            else:
                found.append(reply and Stored(reply[8:], struct.unpack_from(">d", reply)[0]))
    return found


async def _delete(run: Values, *which: str) -> int:
    return sum(await _on_each_shard(run, partial(_delete_on, run, which)))


async def _delete_on(run: Values, which: Sequence[str], shard: int) -> int:
    many, more = 0, 1
    while more:
        deleted, more = await _call(run, shard, "delete", *which)
        many += deleted
    return many


async def _call(run: Values, shard: int, script: str, *arguments: str | bytes) -> Any:
    return await run.runtime.host.call(f"{NAME}/{script}", shard, run.tenant, run.run, *arguments)


def encode(key: str, value: object) -> bytes:
    """Encodes a value to store.

    Raises:
        NotSerializable: it has no JSON form.
    """
    what = f"xcom value {shown(key)} "
    try:
        return encode_json(what, value)
    except NotSerializable:
        return _TYPED + value_to_json(what, value)


def _decode(key: str, packed: bytes | str, kind: Any) -> Any:
    """Decodes a stored value and converts it to a type.

    Raises:
        ConfigurationError: the type cannot be converted from JSON.
        InvalidPayload: the value does not fit, needs a type, or cannot be decoded.
    """
    encoded = packed.encode() if isinstance(packed, str) else packed
    if kind is Any and encoded.startswith(_TYPED):
        raise InvalidPayload(
            f"the value {shown(key)} was pushed as something that JSON does not have, such as a date or an object of a "
            "class: pull it with type="
        )
    return value_from_json(f"the value {shown(key)}", encoded, kind)


def _to_ids(tasks: TaskRef | TaskRefs | None) -> tuple[list[str], bool]:
    """Returns the ids of tasks, '' for None, and whether they were given as several."""
    if tasks is None:
        return [""], False
    if isinstance(tasks, Handle | str):
        return [_id_of(tasks)], False
    found = tasks() if callable(tasks) else tasks
    if not isinstance(found, Iterable):
        raise ConfigurationError(f"from_task={shown(found)}: give a handle, an id, or a list of these")
    return [_id_of(task) for task in found], True


def _id_of(task: TaskRef) -> str:
    return check_name("task id", task) if not isinstance(task, Handle) else task.id
