"""Claims: tasks that this runtime has taken from their mailboxes to run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from fairactor._actors.task import Slots, Task
from fairactor._model import record
from fairactor._model.wire import Settlement, as_text
from fairactor._util.spans import AttemptSpan

_NAMED: Final = 20  # the most tasks in a message


class Sleeper(Protocol):
    """What can be woken: a dispatcher, or all of them."""

    def wake(self) -> None:
        """Makes it claim more tasks soon, because a worker has become free."""


class Owner(Sleeper, Protocol):
    """The dispatcher that a claim came from."""

    @property
    def runtime(self) -> str:
        """The name under which it claims now; '' without a lease."""
        ...

    def settle(self, claim: Claim, settlement: Settlement) -> None:
        """Takes the outcome of a claim."""


class Outcomes(NamedTuple):
    """The outcomes of the tasks of a batch."""

    each: list[Settlement]
    seconds: float
    """How long the batch ran."""


class Claim:
    """A task that this runtime has claimed."""

    __slots__ = (
        "batch", "begun", "body", "call", "cancel_reason", "claimed", "error_type", "header", "id", "kind", "lost",
        "owner", "record", "runtime", "server_time", "slots", "span", "takes_slot", "task", "tell_dead", "turn",
    )  # fmt: skip

    def __init__(
        self, task_id: str, packed: bytes, turn: bytes, owner: Owner, server_time: float, claimed: float
    ) -> None:
        self.id = task_id
        self.record = packed
        self.turn = turn
        self.owner = owner
        self.runtime = owner.runtime  # at the time of the claim: fencing needs both, the name and the turn
        self.server_time = server_time  # of the claim, unix seconds
        self.claimed = claimed  # the same moment by the monotonic clock of this process
        self.begun = claimed
        self.header: record.Header | None = None
        self.body = b""
        self.call: record.Call | None = None
        self.task: Task | None = None
        self.span: AttemptSpan | None = None
        self.cancel_reason: str | None = None
        self.kind = 0  # the number of the kind of slot that it needs
        self.slots: Slots | None = None  # the slots of that kind; None if there is one kind
        self.takes_slot = True  # whether it took one when it was claimed; what joins a batch does not
        self.batch: Claim | None = None  # the batch with which it runs
        self.tell_dead: Callable[[], None] | None = None  # to be called if its outcome, 'V', makes it a dead letter
        self.error_type = ""  # the name of the type of the error with which an attempt has failed
        self.lost = False  # whether it was canceled because this runtime has given it up

    @property
    def deliveries(self) -> int:
        """How many runtimes have died, or lost their lease, while they had it; with one, it is a suspect."""
        return self.record[1] if len(self.record) > 1 else 0

    @property
    def tasks(self) -> list[Claim]:
        """The claims that run together: this one, or those of a batch."""
        return [self]

    def server_clock(self, at: float | None = None) -> float:
        """Converts a moment of the monotonic clock, by default now, to unix seconds by the server's clock."""
        return self.server_time + (time.monotonic() if at is None else at) - self.claimed

    @property
    def seconds(self) -> float:
        """The seconds for which the task has run."""
        return time.monotonic() - self.begun if self.begun != self.claimed else 0.0

    def age(self) -> float:
        """Returns the seconds since the task was sent or became due, by the server's clock."""
        return self.server_clock() - self.header.stamp / 1e6 if self.header else 0.0

    def keep_log(self) -> None:
        """Adds what the handler has logged to the body of the task's record, once."""
        task = self.task
        if task is not None and task.log is not None and self.body:
            self.body, task.log = task.log.added_to(self.body), None

    def find(self, task_id: str) -> Claim | None:
        """Returns the claim of a task that runs here: this one, or one of a batch."""
        return self if self.id == task_id else None

    def cancel(self, claim: Claim, reason: str) -> bool:
        """Cancels what `find` has returned; returns whether nothing is left to run."""
        claim.cancel_reason = reason
        return claim is self

    def withdraw(self, claim: Claim) -> bool:
        """Takes out what `find` has returned, before it starts; returns whether nothing is left to run."""
        return claim is self

    def settle(self, outcome: Settlement | Outcomes) -> None:
        """Reports the outcome to the owner."""
        self.owner.settle(self, outcome)  # type: ignore[arg-type]  # Outcomes are those of batches, which settle otherwise

    def described(self) -> str:
        """Returns the task's id, actor and tenant, for the log."""
        actor = self.call.actor if self.call else "?"
        tenant = self.header.tenant if self.header else "?"
        return f"{self.id} ({actor} of tenant {tenant!r})"

    def given_back(self) -> Settlement:
        """Returns the settlement of a task that was not started: it goes back to its place in the mailbox."""
        return Settlement(self.id, self.turn, "B", 0, b"")

    def for_others(self) -> Settlement:
        """Returns the settlement of a task that this runtime cannot run: it goes to where those find it that can."""
        return Settlement(self.id, self.turn, "U", 0, b"")


def again(claim: Claim, packed: bytes, delay: float) -> Settlement:
    """Returns the settlement of a task that is tried again after a delay, with the record that it has then."""
    return Settlement(claim.id, claim.turn, "R", round(delay * 1000), packed, claim.seconds, kind=claim.kind)


def described(claims: Iterable[Claim]) -> str:
    """Returns tasks as a list for the log, with their actors and tenants."""
    found = list(claims)
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (", ".join(claim.described() for claim in found[:_NAMED]) or "none") + more


def new_claims(ids_and_records: Any, turn: bytes, owner: Owner, server_time: float) -> list[Claim]:
    """Makes claims from the flat list [id, record, …] in the reply to a turn."""
    now = time.monotonic()
    flat = iter(ids_and_records)
    return [
        Claim(as_text(task_id), packed, turn, owner, server_time, now)
        for task_id, packed in zip(flat, flat, strict=True)
    ]
