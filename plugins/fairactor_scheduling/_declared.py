"""``@schedule`` on an actor: schedules that are part of a program."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import attrs

from fairactor import Message
from fairactor.errors import ConfigurationError, UnknownActor
from fairactor.plugins import Actor, Host, check_name

from ._rule import Rule
from ._schedule import NAME, split_key
from ._schedules import NeverRuns, Schedules

logger: Final = logging.getLogger(NAME)
A = TypeVar("A", bound=Actor[..., Any])


@attrs.frozen(eq=False)
class _Declared:
    rule: Rule
    tenants: tuple[str, ...]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    metadata: Mapping[str, Any]


_declared: Final[WeakKeyDictionary[Actor[..., Any], list[_Declared]]] = WeakKeyDictionary()


def schedule(
    when: str | float | dt.timedelta,
    *,
    tenant: str | Iterable[str],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **how: Any,
) -> Callable[[A], A]:
    """Schedules an actor: stands above ``@actor``, any number of times.

    The schedule is added when a runtime with that actor and workers is entered, as ``@NAME#0``, ``@NAME#1`` and so on
    from the bottom up. What is changed here replaces what was added before, and what is taken away is removed.

    Args:
        when: a cron expression, or an interval.
        tenant: in whose name it runs; several have a schedule each.
        args: what the actor is called with.
        kwargs: likewise, by name.
        metadata: as `Schedules.add`.
        how: the rest that `Schedules.add` takes, but for ``id``.

    Raises:
        ConfigurationError: something cannot work. TypeError: the arguments do not fit the actor.
    """
    tenants = tuple(dict.fromkeys([tenant] if isinstance(tenant, str) else tenant))
    for each in tenants:
        check_name("tenant", each)
    known = {field.name for field in attrs.fields(Rule)} - {"when", "kept"}
    if unknown := how.keys() - known:
        raise ConfigurationError(f"@schedule has no {min(unknown)}=; there are {', '.join(sorted(known))}")
    rule = Rule(when=when, kept=0, **how)  # one that has finished must not start again with the next runtime
    if isinstance(rule.when, dt.datetime):
        raise ConfigurationError("@schedule is for what recurs; add what runs once with Schedules.add")

    def declare(actor: A) -> A:
        if not isinstance(actor, Actor):
            raise ConfigurationError(
                f"@schedule stands above @actor, on a function; {actor!r} is no actor of that kind"
            )
        actor(*args, **(kwargs or {}))  # refuses arguments that do not fit
        _declared.setdefault(actor, []).append(_Declared(rule, tenants, args, kwargs or {}, metadata or {}))
        return actor

    return declare


async def add_declared(host: Host) -> None:
    """Adds what the actors of a runtime declare, and removes what they declare no more."""
    schedules = Schedules(host.runtime)
    wanted: set[tuple[str, str]] = set()
    for actor, declared in list(_declared.items()):
        if _runs(host, actor.name) is not actor:
            continue
        for number, each in enumerate(declared):
            for tenant in each.tenants:
                schedule_id = f"@{actor.name}#{number}"
                wanted.add((tenant, schedule_id))
                await _add(schedules, each, tenant, actor(*each.args, **each.kwargs), schedule_id)
    for shard in range(host.shard_count):
        for key, of_actor in await _found(host, shard):
            if split_key(key) not in wanted and _runs(host, of_actor) is not None:
                logger.info("the schedule %r is declared no more: removing it", split_key(key))
                await host.call(f"{NAME}/remove", shard, key, "")


async def _add(schedules: Schedules, each: _Declared, tenant: str, message: Message[Any], schedule_id: str) -> None:
    try:
        await schedules._add(each.rule, tenant, message, schedule_id, each.metadata, declared=True)  # noqa: SLF001
    except NeverRuns as error:
        logger.info("%s", error)  # its end has passed


async def _found(host: Host, shard: int) -> list[tuple[bytes, str]]:
    flat = await host.call(f"{NAME}/declared", shard)
    return [(key, actor.decode()) for key, actor in zip(flat[::2], flat[1::2], strict=True)]


def _runs(host: Host, actor: str) -> object:
    try:
        return host.actor(actor)
    except UnknownActor:
        return None
