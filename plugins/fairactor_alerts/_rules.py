"""The rules, and what each kind of them looks at."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import attrs

from fairactor.errors import ConfigurationError
from fairactor.plugins import check_seconds, shown

from ._facts import Facts

Kind = Literal[
    "oldest_wait", "failure_rate", "dead_letters", "no_worker", "silent_worker", "stuck_worker", "unfair",
    "schedule_late", "server_memory", "clock",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_CLEAR: Final = 0.8
_LEAST_ENDED: Final = 20
"""The least number of tasks that must have ended of late to say how many fail."""


@attrs.frozen
class _Look:
    """What a kind of rules looks at."""

    above: float
    seconds: float
    """For how long it has to be so."""
    values: Callable[[Facts, str | None], Iterable[tuple[str, float]]]
    """Yields what there is: a subject, and its value. It is given the facts, and the queue of the rule."""
    text: str
    """What is wrong, with ``{subject}`` and ``{value}``."""


def _number(_: str, __: Any, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or value == float("inf"):
        raise ConfigurationError(f"above={shown(value)}: give a number, 0 or more")
    return float(value)


@attrs.frozen(kw_only=True)
class Rule:
    """A rule: something must not be at or above a number for longer than some seconds.

    Raises:
        ConfigurationError: something of it is invalid.
    """

    kind: Kind
    """What it looks at; docs/alerts.md describes each."""
    above: float = attrs.field(default=attrs.Factory(lambda rule: _look(rule.kind).above, takes_self=True))
    """From where on the rule is broken, in the unit of the kind."""
    clear: float = attrs.field(default=attrs.Factory(lambda rule: _clear_of(rule.above), takes_self=True))
    """Below this the rule is kept again; 0.8 of `above` by default."""
    seconds: float = attrs.field(default=attrs.Factory(lambda rule: _look(rule.kind).seconds, takes_self=True))
    """For how long it has to be broken before people are told."""
    queue: str | None = None
    """The queue that it looks at, if the kind has queues (``oldest_wait``, ``no_worker``); None for all."""

    def __attrs_post_init__(self) -> None:
        _number("above", None, self.above)
        if _number("clear", None, self.clear) > self.above:
            raise ConfigurationError(f"clear={shown(self.clear)}: give a number, not more than above={self.above:g}")
        check_seconds("seconds", self.seconds)
        if self.queue is not None and (
            not isinstance(self.queue, str) or self.kind not in ("oldest_wait", "no_worker")
        ):
            raise ConfigurationError(
                f"queue={shown(self.queue)}: only rules for oldest_wait and no_worker have a queue"
            )

    def values(self, facts: Facts) -> Iterator[tuple[str, float]]:
        """Yields each subject that the facts have, with its value."""
        yield from _look(self.kind).values(facts, self.queue)

    def text(self, subject: str, value: float) -> str:
        """Returns what is wrong, in a sentence."""
        found = _look(self.kind).text.format(subject=subject, value=value, percent=100 * value)
        return found if subject or ": " not in found else found.partition(": ")[2]


def read_rule(table: Mapping[str, Any]) -> Rule:
    """Makes a rule of a table of a configuration file.

    Raises:
        ConfigurationError: something of it is invalid.
    """
    known = [field.name for field in attrs.fields(Rule)]
    for key in table:
        if key not in known:
            raise ConfigurationError(f"a rule has no {shown(key)}{_nearest(key, known)}: it has {', '.join(known)}")
    if "kind" not in table:
        raise ConfigurationError(f"kind= is missing: give one of {', '.join(KINDS)}")
    return Rule(**table)


def _clear_of(above: Any) -> float:
    return _CLEAR * above if isinstance(above, int | float) else 0.0


def _look(kind: Any) -> _Look:
    if kind not in KINDS:
        raise ConfigurationError(f"kind={shown(kind)}{_nearest(kind, KINDS)}: give one of {', '.join(KINDS)}")
    return _LOOKS[kind]


def _nearest(name: Any, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(str(name), list(known), 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _oldest(facts: Facts, queue: str | None) -> Iterator[tuple[str, float]]:
    for each in facts.queues:
        if each.oldest_wait is not None and queue in (None, each.queue):
            yield each.queue, each.oldest_wait


def _failures(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    load = facts.health.load
    if load is not None and (ended := load.recent_finished + load.recent_failed) >= _LEAST_ENDED:
        yield "", load.recent_failed / ended


def _letters(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    if facts.health.stats is not None:
        yield "", float(facts.health.stats.dead_letters)


def _lacking(facts: Facts, queue: str | None) -> Iterator[tuple[str, float]]:
    load, stats = facts.health.load, facts.health.stats
    for each in load.unserved if load else ():
        if queue in (None, each.queue):
            yield f"{each.actor} in {each.queue}", each.waited
    working = stats is not None and any(each.size and each.lease_left >= 0 for each in stats.runtimes)
    if load is not None and load.oldest_wait is not None and not working and queue is None:
        yield "any task", load.oldest_wait


def _silent(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    for each in facts.health.stats.runtimes if facts.health.stats else ():
        if each.lease_left < 0:
            yield each.name, -each.lease_left


def _stuck(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    for each in facts.health.load.stuck if facts.health.load else ():
        yield each.name, each.pulse.newest_run if each.pulse else 0.0


def _unfair(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    for each in facts.tenants:
        if each.backlog and each.fair_share and not each.paused:
            yield each.tenant, max(0.0, 1 - each.share / each.fair_share)


def _clock(facts: Facts, _: str | None) -> Iterator[tuple[str, float]]:
    if facts.health.stats is not None:
        yield "", facts.health.stats.clock_set_back


_LOOKS: Final[Mapping[Kind, _Look]] = {
    "oldest_wait": _Look(300.0, 60.0, _oldest, "queue {subject!r}: a task has waited for {value:.0f} s"),
    "failure_rate": _Look(0.5, 0.0, _failures, "{percent:.0f} % of the tasks that ended of late have failed"),
    "dead_letters": _Look(100.0, 0.0, _letters, "the number of dead letters is {value:.0f}"),
    "no_worker": _Look(60.0, 0.0, _lacking, "no runtime can run {subject}, and a task has waited for {value:.0f} s"),
    "silent_worker": _Look(5.0, 0.0, _silent, "runtime {subject} has been silent for {value:.0f} s after its lease"),
    "stuck_worker": _Look(0.0, 30.0, _stuck, "runtime {subject} is stuck: its newest task has run for {value:.0f} s"),
    "unfair": _Look(0.5, 120.0, _unfair, "tenant {subject!r} gets {percent:.0f} % less than its fair share"),
    "schedule_late": _Look(
        60.0, 0.0, lambda facts, _: facts.late.items(), "schedule {subject!r} is {value:.0f} s late"
    ),
    "server_memory": _Look(
        0.9,
        60.0,
        lambda facts, _: facts.memory.items(),
        "the server of {subject} has used {percent:.0f} % of its memory",
    ),
    "clock": _Look(60.0, 0.0, _clock, "the server's clock was set back by {value:.0f} s"),
}
DEFAULT_RULES: Final[Mapping[str, Rule]] = MappingProxyType({kind: Rule(kind=kind) for kind in KINDS})
"""A rule of each kind, by the name of the kind."""
