"""What users call to add, read, change and remove schedules."""

from __future__ import annotations

import builtins
import datetime as dt
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Unpack
from zoneinfo import ZoneInfo

import attrs
import msgspec

from fairactor import Handle, Message
from fairactor.errors import ConfigurationError, MailboxFull, TaskExists
from fairactor.plugins import FULL, TAKEN, Client, Graph, Run, check_name, check_whole_number, shown

from ._moving import bring, call, range_of
from ._options import CatchUp, Overlap, ScheduleChanges, When, check_keywords
from ._rule import Rule, Stored, calendar
from ._schedule import FIELDS, NAME, Schedule, ScheduleRun, key_of, new_run_id, parse_schedule, run_id_of, split_key
from ._storage import add_schedule, change_schedule, existing, not_found, read_existing, read_schedule
from ._times import moment

MAX_TIMES: Final = 1_000
"""The most times that `Schedules.next_times` returns."""
_PAGE: Final = 100


@attrs.frozen
class Schedules:
    """The schedules of a namespace.

    Args:
        runtime: any runtime with the plugin. All runtimes with the plugin that run carry out the schedules.
    """

    runtime: Client

    async def add(
        self,
        when: When,
        tenant: str,
        message: Message[Any] | Graph,
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
        """Adds a schedule, or changes the definition of the tenant's schedule with the same id.

        A changed schedule keeps what it has done. The same definition changes nothing, so a service can add its
        schedules every time it starts.

        Args:
            when: a cron expression, see docs/scheduling.md; an interval, in seconds or as a timedelta; or one moment, a
                datetime with a time zone.
            tenant: the tenant whose mailbox the runs go into.
            message: what to send each time: a message, or a graph such as ``a() >> b()``. Its options apply to each
                run. ``id=``, ``delay=``, ``eta=`` and ``depends_on=`` are refused; a step of a graph can have ``id=``,
                which is its name, and ``delay=``.
            id: a name, unique among the tenant's schedules; None: a random one.
            timezone: the time zone of the cron expression, such as ``"Europe/Berlin"``.
            start: the first moment at which it may run. An interval counts from it.
            end: the last moment at which it may run.
            jitter: the most seconds by which a run is delayed at random, never past the next time or ``end``.
            grace: a run is missed if no runtime handled it within this many seconds after it was to be sent: at its
                time, or later by its own delay from ``jitter``. At least 5; another runtime takes over within 3 seconds
                from one that died.
            budget: how many runs to send in all; None: no limit.
            catch_up: what to do about missed runs. ``skip``: drop them; ``once``: send one run for the last missed
                time, unless a later time is in time; ``all``: send all of them.
            catch_up_limit: the most missed runs that ``all`` sends: the last ones.
            overlap: what to do if the previous run has not ended. ``allow``: send the run all the same; ``skip``: do
                not send it; ``queue``: send it when the previous run has ended.
            kept: for how many seconds the schedule can be read after its last run; 0: until it is removed.
            metadata: any JSON object, which `get` returns.

        Raises:
            ConfigurationError: something cannot work, or the schedule would never run; nothing is stored.
            What `Runtime.send` raises for the message.
        """
        rule = Rule(
            when=when, timezone=timezone, start=start, end=end, jitter=jitter, grace=grace, budget=budget,
            catch_up=catch_up, catch_up_limit=catch_up_limit, overlap=overlap, kept=kept,
        )  # fmt: skip
        schedule_id = os.urandom(12).hex() if id is None else id
        return await add_schedule(self.runtime.host, rule, tenant, message, schedule_id, metadata or {}, declared=False)

    async def update(self, tenant: str, id: str, **changes: Unpack[ScheduleChanges]) -> Schedule:  # noqa: A002
        """Changes a part of a schedule's definition and keeps the rest.

        Args:
            tenant: the tenant.
            id: the schedule.
            changes: what `add` takes: ``when``, ``message`` and all keywords except ``id``.

        Raises:
            ScheduleNotFound: there is no such schedule. What `add` raises.
        """
        check_keywords("Schedules.update", changes, ScheduleChanges.__optional_keys__)
        message = changes.pop("message", None)
        metadata = (changes.pop("metadata") or {}) if "metadata" in changes else None
        return await change_schedule(self.runtime.host, tenant, id, changes, message, metadata)

    async def get(self, tenant: str, id: str) -> Schedule:  # noqa: A002 - as for a task
        """Reads a schedule.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        return await read_schedule(self.runtime.host, tenant, id)

    async def list(self, tenant: str | None = None) -> AsyncIterator[Schedule]:
        """Reads all schedules, in no particular order, or those of a tenant by id. It reads some at a time."""
        host = self.runtime.host
        start, end = (b"-", b"+") if tenant is None else range_of(check_name("tenant", tenant))
        listed: set[bytes] = set()  # of tenants that move
        for shard in range(host.shard_count) if tenant is None else [tenant]:
            cursor = start
            while True:
                flat = await self._page(shard, cursor, end)
                for key, values in zip(flat[::2], flat[1::2], strict=True):
                    fields = existing(values)  # none if it was deleted by hand
                    if not fields or key in listed:
                        continue
                    if tenant is None and len(host.shards_of(split_key(key)[0])) > 1:
                        listed.add(key)
                    yield parse_schedule(key, fields)
                if not flat:
                    break
                cursor = b"(" + flat[-2]

    async def _page(self, shard: int | str, cursor: bytes, end: bytes) -> Sequence[Any]:
        """Reads the next schedules of a shard, or of a tenant."""
        host = self.runtime.host
        if isinstance(shard, int):
            found: Sequence[Any] = await host.call(f"{NAME}/list", shard, cursor, end, _PAGE, "", *FIELDS)
            return found
        while True:
            await bring(host, shard)
            places = host.shards_of(shard)
            found = await host.call(f"{NAME}/list", shard, cursor, end, _PAGE, shard, *FIELDS)
            if host.shards_of(shard) == places:
                return found

    async def remove(self, tenant: str, id: str) -> bool:  # noqa: A002 - as for a task
        """Removes a schedule; returns whether there was one. The tasks that it has sent go on."""
        return bool(await call(self.runtime.host, "remove", tenant, id, ""))

    async def pause(self, tenant: str, id: str) -> None:  # noqa: A002 - as for a task
        """Pauses a schedule: it sends nothing until it is resumed, even if its definition changes meanwhile.

        Raises:
            ScheduleNotFound: there is no such schedule. ConfigurationError: it has finished.
        """
        await self._set_state("pause", tenant, id)

    async def resume(self, tenant: str, id: str) -> None:  # noqa: A002 - as for a task
        """Resumes a paused schedule. Runs that came due more than ``grace`` ago are missed; see ``catch_up=``.

        Raises:
            ScheduleNotFound: there is no such schedule. ConfigurationError: it has finished.
        """
        await self._set_state("resume", tenant, id)

    async def run_now(self, tenant: str, id: str) -> Handle[Any]:  # noqa: A002 - as for a task
        """Sends a run at once, even if the schedule is paused. It counts neither towards the budget nor as an overlap.

        Returns the handle of its task; of a graph, that of the last step. `run` gives the whole run of a graph.

        Raises:
            ScheduleNotFound: there is no such schedule. MailboxFull: the tenant's backlog is reached.
        """
        reply = await call(self.runtime.host, "run", tenant, id, new_run_id())
        if reply is None:
            raise not_found(tenant, id)
        verdict, task = reply
        task_id = task.decode()
        if verdict == FULL:
            raise MailboxFull(tenant)
        if verdict == TAKEN:
            raise TaskExists(f"the id {task_id!r} belongs to a task of another tenant")
        return self.runtime.handle(verdict.decode() if isinstance(verdict, bytes) else task_id, tenant)

    def run(self, tenant: str, graph: Graph, task_id: str) -> Run:
        """Returns a run that a schedule has sent of a graph, to follow it and cancel it.

        Args:
            tenant: the tenant.
            graph: the graph, as it was when the run was sent.
            task_id: `ScheduleRun.task`, or the id of any of its tasks, for example of the running one.

        Raises:
            ConfigurationError: that is no graph, or no id.
        """
        if not isinstance(graph, Graph):
            raise ConfigurationError(f"Schedules.run(…, {shown(graph)}, …): give the graph of the schedule")
        if not isinstance(task_id, str):
            raise ConfigurationError(f"Schedules.run(…, {shown(task_id)}): give the id of a run: ScheduleRun.task")
        host, run_id = self.runtime.host, run_id_of(task_id)
        messages, sent = graph.prepare(host, check_name("tenant", tenant), run_id)
        return sent([self.runtime.handle(message.task_options.id, owner) for owner, message in messages])

    async def next_times(self, tenant: str, id: str, n: int = 5) -> tuple[dt.datetime, ...]:  # noqa: A002
        """Returns the next ``n`` times of a schedule, or as many as there are, in its time zone and without the jitter.

        Raises:
            ScheduleNotFound: there is no such schedule. ConfigurationError: ``n`` is out of range.
        """
        check_whole_number("n", n, 1, MAX_TIMES)
        _, fields = await read_existing(self.runtime.host, tenant, id)
        times = calendar(fields[b"definition"], key_of(tenant, id))
        zone = ZoneInfo(msgspec.json.decode(fields[b"definition"], type=Stored).zone)
        budget = fields.get(b"budget")
        left = int(budget) - int(fields[b"runs"]) if budget else n
        at: int | None = int(fields[b"planned"])
        found: builtins.list[dt.datetime] = []
        while at is not None and at >= 0 and len(found) < min(n, left):
            found.append(moment(at).astimezone(zone))
            at = times.after(at)
        return tuple(found)

    async def last_runs(self, tenant: str, id: str) -> tuple[ScheduleRun, ...]:  # noqa: A002 - as for a task
        """Returns what became of the last ten times of a schedule, the latest first.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        return (await self.get(tenant, id)).last_runs

    async def _set_state(self, script: str, tenant: str, schedule_id: str) -> None:
        state = await call(self.runtime.host, script, tenant, schedule_id)
        if state is None:
            raise not_found(tenant, schedule_id)
        if state == b"finished":
            raise ConfigurationError(
                f"schedule {schedule_id!r} of tenant {tenant!r} has finished: add or update it with a later end or a "
                "larger budget"
            )
