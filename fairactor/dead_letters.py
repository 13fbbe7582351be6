"""Dead letters: tasks that have failed for good, and are kept to be looked at, sent again or thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import attrs

from . import record
from .errors import ConfigurationError, NotADeadLetter
from .info import TaskInfo, read_info
from .shard import Shard
from .states import TaskState
from .wire import Letter, pack_key

PAGE: Final = 200
"""How many are read, sent again or thrown away by one script."""


@attrs.frozen
class DeadLetters:
    """The dead letters of a namespace, in each shard from the one that failed first to the last.

    A filter takes those of a ``tenant``, of an ``actor``, or with an ``error`` (the exception's type, as ``ValueError``
    or ``myapp.errors.NoSuchOrder``); what is not given is not looked at. To look, all dead letters are read.

    Raises (from every method):
        ConfigurationError: a filter is no text.
        ServerUnavailable, ServerError: as ever; what was done until then is done.
    """

    _shards: Sequence[Shard]
    _check: Callable[[], None]

    async def find(
        self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None
    ) -> AsyncIterator[TaskInfo]:
        """Those that a filter takes, each with its error, traceback, history and arguments."""
        wanted = _Filter(tenant, actor, error)
        self._check()
        for shard in self._shards:
            async for letter in _walk(shard):
                info = read_info(letter.id, b"", letter.record)
                if wanted.takes(info):
                    yield info

    async def count(self) -> int:
        """How many there are."""
        self._check()
        return sum([(await shard.stats())[5] for shard in self._shards])

    async def redrive(self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None) -> int:
        """Sends those that a filter takes again; returns how many. All of them without a filter.

        Each goes to the end of its mailbox, under its id, with its retries as at first; its history stays. One whose
        key stands for another task by now stays a dead letter.
        """
        done = 0
        async for shard, tasks in self._pages(_Filter(tenant, actor, error)):
            verdicts = await shard.redrive(tasks)
            done += sum(verdict is True for verdict in verdicts)
        return done

    async def purge(self, *, tenant: str | None = None, actor: str | None = None, error: str | None = None) -> int:
        """Deletes those that a filter takes for good; returns how many. All of them without a filter."""
        done = 0
        async for shard, tasks in self._pages(_Filter(tenant, actor, error)):
            done += await shard.discard([task_id for task_id, _ in tasks])
        return done

    async def _pages(self, wanted: _Filter) -> AsyncIterator[tuple[Shard, list[tuple[str, bytes]]]]:
        """What a filter takes of what there is at first, by id and key: what fails anew meanwhile is not met again."""
        self._check()
        for shard in self._shards:
            taken = [
                (letter.id, key_in(letter.record))
                async for letter in _walk(shard)
                if wanted.takes(read_info(letter.id, b"", letter.record))
            ]
            for start in range(0, len(taken), PAGE):
                yield shard, taken[start : start + PAGE]


async def redrive_one(shard: Shard, task_id: str, packed: bytes) -> None:
    """Sends one dead letter again, as its record was read.

    Raises:
        NotADeadLetter: it has not failed, or its key stands for another task.
    """
    failed = record.SETTLED.get(packed[:1]) is TaskState.FAILED
    (verdict,) = await shard.redrive([(task_id, key_in(packed))]) if failed else (False,)
    if isinstance(verdict, str):
        raise NotADeadLetter(f"task {task_id!r} stays: its key stands for task {verdict!r} by now; wait for its end")
    if not verdict:
        raise NotADeadLetter(
            f"task {task_id!r} has not failed, or is on its way again: only dead letters are sent again"
        )


def key_in(packed: bytes) -> bytes:
    """The deduplication key in the record of a dead letter, as scripts take it."""
    _, call, _ = record.unfold(record.unpack(packed)[1], live=False)
    options = call.options if call else {}
    key, window = options.get("key"), options.get("key_window", 0.0)
    if not isinstance(key, str) or not isinstance(window, int | float):  # it cannot be one that was ever held
        return b""
    return pack_key(key, window)


@attrs.frozen
class _Filter:
    tenant: str | None
    actor: str | None
    error: str | None

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"{name}={value!r}: give a text, as it stands in the dead letter")

    def takes(self, letter: TaskInfo) -> bool:
        error = letter.error.type if letter.error else ""
        pairs = ((self.tenant, letter.tenant), (self.actor, letter.actor), (self.error, error))
        return all(wanted in (None, found) for wanted, found in pairs)


async def _walk(shard: Shard) -> AsyncIterator[Letter]:
    """All that are dead letters of a shard now, page by page; not those that come meanwhile."""
    place, skip, met = 0, 0, set[str]()  # where the last page ended, and which of those there were met
    last, page = await shard.letters(place, PAGE)
    while True:
        for letter in page:
            if letter.record and letter.id not in met:
                yield letter
        if len(page) < PAGE:
            return
        end = page[-1].place
        skip = skip + PAGE if end == place else 0  # more than a page in one place
        met = {letter.id for letter in page if letter.place == end}
        place = end
        _, page = await shard.letters(place, PAGE, skip=skip, last=last)
