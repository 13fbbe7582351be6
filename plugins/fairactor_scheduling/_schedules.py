"""Schedules: added, changed, looked at and removed."""

from __future__ import annotations

import builtins
import datetime as dt
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs
import msgspec

from fairactor import Handle, Message
from fairactor.errors import ConfigurationError, MailboxFull, TaskExists
from fairactor.plugins import FULL, TAKEN, Client, check_name, check_whole_number
from fairactor.serialization import encode_json

from ._rule import Calendar, CatchUp, Overlap, Rule, Stored, When, calendar, stored
from ._schedule import FIELDS, NAME, Schedule, ScheduleNotFound, ScheduleRun, key_of, pack, read, split_key
from ._times import moment

Fields = dict[bytes, bytes]

MAX_METADATA: Final = 16 * 1024
"""The longest metadata, in bytes of JSON."""
MOST_TIMES: Final = 1_000
"""How many times can be asked for at once."""
PAGE: Final = 100

_ATTEMPTS: Final = 20  # at what others change at the same time
_RULE: Final = frozenset(field.name for field in attrs.fields(Rule))


class NeverRuns(ConfigurationError):
    """A schedule would never run (any more)."""


@attrs.frozen
class Schedules:
    """The schedules of a namespace.

    Args:
        runtime: any that has the plugin. Those that run are enough for schedules to be kept to: none is in charge.
    """

    runtime: Client

    async def add(
        self,
        when: When,
        tenant: str,
        message: Message[Any],
        *,
        id: str | None = None,  # noqa: A002 - as for a task
        timezone: str | ZoneInfo = "UTC",
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        jitter: float | dt.timedelta = 0.0,
        grace: float | dt.timedelta = 60.0,
        budget: int | None = None,
        catch_up: CatchUp = "skip",
        catch_up_limit: int = 100,
        overlap: Overlap = "allow",
        kept: float | dt.timedelta = 86400.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Adds a schedule. Where the tenant has one of that id, it gets this definition, and keeps what it has done.

        With the same definition nothing changes, so a service can add its schedules each time that it starts.

        Args:
            when: a cron expression; an interval, in seconds or as a timedelta; or one moment, a datetime with a zone.
            tenant: whose mailbox the runs go into.
            message: what to send each time. Its options hold for each run; it has no ``id=``, ``delay=`` or ``eta=``.
            id: a name, unlike those of the tenant's other schedules; None: one is made up.
            timezone: of the cron expression, as in ``"Europe/Berlin"``.
            start: the first moment at which it may run; an interval counts from it.
            end: the last one.
            jitter: each run is sent up to so many seconds after its time, but not after the next time.
            grace: after so many seconds a time that was not seen to is missed: everything was down, or it was paused.
                5 at least, since in place of a runtime that dies another one comes within 3.
            budget: how many runs there are in all; None: no end of them.
            catch_up: what becomes of times that were missed: ``skip``, they are passed over; ``once``, the last one is
                run, unless a later one is run in time; ``all``, each is run.
            catch_up_limit: the most that ``all`` runs of them: the last ones.
            overlap: what becomes of a time when the run before has not ended: ``allow``, it is run beside it; ``skip``,
                it is not run; ``queue``, it is run after it.
            kept: for how many seconds it is still known after its last run; 0: until it is removed.
            metadata: what `get` is to tell of it; JSON.

        Raises:
            ConfigurationError: something cannot work, or it would never run; nothing is stored then.
            As `Runtime.send`, of the message.
        """
        rule = Rule(
            when=when, timezone=timezone, start=start, end=end, jitter=jitter, grace=grace, budget=budget,
            catch_up=catch_up, catch_up_limit=catch_up_limit, overlap=overlap, kept=kept,
        )  # fmt: skip
        schedule_id = os.urandom(12).hex() if id is None else check_name("schedule id", id)
        return await self._add(rule, tenant, message, schedule_id, metadata or {}, declared=False)

    async def update(self, tenant: str, id: str, **changes: Any) -> Schedule:  # noqa: A002 - as for a task
        """Changes some of a schedule's definition, as `add` takes it, or its ``message``, and keeps the rest.

        Raises:
            ScheduleNotFound: there is none. As `add`.
        """
        unknown = changes.keys() - _RULE - {"message", "metadata"}
        if unknown:
            known = ", ".join(sorted({*_RULE, "message", "metadata"}))
            raise ConfigurationError(f"a schedule has no {min(unknown)!r} to change; there are {known}")
        key = key_of(check_name("tenant", tenant), check_name("schedule id", id))
        message: Message[Any] | None = changes.pop("message", None)
        item = None if message is None else pack(self.runtime.host, tenant, message)
        described = None if "metadata" not in changes else _described(changes.pop("metadata") or {})
        for _ in range(_ATTEMPTS):
            now, fields = await self._read(tenant, key)
            if not fields:
                raise _not_found(tenant, id)
            before = msgspec.json.decode(fields[b"definition"], type=Stored)
            rule = _changed(before, changes)
            actor = before.actor if message is None else message.actor.name
            metadata = fields[b"metadata"] if described is None else described
            given: dict[str, Any] = {"metadata": metadata, "message": fields[b"message"]}
            if item is not None:
                given |= {"item": item, "message": _digest(item)}
            given["digest"] = _digest(repr(rule).encode(), metadata, given["message"])
            definition = _definition(rule, now, before, actor=actor, declared=before.declared)
            if await self._put(tenant, key, now, fields, definition, given):
                return await self.get(tenant, id)
        raise _contended(tenant, id)

    async def get(self, tenant: str, id: str) -> Schedule:  # noqa: A002 - as for a task
        """A schedule.

        Raises:
            ScheduleNotFound: there is none.
        """
        key = key_of(check_name("tenant", tenant), check_name("schedule id", id))
        _, fields = await self._read(tenant, key)
        if not fields:
            raise _not_found(tenant, id)
        return read(key.encode(), fields)

    async def list(self, tenant: str | None = None) -> AsyncIterator[Schedule]:
        """All schedules, in no order, or those of a tenant in the order of their ids; read some at a time."""
        if tenant is None:
            shards: Any = range(self.runtime.host.shard_count)
            start, end = b"-", b"+"
        else:
            shards = [check_name("tenant", tenant)]
            prefix = key_of(tenant, "").encode()
            start, end = b"[" + prefix, b"(" + prefix + b"\xff"  # no byte of a text is as high
        for shard in shards:
            cursor = start
            while True:
                flat = await self.runtime.host.call(f"{NAME}/list", shard, cursor, end, PAGE, *FIELDS)
                for key, values in zip(flat[::2], flat[1::2], strict=True):
                    if fields := _fields(values):  # else somebody has deleted it by hand
                        yield read(key, fields)
                if len(flat) < 2 * PAGE:
                    break
                cursor = b"(" + flat[-2]

    async def remove(self, tenant: str, id: str) -> bool:  # noqa: A002 - as for a task
        """Removes a schedule; returns whether there was one. What it has sent is not touched."""
        key = key_of(check_name("tenant", tenant), check_name("schedule id", id))
        return bool(await self.runtime.host.call(f"{NAME}/remove", tenant, key, ""))

    async def pause(self, tenant: str, id: str) -> None:  # noqa: A002 - as for a task
        """Lets a schedule send nothing until it is resumed. A definition that is given to it meanwhile leaves it so.

        Raises:
            ScheduleNotFound: there is none. ConfigurationError: it has finished.
        """
        await self._turn("pause", tenant, id)

    async def resume(self, tenant: str, id: str) -> None:  # noqa: A002 - as for a task
        """Lets a schedule go on. What came due meanwhile and is older than its ``grace`` is missed: see ``catch_up=``.

        Raises:
            ScheduleNotFound: there is none. ConfigurationError: it has finished.
        """
        await self._turn("resume", tenant, id)

    async def run_now(self, tenant: str, id: str) -> Handle[Any]:  # noqa: A002 - as for a task
        """Sends a run at once, also of a schedule that is paused; it counts neither for its budget nor as an overlap.

        Raises:
            ScheduleNotFound: there is none. MailboxFull: the tenant's backlog is reached.
        """
        key = key_of(check_name("tenant", tenant), check_name("schedule id", id))
        task = f"schedule:now:{os.urandom(12).hex()}"
        verdict = await self.runtime.host.call(f"{NAME}/run", tenant, key, task)
        if verdict is None:
            raise _not_found(tenant, id)
        if verdict == FULL:
            raise MailboxFull(tenant)
        if verdict == TAKEN:
            raise TaskExists(f"the id {task!r} is taken by a task of another tenant")
        return self.runtime.handle(verdict.decode() if isinstance(verdict, bytes) else task, tenant)

    async def next_times(self, tenant: str, id: str, n: int = 5) -> tuple[dt.datetime, ...]:  # noqa: A002
        """The next ``n`` times of a schedule in its time zone, or fewer where it ends; without the jitter.

        Raises:
            ScheduleNotFound: there is none. ConfigurationError: a number that cannot be.
        """
        check_whole_number("n", n, 1, MOST_TIMES)
        key = key_of(check_name("tenant", tenant), check_name("schedule id", id))
        _, fields = await self._read(tenant, key)
        if not fields:
            raise _not_found(tenant, id)
        times = calendar(fields[b"definition"], key)
        zone = ZoneInfo(msgspec.json.decode(fields[b"definition"], type=Stored).zone)
        left = n if b"budget" not in fields or not fields[b"budget"] else int(fields[b"budget"]) - int(fields[b"runs"])
        at: int | None = int(fields[b"planned"])
        found: builtins.list[dt.datetime] = []
        while at is not None and at >= 0 and len(found) < min(n, left):
            found.append(moment(at).astimezone(zone))
            at = times.after(at)
        return tuple(found)

    async def last_runs(self, tenant: str, id: str) -> tuple[ScheduleRun, ...]:  # noqa: A002 - as for a task
        """What became of the last ten times of a schedule, the latest first.

        Raises:
            ScheduleNotFound: there is none.
        """
        return (await self.get(tenant, id)).last_runs

    # What these are made of

    async def _add(
        self, rule: Rule, tenant: str, message: Message[Any], schedule_id: str, metadata: Mapping[str, Any], *,
        declared: bool,
    ) -> Schedule:  # fmt: skip
        key = key_of(check_name("tenant", tenant), schedule_id)
        item = pack(self.runtime.host, tenant, message)
        described = _described(metadata)
        whole = _digest(item)
        digest = _digest(repr(rule).encode(), described, whole)
        given = {"metadata": described, "item": item, "message": whole, "digest": digest}
        for _ in range(_ATTEMPTS):
            now, fields = await self._read(tenant, key)
            if fields.get(b"digest") == digest:
                return read(key.encode(), fields)
            before = msgspec.json.decode(fields[b"definition"], type=Stored) if fields else None
            definition = _definition(rule, now, before, actor=message.actor.name, declared=declared)
            if await self._put(tenant, key, now, fields, definition, given):
                return await self.get(tenant, schedule_id)
        raise _contended(tenant, schedule_id)

    async def _put(
        self, tenant: str, key: str, now: int, fields: Fields, definition: Stored, given: Mapping[str, Any]
    ) -> bool:
        schedule_id = split_key(key.encode())[1]
        packed = msgspec.json.encode(definition)
        times = calendar(packed, key)
        planned = _next(definition, times, now, int(fields[b"planned"])) if fields else times.first(now)
        if planned is None:
            raise NeverRuns(
                f"schedule {schedule_id!r} of tenant {tenant!r} would never run: it has no time that is not over. Give "
                "a later end= or moment, another expression, or to make up for one that is over, catch_up='once'"
            )
        if fields and definition.budget is not None and int(fields[b"runs"]) >= definition.budget:
            raise NeverRuns(
                f"schedule {schedule_id!r} of tenant {tenant!r} has had {int(fields[b'runs'])} runs, so with "
                f"budget={definition.budget} it would never run: give more, or remove it first"
            )
        written: dict[str, Any] = {
            **given, "definition": packed, "planned": planned, "overlap": definition.overlap, "kept": definition.kept,
            "budget": "" if definition.budget is None else definition.budget,
        }  # fmt: skip
        if not fields:
            written["created"] = now
        if definition.declared:
            written["declared"] = definition.actor
        flat = [part for pair in written.items() for part in pair]
        version = fields.get(b"version", b"")
        generation = os.urandom(12).hex()
        due = times.due(planned)
        return bool(await self.runtime.host.call(f"{NAME}/put", tenant, key, version, generation, due, *flat))

    async def _read(self, tenant: str, key: str) -> tuple[int, Fields]:
        now, *values = await self.runtime.host.call(f"{NAME}/get", tenant, key, *FIELDS)
        return int(now), _fields(values)

    async def _turn(self, script: str, tenant: str, schedule_id: str) -> None:
        key = key_of(check_name("tenant", tenant), check_name("schedule id", schedule_id))
        state = await self.runtime.host.call(f"{NAME}/{script}", tenant, key)
        if state is None:
            raise _not_found(tenant, schedule_id)
        if state == b"finished":
            raise ConfigurationError(
                f"schedule {schedule_id!r} of tenant {tenant!r} has finished: add or update it with a later end or a "
                "larger budget"
            )


def _fields(values: Any) -> Fields:
    """As the scripts read them; what is not there is left out."""
    return {field: value for field, value in zip(FIELDS, values, strict=True) if value is not None}


def _described(metadata: Mapping[str, Any]) -> bytes:
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"metadata={metadata!r}: give a dict")
    packed = encode_json("metadata ", dict(metadata))
    if len(packed) > MAX_METADATA:
        raise ConfigurationError(f"metadata: {len(packed)} bytes of JSON, the limit is {MAX_METADATA}")
    return packed


def _digest(*parts: bytes) -> bytes:
    """What tells a definition from others."""
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32].encode()


def _definition(rule: Rule, now: int, before: Stored | None, **more: Any) -> Stored:
    """As it is stored; an interval that stays goes on counting from where it did."""
    anchor = before.anchor if before is not None and before.every == rule.when else now
    return stored(rule, anchor, **more)


def _next(definition: Stored, times: Calendar, now: int, before: int) -> int | None:
    """The next time of a schedule that goes on with another definition. A time that is due already is not lost."""
    return times.after(now if definition.at or not 0 <= before <= now else before - 1)


def _changed(before: Stored, changes: Mapping[str, Any]) -> Rule:
    when: Any = before.cron or (dt.timedelta(milliseconds=before.every) if before.every else moment(before.at))
    given: dict[str, Any] = {
        "when": when, "timezone": before.zone, "start": before.start and moment(before.start),
        "end": before.end and moment(before.end), "jitter": before.jitter / 1000, "grace": before.grace / 1000,
        "budget": before.budget, "catch_up": before.catch_up, "catch_up_limit": before.limit,
        "overlap": before.overlap, "kept": before.kept / 1000,
    }  # fmt: skip
    return Rule(**{**given, **changes})


def _not_found(tenant: str, schedule_id: str) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"tenant {tenant!r} has no schedule {schedule_id!r}: it was not added, was removed, or has finished a while ago"
    )


def _contended(tenant: str, schedule_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"schedule {schedule_id!r} of tenant {tenant!r} is changed by others all the time: let one change it"
    )
