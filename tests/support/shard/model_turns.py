"""The part of the model that takes turns of runtimes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import attrs

from fairactor._model.wire import Permit, Waits
from fairactor._util.link import MOST

from .model_ending import Ending
from .model_rules import is_capped
from .model_state import Step
from .model_suspects import FORBIDDEN, Permission, choose_suspect
from .model_tasks import HANDED, Room, Task, Verdict

LOOKS = 50
"""How many tasks of a tenant a turn looks at to find one that has room."""


@attrs.define
class Turns(Ending):
    advance: tuple[float, float] | None = attrs.field(default=None, init=False)
    """Virtual time before and after the claims of the last turn; None for a dedicated runtime."""

    def turn(
        self,
        runtime: str,
        number: int,
        verdicts: Sequence[Verdict],
        want: int,
        claimed: Sequence[str],
        *,
        heard: bool = False,
        permission: Permission = FORBIDDEN,
        gives_back: bool = False,
        room: Room = None,
        moved: Collection[str] = (),
        most_bytes: int = MOST,
    ) -> tuple[list[str], int, Waits]:
        """Settles claims, then claims the tasks that the server claimed, in the same order.

        Asserts that the server's choice is right. A task that was handed over since the last turn comes last in
        ``claimed``, unless the runtime has received it (``heard``). A suspect comes before it. ``moved`` are the tasks
        of the common lane that the server has moved to the lanes in which they belong. It stops after ``most_bytes`` of
        records.

        Returns:
            The refused ids, how many tasks beside a suspect it could claim, and what the reply says of suspects.
        """
        waits = Waits.SOME if self.suspected and permission[0] in {Permit.NONE, Permit.SHARED} else Waits.NONE
        suspect: Task | None = None
        self.act_for(runtime)
        used = self.lanes.used
        self.returned.clear()
        self.lanes.used |= any(verdict.state in "UV" for verdict in verdicts)
        with Step(self) as step:
            missed = self.missed(runtime, heard=heard)
            claimed = self._without(claimed, missed, number)
            refused = self._end_all(runtime, verdicts, step)
            step.touch(*[name for name in self.rules.throttled if self.rules.free(name)])
            if self.suspected and not gives_back:
                suspect, want, waits = choose_suspect(self, runtime, want, permission, step)
            claimed = self._without(claimed, suspect, number)
            step.seat()
            self.service.charge(suspect)
            self._move(moved, want, step)
            self.service.sorts = bool(moved)
            home = self.service.homes.get(runtime)
            stolen = self.rules.stolen
            self.service.capped = room is not None and want > 0
            if home and want:
                self.service.come_home(runtime)
            left_room = [*room] if room is not None else None
            if left_room and missed:
                kind = is_capped(missed.body)
                left_room[kind] = max(0, left_room[kind] - 1)
            self._pass_over(left_room)
            began = self.service.root.virtual
            left_bytes = most_bytes - sum(len(task.record) for task in (missed, suspect) if task)
            for task_id in claimed:
                assert left_bytes > 0
                left_bytes -= len(self.tasks[task_id].record)
                self._serve(self.tasks[task_id], runtime, number, step, left_room)
                self._pass_over(left_room)
            if home and want:
                step.count_limited(*home.assigned)
                if len(claimed) - (self.rules.stolen - stolen) < want:
                    step.count_limited(*home.steal)
            self.advance = None if home else (began, self.service.root.virtual)
            left, _, _ = self.service.open_to(runtime)
            ends_early = left_bytes <= 0 or not left
            assert len(claimed) == want or ends_early, f"{want} wanted, {len(claimed)} given, {left} wait"
            assert left_room is None or min(left_room) >= 0
            self._end_claiming(runtime, permission)
        self.lanes.used = used or bool(self.lanes.unserved or self.lanes.routes)
        self.leases[runtime] = False
        self.turns[runtime] = (number, refused, len(verdicts))
        self.handed.pop(runtime, None)
        return refused, want, waits

    def _move(self, moved: Collection[str], want: int, step: Step) -> None:
        """Moves tasks that the runtime cannot run out of the common lane."""
        assert want or not moved
        for task in [self.tasks[task_id] for task_id in moved]:
            assert self.is_misplaced(task, self.acting), f"{task.id!r} was moved"
            task.lane = self.lane_of(task)
            step.touch(task.tenant, count=False)
        step.seat()

    def _without(self, claimed: Sequence[str], last: Task | None, number: int) -> Sequence[str]:
        """Returns what a turn has claimed beside a task that comes last, if there is one."""
        if last is None:
            return claimed
        last.turn = number
        assert claimed[-1:] == [last.id], f"{last.id!r} is not the last of {claimed}"
        return claimed[:-1]

    def _end_claiming(self, runtime: str, permission: Permission) -> None:
        self.service.capped = False
        self.service.passed.clear()
        for task in self.claims(runtime) if permission[0] == Permit.SHARED else ():
            task.alone = False

    def _pass_over(self, room: Room) -> None:
        """Passes over the tenants none of whose first tasks can start here."""
        self.service.passed = {name for name in self.service.served if not self._startable(name, room)}

    def _startable(self, tenant: str, room: Room) -> list[Task]:
        """Returns those of a tenant's first tasks that can start: there is room, and they are in the right lane."""
        first = self.queue(tenant, self.acting)[:LOOKS]
        right = [task for task in first if not self.is_misplaced(task, self.acting)]
        return [task for task in right if room is None or room[is_capped(task.body)] > 0]

    def missed(self, runtime: str, *, heard: bool) -> Task | None:
        """Returns the task handed to a runtime since its last turn, if it stands but was not received."""
        task = None if heard else self.tasks.get(self.handed.get(runtime, ""))
        stands = task and (task.state, task.runtime, task.turn) == ("started", runtime, self.turns[runtime][0] | HANDED)
        return task if stands else None

    def turn_again(self, runtime: str) -> tuple[int, list[str], int]:
        """Returns the number of a runtime's last turn, the ids that it refused, and how many outcomes it had.

        It renews the lease.
        """
        self.leases[runtime] = False
        return self.turns[runtime]

    def _serve(self, task: Task, runtime: str, number: int, step: Step, room: list[int] | None) -> None:
        """Claims a task, which must be the first with room of a tenant whose turn it is."""
        assert [task] == self._startable(task.tenant, room)[:1], (
            f"{task.id!r} is not first in {self.queue(task.tenant)}"
        )
        if room is not None:
            room[is_capped(task.body)] -= 1
        task.charged = self.rules.cost(task.tenant, task.body)
        self.service.serve(task.tenant, runtime, task.charged)
        task.state, task.runtime, task.turn, task.since, task.alone = "started", runtime, number, math.nan, False
        step.touch(task.tenant)
        step.seat()
