"""Schedules on the server: read, added and changed."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from fairactor import Message
from fairactor.errors import ConfigurationError
from fairactor.plugins import Graph, Host, Placeholder, shown
from fairactor.serialization import encode_json

from ._moving import call
from ._options import RuleOptions
from ._rule import Calendar, Rule, Stored, calendar, to_stored
from ._schedule import FIELDS, NAME, Schedule, ScheduleNotFound, checked_key, new_run_id, parse_schedule

Fields = dict[bytes, bytes]
Content = dict[str, bytes]

_SIZE: Final = struct.Struct(">H")
_LONG_SIZE: Final = struct.Struct(">I")
MAX_METADATA: Final = 16 * 1024
"""The largest metadata, in bytes of JSON."""
_ATTEMPTS: Final = 20  # if others change the schedule at the same time
_NOT_FOR_EACH_RUN: Final = {
    "id": "each run gets a new id; name the schedule with id=",
    "delay": "a run is sent at its planned time; change that",
    "eta": "a run is sent at its planned time; give the schedule a datetime",
}


class NeverRuns(ConfigurationError):
    """The schedule would never run, or never again."""


async def read_fields(host: Host, tenant: str, schedule_id: str) -> tuple[int, Fields]:
    """Reads the server's time in ms, and the fields of a schedule: none if it does not exist.

    Raises:
        ConfigurationError: the tenant or the id cannot be a name.
    """
    now, *values = await call(host, "get", tenant, schedule_id, *FIELDS)
    return int(now), existing(values)


async def read_existing(host: Host, tenant: str, schedule_id: str) -> tuple[int, Fields]:
    """Reads the server's time in ms, and the fields of a schedule.

    Raises:
        ScheduleNotFound: it does not exist. ConfigurationError: the tenant or the id cannot be a name.
    """
    now, fields = await read_fields(host, tenant, schedule_id)
    if not fields:
        raise not_found(tenant, schedule_id)
    return now, fields


async def read_schedule(host: Host, tenant: str, schedule_id: str) -> Schedule:
    """Reads a schedule.

    Raises:
        ScheduleNotFound: it does not exist. ConfigurationError: the tenant or the id cannot be a name.
    """
    _, fields = await read_existing(host, tenant, schedule_id)
    return parse_schedule(checked_key(tenant, schedule_id).encode(), fields)


async def add_schedule(
    host: Host,
    rule: Rule,
    tenant: str,
    message: Message[Any] | Graph,
    schedule_id: str,
    metadata: Mapping[str, Any],
    *,
    declared: bool,
) -> Schedule:
    """Adds a schedule, or changes the definition of the one that has this id; see `Schedules.add`."""
    key = checked_key(tenant, schedule_id)
    content = await _content(host, rule, tenant, message, metadata)
    actor, digest = _actor_of(message, host, tenant), content["digest"]
    for _ in range(_ATTEMPTS):
        now, fields = await read_fields(host, tenant, schedule_id)
        if fields.get(b"digest") == digest:
            return parse_schedule(key.encode(), fields)
        before = _stored(fields) if fields else None
        stored = to_stored(rule, _anchor(rule, before, now), actor, declared=declared)
        if await _put(host, tenant, schedule_id, now, fields, stored, content):
            return await read_schedule(host, tenant, schedule_id)
    raise _contended(tenant, schedule_id)


async def compare_schedule(
    host: Host,
    rule: Rule,
    tenant: str,
    message: Message[Any] | Graph,
    schedule_id: str,
    metadata: Mapping[str, Any],
) -> Literal["new", "different", "same"]:
    """Returns whether `add_schedule` would add a schedule, change one, or do nothing."""
    content = await _content(host, rule, tenant, message, metadata)
    _, fields = await read_fields(host, tenant, schedule_id)
    if not fields:
        return "new"
    return "same" if fields.get(b"digest") == content["digest"] else "different"


async def change_schedule(
    host: Host,
    tenant: str,
    schedule_id: str,
    changes: RuleOptions,
    message: Message[Any] | Graph | None,
    metadata: Mapping[str, Any] | None,
) -> Schedule:
    """Changes a part of a schedule's definition; see `Schedules.update`. A message or metadata of None stay."""
    checked_key(tenant, schedule_id)
    sent = None if message is None else await _pack_message(host, tenant, message)
    packed_metadata = None if metadata is None else _pack_metadata(metadata)
    for _ in range(_ATTEMPTS):
        now, fields = await read_existing(host, tenant, schedule_id)
        before = _stored(fields)
        options: RuleOptions = {**before.definition(), **changes}
        rule = Rule(**options)
        content = {
            "metadata": fields[b"metadata"] if packed_metadata is None else packed_metadata,
            "message": fields[b"message"],
            **(sent or {}),
        }
        content["digest"] = _digest(repr(rule).encode(), content["metadata"], content["message"])
        actor = before.actor if message is None else _actor_of(message, host, tenant)
        stored = to_stored(rule, _anchor(rule, before, now), actor, declared=before.declared)
        if await _put(host, tenant, schedule_id, now, fields, stored, content):
            return await read_schedule(host, tenant, schedule_id)
    raise _contended(tenant, schedule_id)


async def _content(
    host: Host, rule: Rule, tenant: str, message: Message[Any] | Graph, metadata: Mapping[str, Any]
) -> Content:
    """Packs a definition, with its digest."""
    sent = await _pack_message(host, tenant, message)
    packed = _pack_metadata(metadata)
    return {**sent, "metadata": packed, "digest": _digest(repr(rule).encode(), packed, sent["message"])}


def existing(values: Sequence[bytes | None]) -> Fields:
    """Returns the values of `FIELDS` that a script has read, without the missing ones."""
    return {field: value for field, value in zip(FIELDS, values, strict=True) if value is not None}


def not_found(tenant: str, schedule_id: str) -> ScheduleNotFound:
    """Makes the error for a schedule that does not exist."""
    return ScheduleNotFound(
        f"tenant {tenant!r} has no schedule {schedule_id!r}: it was never added, was removed, or finished a while ago"
    )


async def _put(
    host: Host,
    tenant: str,
    schedule_id: str,
    now: int,
    fields: Fields,
    stored: Stored,
    content: Mapping[str, bytes],
) -> bool:
    """Writes a definition; returns False if the schedule has changed since its fields were read.

    Raises:
        NeverRuns: the schedule would have no run.
    """
    key = checked_key(tenant, schedule_id)
    packed = msgspec.json.encode(stored)
    times = calendar(packed, key)
    planned = _next_time(stored, times, now, int(fields[b"planned"])) if fields else times.first(now)
    if planned is None:
        raise NeverRuns(
            f"schedule {schedule_id!r} of tenant {tenant!r} would never run: it has no time in the future. Give "
            "another expression, a later end= or datetime, or catch_up='once' to run for a time in the past"
        )
    if fields and stored.budget is not None and int(fields[b"runs"]) >= stored.budget:
        raise NeverRuns(
            f"schedule {schedule_id!r} of tenant {tenant!r} has sent {int(fields[b'runs'])} runs, so with "
            f"budget={stored.budget} it would never run again: give a larger budget, or remove it first"
        )
    written: dict[str, Any] = {
        **content, "definition": packed, "planned": planned, "overlap": stored.overlap, "kept": stored.kept,
        "budget": "" if stored.budget is None else stored.budget,
    }  # fmt: skip
    if not fields:
        written["created"] = now
    if stored.declared:
        written["declared"] = stored.actor
    flat = [part for pair in written.items() for part in pair]
    version = fields.get(b"version", b"")
    generation = os.urandom(12).hex()
    return bool(await host.call(f"{NAME}/put", tenant, key, version, generation, times.due(planned), *flat))


def _stored(fields: Fields) -> Stored:
    return msgspec.json.decode(fields[b"definition"], type=Stored)


def _anchor(rule: Rule, before: Stored | None, now: int) -> int:
    """Returns the moment from which an interval counts: an unchanged one goes on counting from where it did."""
    return before.anchor if before is not None and before.every == rule.when else now


def _next_time(stored: Stored, times: Calendar, now: int, before: int) -> int | None:
    """Returns the next time under a new definition. A time that is due already is not lost."""
    return times.after(now if stored.at or not 0 <= before <= now else before - 1)


async def _pack_message(host: Host, tenant: str, message: Message[Any] | Graph) -> Content:
    """Packs a message or a graph as a schedule stores it.

    Raises:
        ConfigurationError: it has an option that cannot apply to each run. What `Runtime.send` raises.
    """
    if isinstance(message, Message):
        for option, advice in _NOT_FOR_EACH_RUN.items():
            if getattr(message.task_options, option) is not None:
                raise ConfigurationError(f"a scheduled message has no {option}=: {advice}")
        if any(isinstance(value, Placeholder) for value in (*message.args, *message.kwargs.values())):
            message = message | message  # one step, after those whose results it takes
    if not isinstance(message, Graph):
        item = host.pack_template(tenant, message)
        digest = _digest(host.pack_template(tenant, message, linked=False))
        return {"item": item, "message": digest, "graph": b"", "many": b"0", "steps": b""}
    run_id = new_run_id()
    packed = await host.pack_graph(tenant, message, run_id)
    names = [step.removeprefix(f"{run_id}:") for step in packed.ids]
    return {
        "item": b"", "message": packed.digest, "many": str(len(names)).encode(), "steps": msgspec.json.encode(names),
        "graph": pack_graph(run_id, packed.ids, packed.items), "plugins": ",".join(sorted(packed.plugins)).encode(),
    }  # fmt: skip


def pack_graph(run_id: str, ids: Sequence[str], items: Sequence[bytes]) -> bytes:
    """Packs the messages of a graph in the form that sending.lua reads.

    Args:
        run_id: stands for the id of a run in all of them.
        ids: the ids of the tasks.
        items: the packed messages.
    """
    parts = [_SIZE.pack(len(run_id)), run_id.encode()]
    for task_id, item in zip(ids, items, strict=True):
        name = task_id.encode()
        parts += [_SIZE.pack(len(name)), name, _LONG_SIZE.pack(len(item)), item]
    return b"".join(parts)


def _actor_of(message: Message[Any] | Graph, host: Host, tenant: str) -> str:
    """Returns the name of the actor that is called first."""
    if isinstance(message, Message):
        return message.actor.name
    messages, _ = message.prepare(host, tenant)
    first: Message[Any] = messages[0][1]
    return first.actor.name


def _pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"metadata={shown(metadata)}: give a dict")
    packed = encode_json("metadata ", dict(metadata))
    if len(packed) > MAX_METADATA:
        raise ConfigurationError(f"metadata: {len(packed)} bytes of JSON, the limit is {MAX_METADATA}")
    return packed


def _digest(*parts: bytes) -> bytes:
    """Returns a hash that differs if a part differs."""
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32].encode()


def _contended(tenant: str, schedule_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"schedule {schedule_id!r} of tenant {tenant!r} was changed by others at each of {_ATTEMPTS} attempts: change "
        "it in one place only"
    )
