"""Which tasks somebody wants to see: the filters of `Runtime.tasks` and `Runtime.select`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Self

import attrs

from fairactor._model.info import TaskInfo
from fairactor._model.lane import actor_in_index
from fairactor._model.record import encode
from fairactor._model.states import TaskState
from fairactor._util.checks import check_aware, check_name, check_route_name, shown
from fairactor.errors import ConfigurationError

ENDED: Final = "ended"
"""The list of tasks that have finished or were canceled."""
_ORDER: Final = ("started", "queued", "deferred", "scheduled", "failed", ENDED)
_LISTED: Final = frozenset({TaskState.FINISHED, TaskState.CANCELED})
_LONGEST: Final = 1000
_OTHER_NAMES: Final = {
    "running": "started", "active": "started", "waiting": "queued", "pending": "queued", "delayed": "scheduled",
    "retry": "scheduled", "held": "deferred", "dead": "failed", "done": "finished", "completed": "finished",
    "success": "finished", "successful": "finished",
}  # fmt: skip
"""What other systems call the states."""


@attrs.frozen
class Filter:
    """What tasks have to be to pass."""

    tenant: str | None
    states: frozenset[TaskState]
    actor: str | None
    queue: str | None
    since: datetime | None
    text: str | None

    @classmethod
    def checked(cls, *, tenant: Any, state: Any, actor: Any, queue: Any, since: Any, text: Any) -> Self:
        """Returns the filter.

        Raises:
            ConfigurationError: a part of it is invalid; the message names it.
        """
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= _LONGEST):
            raise ConfigurationError(f"text={shown(text)}: give a string of 1 to {_LONGEST} characters")
        if since is not None:
            check_aware("since", since)
        return cls(
            None if tenant is None else check_name("tenant", tenant),
            _states(state),
            None if actor is None else check_route_name("actor", actor),
            None if queue is None else check_route_name("queue", queue),
            since,
            text,
        )

    def narrowed(self, states: Iterable[TaskState]) -> Filter:
        """Returns the filter for those of its states that are among these."""
        return attrs.evolve(self, states=self.states & frozenset(states))

    @property
    def lists(self) -> Sequence[str]:
        """The lists that have such tasks, in the order in which they are read."""
        wanted = {ENDED if state in _LISTED else state.value for state in self.states}
        return [name for name in _ORDER if name in wanted]

    @property
    def reads_records(self) -> bool:
        """Whether it has to know more than the state and the tenant."""
        return any(value is not None for value in (self.actor, self.queue, self.since, self.text))

    @property
    def actor_in_json(self) -> str:
        """The actor as the index of dead letters has it; '' for all."""
        return actor_in_index(self.actor) if self.actor else ""

    @property
    def key(self) -> bytes:
        """What tells it from other filters."""
        return repr((self.tenant, sorted(self.states), self.actor, self.queue, self.since, self.text)).encode()

    def takes(self, info: TaskInfo) -> bool:
        """Whether a task passes, whose tenant does."""
        return (
            info.state in self.states
            and self.actor in (None, info.actor)
            and self.queue in (None, info.queue)
            and (self.since is None or (info.ended_at or info.enqueued_at) >= self.since)
            and (self.text is None or self._finds_text(info, self.text))
        )

    @staticmethod
    def _finds_text(info: TaskInfo, text: str) -> bool:
        return text in info.id or text.encode(errors="surrogatepass") in encode([info.args, info.kwargs])


def _states(given: Any) -> frozenset[TaskState]:
    if given is None:
        return frozenset(TaskState)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"state={shown(given)}: give a state, a list of states, or None for all")
    states = [_state(name) for name in names]
    if not states:
        raise ConfigurationError("state=[]: give a state, a list of states, or None for all")
    return frozenset(states)


def _state(name: Any) -> TaskState:
    known = [state.value for state in TaskState]
    if isinstance(name, str) and name in known:
        return TaskState(name)
    near = difflib.get_close_matches(name.lower(), [*known, *_OTHER_NAMES], n=1) if isinstance(name, str) else []
    near = [_OTHER_NAMES.get(found, found) for found in near]
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigurationError(f"state={shown(name)}: {hint}The states are {', '.join(known)}")
