"""The slots of a runtime, by kind: how many coroutines, threads and worker processes may run tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from fairactor._actors.batch import Batching
from fairactor._actors.registry import Handler
from fairactor._model.record import actor_in
from fairactor._model.wire import Settlement, SlotKinds
from fairactor.settings import Settings

from .claim import Claim, Outcomes
from .pool import Pool
from .pools import Pools
from .shares import Shares

COROUTINES: Final = "c"
THREADS: Final = "t"
PROCESSES: Final = "p"


@attrs.frozen
class Kind:
    """Slots that are counted together."""

    name: str
    """The setting that says how many there are."""
    letters: str
    """The sorts of actors that use them."""
    size: int
    actors: Sequence[str]


def kinds_of(handlers: Mapping[str, Handler], settings: Settings) -> list[Kind]:
    """Returns the kinds of slots that a runtime needs for its actors.

    Without ``threads=`` plain functions share the slots of coroutines.
    """
    by_sort: dict[str, list[str]] = {COROUTINES: [], THREADS: [], PROCESSES: []}
    for name, handler in sorted(handlers.items()):
        by_sort[_sort_of(handler)].append(name)
    shared = COROUTINES if settings.threads is not None else COROUTINES + THREADS
    kinds = [
        ("workers", shared, settings.workers),
        ("threads", THREADS, settings.threads if settings.threads is not None else 0),
        ("processes", PROCESSES, settings.processes),
    ]
    made = [
        Kind(name, letters, size, [actor for letter in letters for actor in by_sort[letter]])
        for name, letters, size in kinds
        if size
    ]
    return [kind for kind in made if kind.actors] or made[:1]


def _sort_of(handler: Handler) -> str:
    if handler.actor.process:
        return PROCESSES
    return COROUTINES if inspect.iscoroutinefunction(handler.actor.function) else THREADS


@attrs.frozen
class Room:
    """How many more tasks may be claimed: of each kind, and in all."""

    by_kind: Sequence[int]
    behind: int = 0
    """The rank on the ring from which on to look for them."""

    @property
    def full(self) -> frozenset[int]:
        """The kinds for which there is none."""
        return frozenset(number for number, room in enumerate(self.by_kind) if room <= 0)


class Slots:
    """What dispatchers know of the kinds of slots: how many tasks of each to claim, and which of them can start.

    Args:
        kinds: the kinds of slots.
        execute: runs a claim.
        canceled: makes the outcome of a claim that was canceled.
        batchings: how the calls of each actor with batches are gathered.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        execute: Callable[[Claim], Coroutine[Any, Any, Settlement | Outcomes]],
        canceled: Callable[[Claim, str], Settlement | Outcomes],
        batchings: Mapping[str, Batching] | None = None,
    ) -> None:
        self.kinds: Final = kinds
        batchings = batchings or {}
        self.pools: Final = Pools({kind.name: kind.size for kind in kinds}, execute, canceled, batchings)
        self.batches: Final = self.pools.batches
        self.shares: Final = Shares(self.pools)
        self._numbers = {actor: number for number, kind in enumerate(kinds) for actor in kind.actors}
        sizes = {actor: batching.size for actor, batching in batchings.items()}
        self._packed = SlotKinds([(kind.letters, kind.actors) for kind in kinds], sizes)
        self.several: Final = len(kinds) > 1 or bool(batchings)
        """Whether tasks need different slots: there are several kinds, or batches."""

    def room(self, before: Room) -> Room:
        """Returns how many more tasks of each kind could start now.

        What was passed over for lack of room is left out as long as there still is none for the kinds that were full
        (``before``).
        """
        room = Room([max(0, pool.vacancies) for pool in self.pools.all])
        return attrs.evolve(room, behind=before.behind) if before.full <= room.full else room

    def pack(self, room: Room, joining: Iterable[tuple[str, str, int]] = ()) -> bytes:
        """Packs how many tasks of each kind a turn may claim; empty if all need the same slots.

        Args:
            room: how many of each kind.
            joining: the batches that more tasks may join, see `Batches.ask`.
        """
        return self._packed.pack(room.by_kind, room.behind, joining) if self.several else b""

    def pool_of(self, claim: Claim) -> Pool:
        """Returns the pool in which a claim will run, as far as its record says."""
        claim.kind = self._numbers.get(actor_in(claim.record), 0) if self.several else 0
        return self.pools.all[claim.kind]

    def left(self, room: Room, claims: Iterable[Claim]) -> Room:
        """Returns what is left of the room that a turn had, for claims that `divide` has seen."""
        by_kind = list(room.by_kind)
        for claim in claims:
            by_kind[claim.kind] -= claim.takes_slot
        return Room(by_kind)

    def by_kind(self, settled: Sequence[Settlement]) -> Sequence[Sequence[Settlement]]:
        """Divides the outcomes of tasks by the kind of slot in which they ran."""
        if not self.several:
            return (settled,)
        divided: list[list[Settlement]] = [[] for _ in self.kinds]
        for settlement in settled:
            if settlement.state not in "BU":  # those have not run
                divided[settlement.kind].append(settlement)
        return divided

    def divide(self, claims: list[Claim], *, ahead: int = 0) -> tuple[list[Claim], list[Claim]]:
        """Divides claims: those that can start, or soon if they were claimed ``ahead``, and those that find no slot.

        Several shards may have been asked for a task for the same slot, and a task that is handed over may need any.
        Suspects are claimed whatever they need, and wait here for a slot. Claims for batches are gathered, and are in
        neither list.
        """
        if not self.several:
            return claims, []
        starting: list[Claim] = []
        too_many: list[Claim] = []
        room = [pool.vacancies for pool in self.pools.all]
        room[0] += ahead
        for claim in claims:
            actor = actor_in(claim.record)
            claim.kind = self._numbers.get(actor, 0)
            claim.slots = self.pools.all[claim.kind]
            gathers = self.batches.has(actor)
            if gathers and not claim.deliveries and self.batches.join(claim, actor):
                claim.takes_slot = False
                continue
            room[claim.kind] -= 1
            if room[claim.kind] < 0 and not claim.deliveries:
                too_many.append(claim)
            elif not gathers:
                starting.append(claim)
            elif claim.deliveries:
                starting.append(self.batches.alone(claim, actor))
            else:
                self.batches.open(claim, actor)
        return starting, too_many
