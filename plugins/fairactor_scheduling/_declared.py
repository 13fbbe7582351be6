"""``@schedule`` on an actor: schedules that are part of a program."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, Unpack
from weakref import WeakKeyDictionary

import attrs

from fairactor import Message
from fairactor.errors import ConfigurationError, UnknownActor
from fairactor.plugins import Actor, Host, check_name, shown

from ._moving import call
from ._options import Recurring, ScheduleOptions, check_keywords
from ._rule import Rule
from ._schedule import NAME, split_key
from ._storage import NeverRuns, add_schedule

logger: Final = logging.getLogger(NAME)
A = TypeVar("A", bound=Actor[..., Any])


@attrs.frozen(eq=False)
class _Declaration:
    rule: Rule
    tenants: tuple[str, ...]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def message(self, actor: Actor[..., Any]) -> Message[Any]:
        return actor(*self.args, **self.kwargs)


_declarations: Final[WeakKeyDictionary[Actor[..., Any], list[_Declaration]]] = WeakKeyDictionary()


def schedule(
    when: Recurring,
    *,
    tenant: str | Iterable[str],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Unpack[ScheduleOptions],
) -> Callable[[A], A]:
    """Schedules an actor. It stands above ``@actor``, any number of times.

    A runtime that has the actor and workers adds the schedules when it is entered, as ``@NAME#0``, ``@NAME#1`` and so
    on from the bottom up. A changed declaration replaces the schedule that was added before, and a dropped one removes
    it.

    Args:
        when: a cron expression, or an interval in seconds or as a timedelta.
        tenant: the tenant for which it runs. Several tenants get a schedule each.
        args: the arguments for the actor.
        kwargs: likewise, by name.
        metadata: see `Schedules.add`.
        options: see `Schedules.add`.

    Raises:
        ConfigurationError: something cannot work. TypeError: the arguments do not fit the actor.
    """
    tenants = tuple(dict.fromkeys([tenant] if isinstance(tenant, str) else tenant))
    for name in tenants:
        check_name("tenant", name)
    check_keywords("@schedule", options, ScheduleOptions.__optional_keys__)
    rule = Rule(when=when, kept=0, **options)  # a finished schedule must not start again with the next runtime
    if isinstance(rule.when, dt.datetime):
        raise ConfigurationError(
            "@schedule takes a cron expression or an interval; add a schedule for one moment with Schedules.add"
        )
    declaration = _Declaration(rule, tenants, args, kwargs or {}, metadata or {})

    def declare(actor: A) -> A:
        if not isinstance(actor, Actor):
            raise ConfigurationError(
                f"@schedule stands above @actor, on a function; {shown(actor)} is not an actor of that kind"
            )
        _check_arguments(actor, declaration)
        _declarations.setdefault(actor, []).append(declaration)
        return actor

    return declare


async def add_declared(host: Host) -> None:
    """Adds the schedules that the actors of a runtime declare, and removes those that they no longer declare."""
    declared: set[tuple[str, str]] = set()
    for actor, declarations in list(_declarations.items()):
        if _registered(host, actor.name) is not actor:
            continue
        for number, declaration in enumerate(declarations):
            for tenant in declaration.tenants:
                schedule_id = f"@{actor.name}#{number}"
                declared.add((tenant, schedule_id))
                await _add(host, declaration, tenant, actor, schedule_id)
    for shard in range(host.shard_count):
        for key, actor_name in await _find_declared(host, shard):
            if split_key(key) not in declared and _registered(host, actor_name) is not None:
                logger.info("schedule %r is no longer declared: removing it", split_key(key))
                await call(host, "remove", *split_key(key), "")


async def _add(host: Host, declaration: _Declaration, tenant: str, actor: Actor[..., Any], schedule_id: str) -> None:
    message = declaration.message(actor)
    try:
        await add_schedule(host, declaration.rule, tenant, message, schedule_id, declaration.metadata, declared=True)
    except NeverRuns as error:
        logger.info("%s", error)  # its end has passed


def _check_arguments(actor: Actor[..., Any], declaration: _Declaration) -> None:
    """Accepts arguments that fit an actor.

    Raises:
        TypeError: they do not fit.
    """
    declaration.message(actor)


async def _find_declared(host: Host, shard: int) -> list[tuple[bytes, str]]:
    """Returns the declared schedules of a shard, each with the name of its actor."""
    found: dict[bytes, str] = {}
    cursor = b"0"
    while True:
        cursor, *flat = await host.call(f"{NAME}/declared", shard, cursor)
        found |= {key: actor.decode() for key, actor in zip(flat[::2], flat[1::2], strict=True)}
        if cursor == b"0":
            return [*found.items()]


def _registered(host: Host, actor: str) -> object:
    try:
        return host.actor(actor)
    except UnknownActor:
        return None
