"""Dead letters: tasks that have failed for good. They are kept to be inspected, sent again, or deleted."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from fairactor._model import record
from fairactor._model.arrival import Arrival
from fairactor._model.info import TaskInfo
from fairactor._model.inspection import read_info
from fairactor._model.lane import actor_in_index
from fairactor._model.states import TaskState
from fairactor._model.wire import DeadLetter, as_bytes, pack_key
from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, NotADeadLetter

if TYPE_CHECKING:
    from fairactor._store.shard import Shard
    from fairactor._store.shards import Shards

_KEPT: Final = 3600.0
"""Seconds for which a dead letter is kept that is moved to be sent again, if it is not."""
PAGE: Final = 200
"""How many dead letters one call of a script reads, sends again, or deletes."""


@attrs.frozen
class DeadLetters:
    """The dead letters of a namespace: tasks that have failed for good. In each shard the oldest failure comes first.

    The methods select dead letters by ``tenant``, by ``actor``, and by ``error``: the type name of the exception, such
    as ``ValueError`` or ``myapp.errors.NoSuchOrder``. Without these they select all dead letters. With ``tenant`` they
    read only those of the tenant, else with ``actor`` only those of the actor, and otherwise all of the namespace.

    Raises (from every method):
        ConfigurationError: a filter is not a string.
        ServerUnavailable: as `Runtime.send`. Some of the dead letters may have been redriven or deleted already.
        ServerError: likewise.
    """

    _shards: Callable[[], Shards]

    async def find(
        self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None
    ) -> AsyncIterator[TaskInfo]:
        """Yields the selected dead letters, each with its error, traceback, history and arguments.

        If a record cannot be decoded, an error ``fairactor.errors.InvalidPayload`` says so. Its tenant is '' if not
        even that can be read. Only `purge` without a tenant deletes such a record.
        """
        wanted = _Filter(tenant, actor, error)
        for shard in self._shards():
            async for letter in _walk(shard, wanted):
                info = _describe(letter)
                if wanted.takes(info):
                    yield info

    async def count(self) -> int:
        """Returns the number of dead letters."""
        return sum([(await shard.stats()).dead for shard in self._shards()])

    async def redrive(self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None) -> int:
        """Sends the selected dead letters again; returns how many it has sent.

        Each of them becomes the last task in its mailbox. It keeps its id and its history, and gets all its retries
        again. If another task now has its key, it stays a dead letter.
        """
        done = 0
        seen: set[str] = set()  # while tenants move, one that fails again may be on a shard that comes later
        async for shard, found in self._pages(_Filter(tenant, actor, error)):
            letters = [letter for letter in found if letter.id not in seen]
            if self._shards().layout.epoch:
                seen.update(letter.id for letter in letters)
            verdicts = await redrive_letters(self._shards(), shard, letters, tenant or "")
            done += sum(verdict is True for verdict in verdicts)
        return done

    async def purge(self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None) -> int:
        """Deletes the selected dead letters; returns how many it has deleted."""
        done = 0
        async for shard, letters in self._pages(_Filter(tenant, actor, error)):
            done += await shard.discard([letter.id for letter in letters], tenant or "")
        return done

    async def _pages(self, wanted: _Filter) -> AsyncIterator[tuple[Shard, list[Letter]]]:
        """Yields the selected dead letters in pages. It yields none twice, even if it fails again."""
        for shard in self._shards():
            taken = [_letter(letter) async for letter in _walk(shard, wanted) if wanted.takes(_describe(letter))]
            for start in range(0, len(taken), PAGE):
                yield shard, taken[start : start + PAGE]


class Letter(NamedTuple):
    """A dead letter without its record, which may be large."""

    id: str
    key: bytes
    tenant: str
    """'' if it cannot be read."""
    place: int
    """When its record expires, unix µs."""


def _letter(letter: DeadLetter) -> Letter:
    return Letter(letter.id, key_in(letter.record), _describe(letter).tenant, letter.place)


async def redrive_letters(shards: Shards, shard: Shard, letters: Sequence[Letter], whose: str) -> list[bool | str]:
    """Sends dead letters of a shard again, each on the shard of its tenant; returns what `Shard.redrive` does."""
    verdicts: list[bool | str] = []
    by_tenant = itertools.groupby(letters, attrgetter("tenant")) if shards.layout.epoch else [("", letters)]
    for tenant, some in by_tenant:
        found = list(some)

        async def redrive(home: Shard, tenant: str = tenant, found: Sequence[Letter] = found) -> list[bool | str]:
            if home is not shard:
                await _carry(shard, home, tenant, found)
            return await home.redrive([(letter.id, letter.key) for letter in found], whose)

        verdicts += await (shards.at_home(tenant, redrive) if tenant else redrive(shard))
    return verdicts


async def _carry(source: Shard, target: Shard, tenant: str, letters: Iterable[Letter]) -> None:
    """Moves dead letters of a tenant to another shard."""
    for letter in letters:
        found = await source.inspect(letter.id, tenant)
        if found:
            arrival = Arrival(as_bytes(letter.id), b"%d" % letter.place, b"", found[1])
            if not await target.import_tasks(tenant, [arrival]):
                await source.exported(tenant, [arrival.id])


async def carry_letters(shards: Shards, source: Shard) -> None:
    """Moves the dead letters of a shard whose tenants have moved."""
    found = [_letter(letter) async for letter in _walk(source, _Filter(None, None, None))]
    for tenant, letters in itertools.groupby(sorted(found, key=attrgetter("tenant")), attrgetter("tenant")):
        target = shards[shards.layout.place(tenant)] if tenant else source
        if target is not source:
            await _carry(source, target, tenant, letters)


async def redrive_one(shards: Shards, shard: Shard, task_id: str, packed: bytes, tenant: str | None) -> None:
    """Sends one dead letter of a tenant, None for any, again, given its record.

    Raises:
        NotADeadLetter: the task has not failed, or another task now has its key.
    """
    failed = record.SETTLED.get(packed[:1]) is TaskState.FAILED
    letter = DeadLetter(round(1e6 * (time.time() + _KEPT)), task_id, packed)
    (verdict,) = await redrive_letters(shards, shard, [_letter(letter)], tenant or "") if failed else (False,)
    if isinstance(verdict, str):
        raise NotADeadLetter(
            f"task {task_id!r} cannot be redriven, because task {verdict!r} now has its key: wait until that task ends"
        )
    if not verdict:
        raise NotADeadLetter(
            f"task {task_id!r} has not failed, or was redriven already: only dead letters can be redriven"
        )


def key_in(packed: bytes) -> bytes:
    """Returns the packed deduplication key in the record of a dead letter; b"" if it cannot be read."""
    try:
        _, _, body = record.unpack(packed)[1].partition(b"\n")
    except record.UNREADABLE:
        return b""
    _, call, _ = record.decode_body(body, live=True)
    options = call.options if call else {}
    key, window = options.get("key"), options.get("key_window", 0.0)
    if not isinstance(key, str) or not isinstance(window, int | float):  # a key like this was never sent
        return b""
    return pack_key(key, window)


def _describe(letter: DeadLetter) -> TaskInfo:
    return read_info(letter.id, TaskState.FAILED.value.encode(), letter.record)


@attrs.frozen
class _Filter:
    tenant: str | None
    actor: str | None
    error: str | None

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"{name}={shown(value)}: give a string")

    def takes(self, letter: TaskInfo) -> bool:
        error = letter.error.type if letter.error else ""
        pairs = ((self.tenant, letter.tenant), (self.actor, letter.actor), (self.error, error))
        if self.tenant is not None and not letter.tenant:  # unreadable
            return False
        return all(wanted in (None, found) for wanted, found in pairs)


async def _walk(shard: Shard, wanted: _Filter) -> AsyncIterator[DeadLetter]:
    """Yields the current dead letters of a shard, page by page, without those that are added meanwhile.

    Of those that are not wanted it leaves out as many as the indexes allow.
    """
    of_tenant, of_actor = wanted.tenant or "", actor_in_index(wanted.actor) if wanted.actor else ""
    if of_tenant or of_actor:
        await shard.index_letters()
    read = partial(shard.list_dead_letters, limit=PAGE, tenant=of_tenant, actor=of_actor)
    place, skip, seen = 0, 0, set[str]()  # where the last page ended, and the ids seen at that place
    last, page, more = await read(place)
    while True:
        for letter in page:
            if letter.record and letter.id not in seen:
                yield letter
        if not more:
            return
        end = page[-1].place
        skip = skip + len(page) if end == place else 0  # more than a page at one place
        seen = {letter.id for letter in page if letter.place == end}
        place = end
        _, page, more = await read(place, skip=skip, last=last)
