"""Divides the free slots of a runtime among its shards, so that tenants get their shares whatever shard they are on.

Each shard is fair within. Its virtual time says how far it has served its tenants: it advances by cost / weight, where
the weight is that of all who wait. So shards get what their waiting weights deserve exactly if their virtual times
advance alike, and nobody has to count weights. A runtime treats the rings of its shards as one ring, again by
self-clocked fair queuing. It keeps a clock for each shard, which advances as the shard's virtual time does, and gives
free slots to the shard whose next task has the lowest finish tag by that clock. A shard that begins to wait starts at
the tag that was served last.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fairactor._model.wire import RingClock, Turn

from .claim import Sleeper
from .pace import PER_TURN, Pace

PATIENCE: Final = 1_000
"""A shard that waits gets a slot after so many tasks of others, whatever the clocks say: virtual time does not move for
tasks that a runtime takes from others' tenants, for example."""
GRACE: Final = 0.25
"""Seconds for which others leave slots to a shard that has not answered. After as long a shard that waits, and has not
got a slot, looks again who is on its ring."""
SMOOTH: Final = 0.03
"""Slots are divided exactly over what a runtime starts in so many seconds. Dividing each slot would take twice as many
turns if tasks are short."""
_WINDOW: Final = 64.0  # tasks from which a shard's step is learned
_LEAST_STEP: Final = 1e-9
_NEARLY: Final = 1e-6  # so that rounding errors make no part smaller


class _Pool(Protocol):
    @property
    def vacancies(self) -> int: ...


class _Pools(Protocol):
    @property
    def vacancies(self) -> int: ...

    @property
    def first(self) -> _Pool: ...

    def wake_on_vacancy(self, owner: Sleeper) -> None: ...


class Share:
    """The share of a shard in the slots of a runtime.

    Args:
        shares: those of the other shards, too.
        owner: its dispatcher.
        pace: how many tasks it claims ahead.
    """

    def __init__(self, shares: Shares, owner: Sleeper, pace: Pace) -> None:
        self._shares = shares
        self.owner = owner
        self.pace = pace
        self.clock = 0.0
        """How far it has been served, in the runtime's virtual time."""
        self.next = 1.0
        """The finish tag of its next task, likewise."""
        self.step = 1.0
        """How far a task moves the clock, on average."""
        self.contends = True
        """Whether it may have more tasks than it has asked for."""
        self.looks = False
        """Whether its last turn had to stop before it had looked at all tenants."""
        self.sleeps = False
        """Whether its dispatcher sleeps until there is a slot for it."""
        self.asked = 0
        """How many tasks its turn under way may claim."""
        self.since = shares.now()
        """When its last turn began or ended."""
        self.passed = 0
        """How many tasks of others have been claimed since it began to wait, or got one."""
        self._waits = False  # whether the last reply has said so
        self._period = self._virtual = 0.0  # of the shard, by the last reply
        self._learned = 0.0  # the tasks from which the step is known

    # Called by the dispatcher, in this order

    def wanted(self) -> tuple[int, int]:
        """Returns how many tasks could start here now, and how many more could start soon."""
        others = self._shares.others(self)
        return self._shares.divide(self, others) if others else self._shares.room(self.pace.ahead)

    def asks(self, want: int) -> None:
        """Notes how many tasks the next turn may claim."""
        self.sleeps = False
        self.asked = want
        self.since = self._shares.now()

    def answered(self, turn: Turn, claimed: int, want: int) -> None:
        """Takes the answer to the turn.

        Args:
            turn: the answer.
            claimed: how many tasks it got that take a slot.
            want: how many of them it could have started at once.
        """
        clock = turn.clock
        if not self._shares.several:
            return
        begins = not (self._waits and clock is not None and clock.period == self._period)
        if begins:
            self.clock, self.passed = max(self.clock, self._shares.virtual_time(self)), 0
        if clock is not None:
            self._advance(clock, claimed, begins=begins)
        else:
            self.clock += claimed * self.step
            self.next = self.clock + self.step
        self.asked, self.since = 0, self._shares.now()
        self.looks, self._waits, self.contends = turn.unseen, turn.more, turn.more or claimed >= want
        self._shares.answered(self, claimed)

    def _advance(self, clock: RingClock, claimed: int, *, begins: bool) -> None:
        """Advances the clock as that of the ring has; with ``begins`` nobody knew before what waits there."""
        advance = max(0.0, clock.after - clock.before)
        if begins:  # a tag far ahead would have come later
            self.clock += min(advance, claimed * self.step)
        else:
            self.clock += max(0.0, clock.before - self._virtual) + advance  # with what other runtimes served
        if clock.head and not self._learned:
            self.step, self._learned = max(clock.head - clock.after, _LEAST_STEP), 1.0
        if claimed:
            self._learned += claimed
            weight = min(1.0, max(claimed / self._learned, claimed / _WINDOW))
            self.step = max(_LEAST_STEP, self.step + weight * (advance / claimed - self.step))
        elif not begins and 0 < clock.head < clock.after + self.next - self.clock - _NEARLY:
            # A tenant came whose tag is below that for which this shard waited: it does not catch up.
            self.clock = max(self.clock, min(self.next, self._shares.virtual_time(self)))
        self.next = self.clock + (max(0.0, clock.head - clock.after) if clock.head else self.step)
        self._period, self._virtual = clock.period, clock.after

    def handed(self) -> None:
        """Notes that it got a task without asking."""
        if self._shares.several:
            self.clock = max(self.clock, self._shares.virtual_time(self)) + self.step

    def failed(self) -> None:
        """Gives up what it has asked for, because the server does not answer, or the dispatcher stops."""
        self.asked = 0
        self.contends = self.sleeps = self._waits = False
        self._shares.changed()

    def sleep(self) -> float:
        """Lets a slot wake its dispatcher; returns after how many seconds it should look again anyway."""
        if not self._shares.several:
            self._shares.pools.wake_on_vacancy(self.owner)
            return math.inf
        self.contends = self.sleeps = True
        self._shares.changed()
        return GRACE if any(other.asked for other in self._shares.all) else math.inf

    # Called by the others

    @property
    def waits(self) -> bool:
        """Whether it certainly has more tasks."""
        return self._waits

    @property
    def tag(self) -> float:
        """The finish tag of the task that it would start after those that it has asked for."""
        if self._waits:
            return self.next + self.asked * self.step
        clock = self.clock if self.contends else max(self.clock, self._shares.virtual_time(self))
        return clock + (1 + self.asked) * self.step


class Shares:
    """The shares of all shards of a runtime.

    Args:
        pools: the slots.
        soon: calls a function in the next round; that of the event loop if it is None.
        now: the time in seconds.
    """

    def __init__(
        self,
        pools: _Pools,
        *,
        soon: Callable[[Callable[[], None]], object] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pools: Final = pools
        self.now: Final = now
        self.all: Final[list[Share]] = []
        self.several = False
        self._soon = soon
        self._balances = False

    def add(self, owner: Sleeper, pace: Pace) -> Share:
        """Adds a shard."""
        share = Share(self, owner, pace)
        self.all.append(share)
        self.several = len(self.all) > 1
        return share

    def virtual_time(self, share: Share) -> float:
        """Returns the tag that was served last, from which on a shard counts that begins to wait."""
        waiting = (other.next for other in self.all if other.waits and other is not share)
        return min(max(other.clock for other in self.all), min(waiting, default=math.inf))

    def others(self, share: Share | None = None) -> Sequence[Share]:
        """Returns the shards, but for one, that want slots or have asked for some."""
        if not self.several:
            return ()
        now = self.now()
        return [
            other
            for other in self.all
            if (other.contends or other.asked) and other is not share and (other.sleeps or now - other.since < GRACE)
        ]

    def room(self, ahead: int) -> tuple[int, int]:
        """Returns how many tasks could start now, and how many more could start soon.

        Args:
            ahead: how many tasks to hold ready besides those that run.
        """
        want = max(0, min(PER_TURN, self.pools.vacancies))
        first = min(want, self.pools.first.vacancies)  # only tasks of this kind are claimed ahead
        others = want - max(0, first)
        return want, max(0, min(PER_TURN - others, first + ahead) - max(0, first))

    def divide(self, share: Share, others: Sequence[Share]) -> tuple[int, int]:
        """Returns which part of the room is a shard's."""
        want, ahead = self.room(share.pace.ahead + sum(other.pace.ahead for other in others))
        taken = sum(other.asked for other in others)
        room = want + ahead - taken
        if not any(other.contends for other in others):
            # Those that have just been woken may find nothing.
            return max(want - taken, min(want, 1)), max(0, room - max(0, want - taken))
        if share.looks and not share.contends:
            return min(want, 1), 0  # it goes on where it stopped
        if room <= 0 or not share.contends:
            return 0, 0  # a turn without a task finds out what waits there
        part = min(room, self._parts([share, *(other for other in others if other.contends)], room)[0])
        want = min(part, max(0, want - taken))
        # Who may have nothing asks for a single task, of those that could start: the server notes who got none.
        return (want, part - want) if share.waits else (min(want, 1), 0)

    def _parts(self, shares: Sequence[Share], room: int) -> list[int]:
        """Returns how many of the next tasks, of all these shards together, are those of each."""
        tags = [share.tag for share in shares]
        least = min(tags)
        tags = [
            least - share.step if share.passed >= PATIENCE else tag for share, tag in zip(shares, tags, strict=True)
        ]
        return _divided(tags, [share.step for share in shares], self._smooth(shares, room))

    def _smooth(self, shares: Sequence[Share], room: int) -> float:
        return max(room, SMOOTH * sum(share.pace.rate for share in shares))

    # Waking

    def answered(self, share: Share, claimed: int) -> None:
        """Notes how many tasks a shard has claimed."""
        if claimed:
            for other in self.all:
                other.passed += claimed
            share.passed = 0
        self.changed()

    def changed(self) -> None:
        """Wakes soon those that get a slot now."""
        if not self._balances and any(share.sleeps for share in self.all):
            self._balances = True
            (self._soon or asyncio.get_running_loop().call_soon)(self._balance)

    def wake(self) -> None:
        """A slot is free."""
        self.changed()

    def _balance(self) -> None:
        self._balances = False
        now = self.now()
        others = self.others()
        contending = [share for share in others if share.contends]
        want, ahead = self.room(sum(share.pace.ahead for share in others))
        taken = sum(share.asked for share in others)
        room = want + ahead - taken
        parts = self._parts(contending, room) if room > 0 and contending else [0] * len(contending)
        free = want - taken
        for share, part in zip(contending, parts, strict=True):
            gets = part > 0 and (share.waits or free > 0)
            free -= gets and not share.waits
            if share.sleeps and (gets or (share.passed and now - share.since > GRACE)):
                share.sleeps = False
                share.owner.wake()
        if any(share.sleeps for share in self.all):
            self.pools.wake_on_vacancy(self)


def _divided(tags: Sequence[float], steps: Sequence[float], room: float) -> list[int]:
    """Returns how many of the next tasks, in the order of their tags, are those of each shard.

    Args:
        tags: the tag of each shard's next task.
        steps: how far the tags of its tasks are apart.
        room: how many tasks there are in all.
    """
    parts = [0] * len(tags)
    in_order = sorted(range(len(tags)), key=lambda n: (tags[n], steps[n]))
    least = tags[in_order[0]]
    rate = area = 0.0
    chosen: list[int] = []
    for n in in_order:
        before = len(chosen) + (tags[n] - least) * rate - area  # tasks of those chosen that come before its first
        if chosen and before + 1 > room:
            break
        chosen.append(n)
        rate += 1 / steps[n]
        area += (tags[n] - least) / steps[n]
    level = (room - len(chosen) + area) / rate
    for n in chosen:
        parts[n] = max(1, math.floor((level - tags[n] + least) / steps[n] + 1 + _NEARLY))
    for _ in range(math.floor(room) - sum(parts)):  # what rounding has left
        parts[min(chosen, key=lambda n: tags[n] + parts[n] * steps[n])] += 1
    return parts
