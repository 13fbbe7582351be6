"""The longest script among 1,000,000 tasks of 100,000 tenants: no script may hold up the server.

The shard is filled directly. Then each script runs with the largest arguments that fairactor gives it: full batches,
also to 100,000 new tenants, full turns, hundreds of tasks to cancel, a runtime that died with 20,000 claims, hundreds
of dedicated runtimes, a thousand lanes, thousands of limits and delayed tasks, and at last the repair. The slow log
of the server says how long each call took. Calls that compile a script are left out, since each server does that once.

A bare loop of commands in Lua gives the factor of the machine: 1 where the bare queue drains 80,000 tasks a second. The
goal is 5 ms times that factor. On a machine that does other work, too, the server is interrupted. So a call counts with
the time that the server's thread had a processor, where the system tells that (Linux) and it is less; and an operation
whose longest call is above the goal is repeated, and its shortest maximum counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from fairactor._model.keys import Keys
from fairactor._model.lane import RuntimeKind, kind_of_runtime
from fairactor._model.wire import (
    BATCH,
    MOST_ROUTES,
    USUAL_BATCH,
    Assignment,
    Item,
    Settlement,
    Turn,
    pack_key,
    turn_mark,
)
from fairactor._server.connection import Server, connect
from fairactor._store import loader
from fairactor._store.plugin_lua import NO_PLUGIN_LUA
from fairactor._store.script_runner import ScriptRunner
from fairactor._store.shard import Shard
from fairactor._worker.pace import PER_TURN, SURE, TURN_TIME

from .bench import Bench
from .crowd import ACTOR, fill
from .figures import Figure, at_most

GOAL: Final = 5.0
"""Milliseconds, on a machine with factor 1."""
_LOOP: Final = "for n = 1, 20000 do redis.call('HSET', KEYS[1], n % 100, n) end"
_LOOP_OF_FACTOR_1: Final = 10.8
"""Milliseconds of that loop where the bare queue drains 80,000 tasks a second."""
_TRIES: Final = 5
_CANCELED: Final = b'{"error":{"type":"TaskCanceled","message":"by handle.cancel()"}}'
_LEASE: Final = 3600.0


@attrs.frozen
class Sizes:
    """How much there is of everything."""

    tenants: int = 100_000
    each: int = 10
    newcomers: int = 100_000
    claims: int = 20_000
    dedicated: int = 500
    assigned: int = 20_000
    lanes: int = 1_000
    limits: int = 2_000
    delayed: int = 20_000


@attrs.define
class Processor:
    """The time for which the server's thread had a processor."""

    _schedule: Path | None
    longest: dict[str, float] = attrs.Factory(dict)
    """script -> the milliseconds of its longest call."""

    @classmethod
    async def of(cls, admin: Any) -> Processor:
        """Returns that of a server; without times, if its process is not one of this machine."""
        process = Path(f"/proc/{(await admin.info('server'))['process_id']}")
        here = (process / "schedstat").exists() and (process / "comm").read_text().startswith(("valkey", "redis"))
        return cls(process / "schedstat" if here else None)

    def ms(self) -> float:
        """Returns the milliseconds so far."""
        return int(self._schedule.read_text().split()[0]) / 1e6 if self._schedule else 0.0

    def note(self, name: str, since: float) -> None:
        """Notes a call that has ended."""
        if self._schedule:
            self.longest[name] = max(self.ms() - since, self.longest.get(name, 0.0))

    def at_most(self, name: str, took: float) -> float:
        """Returns the time of the longest call, from the slow log, without interruptions."""
        return min(took, self.longest.get(name, took))


class TimedRunner(ScriptRunner):
    """Runs scripts, one at a time, and notes how long each takes."""

    processor: Processor

    async def run(self, name: str, *arguments: Any, patience: float | None = None) -> Any:
        """Runs a script."""
        since = self.processor.ms()
        try:
            return await super().run(name, *arguments, patience=patience)
        finally:
            self.processor.note(name, since)


@attrs.define
class Crowd:
    """A shard full of tasks, with a method for each group of operations."""

    shard: Shard
    admin: Any
    sizes: Sizes
    bound: float
    """The milliseconds that a script should take at most."""
    processor: Processor
    longest: dict[str, float] = attrs.Factory(dict)
    """script -> the milliseconds of its longest call."""
    _ids: count[int] = attrs.Factory(count)
    _batches: count[int] = attrs.Factory(lambda: count(1))
    _turns: dict[str, int] = attrs.Factory(dict)

    async def note(self, operation: Callable[[], Awaitable[object]], *, tries: int = _TRIES) -> None:
        """Runs an operation, several times if it seems to take too long, and notes the longest call of each script."""
        best: dict[str, float] = {}
        for _ in range(tries):
            await self.admin.slowlog_reset()
            self.processor.longest.clear()
            await operation()
            slow = await slow_scripts(self.admin)
            found = {name: self.processor.at_most(name, took) for name, took in slow.items()}
            best = {name: min(took, best.get(name, took)) for name, took in found.items()} if best else found
            if max(best.values(), default=0.0) <= self.bound:
                break
        for name, took in best.items():
            self.longest[name] = max(took, self.longest.get(name, 0.0))

    def items(self, number: int, *, actor: str = ACTOR, due: str = "", flag: str = "w", **more: Any) -> list[Item]:
        """Returns new tasks, each of another tenant."""
        body = msgspec.json.encode([actor, [], {}])
        numbers = [next(self._ids) for _ in range(number)]
        return [Item(f"new-{n}", self.tenant(n * 7), 3, due, flag, body, **more) for n in numbers]

    def tenant(self, n: int) -> str:
        """Returns the name of a tenant."""
        return f"tenant:{n % self.sizes.tenants}"

    async def send(self, items: Sequence[Item]) -> None:
        """Sends tasks, in full batches."""
        for start in range(0, len(items), USUAL_BATCH):
            await self.shard.send(items[start : start + USUAL_BATCH], "sender", next(self._batches))

    async def turn(self, runtime: str, want: int, settle: Sequence[Settlement] = ()) -> list[Settlement]:
        """Takes a turn; returns outcomes for what it has claimed, behind those for which it had no time."""
        number = self._turns[runtime] = self._turns.get(runtime, 0) + 1
        turn = await self._take_turn(runtime, number, want, settle)
        mark, flat = turn_mark(number), iter(turn.claims)
        new = [Settlement(task.decode(), mark, "F", 60_000, packed) for task, packed in zip(flat, flat, strict=True)]
        return [*settle[turn.had :], *new]

    async def _take_turn(self, runtime: str, number: int, want: int, settle: Sequence[Settlement] = ()) -> Turn:
        return await self.shard.turn(
            runtime, number, lease=_LEASE, want=want, sure=SURE, most_time=TURN_TIME, settle=settle
        )

    async def join(self, runtime: str, kind: RuntimeKind, serves: Assignment | None = None) -> None:
        """Joins a runtime, and fills the ring of its kind."""
        filling = await self.shard.join(
            runtime, lease=_LEASE, info={"workers": 1}, serves=serves, kind=kind, unknown_ttl=0.001
        )
        while filling:
            filling = await self.shard.fill(runtime)

    async def maintain(self) -> None:
        """Does all of the maintenance that is due."""
        while (done := await self._tend()).more or done.unserved:
            for lane in done.unserved:
                if not lane:
                    while await self.shard.sort():
                        pass
                    continue
                more = True
                while more:
                    _, more = await self.shard.expire(lane, unknown_ttl=0.001, failed_ttl=60, body=_CANCELED)

    async def _tend(self) -> Any:
        return await self.shard.maintain(deliveries=3, failed_ttl=60, body=_CANCELED)

    # Groups of operations, in this order

    async def sending(self) -> None:
        """Sends, reserves and asks."""
        await self.note(lambda: self.send(self.items(USUAL_BATCH)))
        await self.note(lambda: self.send(self.items(USUAL_BATCH, flag="")))
        together = [item._replace(tenant=self.tenant(8), flag="+") for item in self.items(BATCH)]
        await self.note(lambda: self.shard.send(together, "sender", next(self._batches)), tries=1)
        new = [item._replace(tenant=f"new:{n}") for n, item in enumerate(self.items(self.sizes.newcomers))]
        await self.note(lambda: self.send(new), tries=1)
        keys = count()
        await self.note(lambda: self.send(self.items(USUAL_BATCH, key=pack_key(f"k{next(keys)}", 60))))
        await self.note(lambda: self.send(self.items(self.sizes.delayed, due="+1")), tries=1)
        rooms = {self.tenant(n): 2 for n in range(self.sizes.tenants)}
        await self.note(lambda: self.shard.reserve("room", rooms))
        await self.note(lambda: self.shard.reserve("room", dict.fromkeys(rooms, 0)))
        some = [(f"{n}-1", self.tenant(n), "") for n in range(1000)]
        await self.note(lambda: self.shard.watch("sender", some))
        await self.note(lambda: self.shard.inspect("5-1"))

    async def turns(self) -> None:
        """Takes full turns."""
        await self.join("runtime", kind_of_runtime({ACTOR: 1}, None))
        held: list[Settlement] = []

        async def turn() -> None:
            nonlocal held
            held = await self.turn("runtime", PER_TURN, held)

        for _ in range(8):
            await self.note(turn)
        await self.note(lambda: self._take_turn("runtime", self._turns["runtime"], PER_TURN))
        while held:
            held = await self.turn("runtime", 0, held)
        await self.note(self.maintain, tries=1)

    async def policies(self) -> None:
        """Changes policies."""
        await self.note(lambda: self.shard.configure("tenant:8", {"weight": 2.0}))
        await self.note(lambda: self.shard.configure("", {"concurrency": 5}))
        await self.note(self.shard.review)
        await self.turn("runtime", 0)
        await self.note(lambda: self.shard.configure("", {"concurrency": None}))
        await self.note(self.shard.review)
        await self.note(self.shard.policies)
        await self.observe()

    async def observe(self) -> None:
        """Reads counts."""
        await self.note(self.shard.stats)
        await self.note(self.shard.load)
        await self.note(lambda: self.shard.tenant_stats("tenant:8"))
        await self.note(self.shard.limits)
        await self.look()

    async def look(self) -> None:
        """Lists tasks."""
        for state in ("started", "queued", "deferred", "scheduled", "failed", "ended"):
            for tenant in ("", "tenant:8"):
                await self.note(lambda state=state, tenant=tenant: self.shard.list_tasks(state, 1000, tenant=tenant))  # type: ignore[misc]
        await self.note(lambda: self.shard.details("5-1"))

    async def ending(self) -> None:
        """Ends tasks that wait."""
        numbers = count(1)
        await self.note(
            lambda: self.shard.cancel_many(
                [(f"{next(numbers) % self.sizes.tenants}-2", "") for _ in range(200)], ttl=60, body=_CANCELED
            )
        )
        some = [(f"{n}-3", "") for n in range(200)]
        await self.note(lambda: self.shard.reroute("spare", some), tries=1)
        await self.note(lambda: self.shard.reroute("", some), tries=1)
        later = self.items(200, due="+900000")
        await self.send(later)
        await self.note(lambda: self.shard.hasten([(item.id, "") for item in later]), tries=1)
        await self.note(lambda: self.shard.forget([f"{n}-2" for n in range(200)]), tries=1)
        many = [item._replace(tenant="purged") for item in self.items(20 * BATCH)]
        await self.send(many)
        await self.note(lambda: self.shard.purge("purged", ttl=60, body=_CANCELED), tries=1)

    async def dedicated(self) -> None:
        """Lets runtimes serve certain tenants."""
        kind = kind_of_runtime({ACTOR: 1}, None)
        for n in range(self.sizes.dedicated):
            serves = Assignment([self.tenant(n * 3), self.tenant(n * 5)], [""] if n % 2 else [self.tenant(n * 11)])
            await self.note(lambda n=n, serves=serves: self.join(f"home-{n}", kind, serves), tries=1)  # type: ignore[misc]
        names = Assignment([self.tenant(n) for n in range(self.sizes.assigned)], [])
        await self.note(lambda: self.join("large", kind, names), tries=1)
        for _ in range(2):
            await self.note(lambda: self.turn("large", PER_TURN))
        await self.note(lambda: self.turn("home-0", PER_TURN))
        await self.note(lambda: self.send(self.items(USUAL_BATCH)))
        await self.note(lambda: self.shard.assign("large", Assignment(["tenant:1"], ["tenant:2"])), tries=1)
        await self.observe()
        await self.note(lambda: self.shard.leave("large"), tries=1)
        await self.note(lambda: self.shard.leave("home-1"), tries=1)

    async def lanes(self) -> None:
        """Adds a kind of runtimes, and tasks that only it can run."""
        actors = {f"a{n}": 1 for n in range(self.sizes.lanes)}
        await self.note(lambda: self.join("other", kind_of_runtime(actors | {ACTOR: 1}, None)), tries=1)
        for start in range(0, self.sizes.lanes, MOST_ROUTES):
            some = [self.items(1, actor=f"a{n}")[0] for n in range(start, min(start + MOST_ROUTES, self.sizes.lanes))]
            await self.note(lambda some=some: self.send(some), tries=1)  # type: ignore[misc]
        await self.note(lambda: self.turn("other", PER_TURN))
        await self.note(lambda: self.turn("runtime", PER_TURN))
        await self.observe()
        await self.note(lambda: self.shard.leave("other"), tries=1)
        await self.note(self.maintain, tries=1)

    async def limits(self) -> None:
        """Sets limits."""
        await self.note(lambda: self.shard.change_limit(ACTOR, {"concurrency": 100_000}), tries=1)
        for _ in range(2):
            await self.note(lambda: self.turn("runtime", PER_TURN))
        for n in range(self.sizes.limits):
            await self.shard.change_limit(f"limit-{n}", {"concurrency": 1})
            await self.shard.change_limit(ACTOR, {"concurrency": 1}, tenant=self.tenant(n))
        declared = {f"actor-{n}": {"concurrency": 1} for n in range(500)}
        await self.note(lambda: self.shard.declare_limits(declared))
        await self.note(lambda: self.send(self.items(USUAL_BATCH)))
        await self.note(lambda: self.turn("runtime", PER_TURN))
        await self.observe()
        await self.note(lambda: self.shard.reset_limit(ACTOR), tries=1)

    async def deaths(self) -> None:
        """Lets runtimes die and leave with many claims."""
        kind = kind_of_runtime({ACTOR: 1}, None)
        held: list[Settlement] = []
        for runtime in ("dies", "leaves"):
            await self.join(runtime, kind)
            for _ in range(self.sizes.claims // SURE):
                held += await self.turn(runtime, SURE)
        await self.note(
            lambda: self.shard.cancel_many([(task.id, "") for task in held], ttl=60, body=_CANCELED), tries=1
        )
        for _ in range(2):
            await self.note(lambda: self.turn("leaves", 0, held[-SURE:]))
        await self.admin.zadd(self.shard.keys.fixed("LEASES"), {"dies": 1000})
        await self.note(self.maintain, tries=1)
        await self.note(lambda: self.shard.leave("leaves"), tries=1)
        for _ in range(3):
            await self.note(lambda: self.turn("runtime", PER_TURN))
        await self.observe()

    async def repair(self) -> None:
        """Repairs the shard."""
        await self.note(self.shard.repair, tries=1)


GROUPS: Final = (
    Crowd.sending, Crowd.turns, Crowd.policies, Crowd.ending, Crowd.dedicated, Crowd.lanes, Crowd.limits, Crowd.deaths,
    Crowd.repair,
)  # fmt: skip


async def machine_factor(admin: Any, processor: Processor) -> float:
    """Returns by how much this machine is slower than one on which the bare queue drains 80,000 tasks a second."""
    times: list[float] = []
    for _ in range(5):
        await admin.slowlog_reset()
        processor.longest.clear()
        since = processor.ms()
        await admin.eval(_LOOP, 1, "loop")
        processor.note("loop", since)
        slow = max(entry["duration"] for entry in await admin.slowlog_get(10)) / 1000
        times.append(processor.at_most("loop", slow))
    await admin.delete("loop")
    return max(1.0, float(min(times)) / _LOOP_OF_FACTOR_1)


async def slow_scripts(admin: Any) -> dict[str, float]:
    """Returns the milliseconds of the longest call of each script in the slow log."""
    found: dict[str, float] = {}
    for entry in await admin.slowlog_get(10_000):
        command, _, rest = entry["command"].partition(b" ")
        called = rest.partition(b" ")[0].decode()
        name = called.split("_")[1] if command == b"FCALL" else _names().get(called) if command == b"EVALSHA" else None
        if name:
            found[name] = max(found.get(name, 0.0), entry["duration"] / 1000)
    return found


def _names() -> dict[str, str]:
    """Returns the names of all scripts by their digests."""
    if not _NAMES:
        for name in loader.NAMES:
            for flags in (True, False):
                _NAMES[loader.load(name, flags=flags, plugins=NO_PLUGIN_LUA).sha] = name
    return _NAMES


_NAMES: dict[str, str] = {}


async def measure(url: str, admin: Any, sizes: Sizes) -> tuple[dict[str, float], float]:
    """Returns the milliseconds of the longest call of each script, and the factor of the machine."""
    server: Server = await connect(url, timeout=30, answer=60)
    await admin.config_set("slowlog-log-slower-than", 200)
    await admin.config_set("slowlog-max-len", 100_000)
    try:
        processor = await Processor.of(admin)
        factor = await machine_factor(admin, processor)
        shard = Shard(server, Keys("fairactor"), patience=5)
        runner = TimedRunner(server, shard.keys.meta, patience=5)
        runner.processor = processor
        shard._runner = runner  # noqa: SLF001 - no other place of the code needs a shard with another runner
        shard._run = runner.run  # noqa: SLF001 - likewise
        await shard.open(shards=1, aging=60.0)
        for name in loader.NAMES:
            await admin.script_load(loader.load(name, flags=server.flags, plugins=NO_PLUGIN_LUA).text)
        crowd = Crowd(shard, admin, sizes, GOAL * factor, processor)
        await crowd.join("first", kind_of_runtime({ACTOR: 1}, None))
        await fill(admin, shard.keys, tenants=sizes.tenants, each=sizes.each)
        for group in GROUPS:
            await group(crowd)
    finally:
        await server.close()
    return crowd.longest, factor


async def run(bench: Bench, *, tenants: int = 100_000, each: int = 10) -> list[Figure]:
    longest, factor = await measure(bench.url, bench.admin, Sizes(tenants=tenants, each=each))
    goal = at_most(GOAL * factor)
    return [Figure(f"longest call of {name}", "ms", [took], goal=goal) for name, took in sorted(longest.items())]
