"""Schedules that stand in a configuration file, in the tables ``[schedules.NAME]``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from fairactor import Message
from fairactor.errors import ConfigurationError, UnknownActor
from fairactor.plugins import Host, Options, check_name, shown, unknown

from ._moving import call
from ._options import ScheduleOptions
from ._rule import Rule
from ._schedules import Schedules
from ._storage import NeverRuns, add_schedule, compare_schedule

Path = tuple[str | int, ...]
Table = Mapping[str, Any]

MARK: Final = "fairactor.config"
"""The key of the metadata of schedules that came from a configuration."""
_TIMES: Final = ("cron", "every", "at")
_MOMENTS: Final = ("at", "start", "end")
_KEYS: Final = ("tenant", "actor", *_TIMES, "args", "kwargs", "options", "metadata", *ScheduleOptions.__optional_keys__)
_OPTIONS: Final = (
    "priority", "queue", "limits", "max_retries", "backoff", "backoff_cap", "result_ttl", "expires", "timeout",
    "durability", "key", "key_window",
)  # fmt: skip


def check_schedules(table: Table) -> Iterator[tuple[Path, str]]:
    """Yields what is wrong in the tables."""
    for name, given in table.items():
        if not isinstance(given, Mapping):
            yield (name,), f"{shown(given)}: give a table, as in [schedules.nightly]"
            continue
        yield from _attempt((name,), partial(check_name, "schedule", name))
        for key in given:
            if key not in _KEYS:
                yield (name, key), unknown(key, _KEYS, "setting")
        for path, problem in (*_check_call(given), *_check_times(given)):
            yield (name, *path), problem


def schedule_routes(table: Table) -> Iterator[tuple[Path, str, str | None]]:
    """Yields where the tasks of the schedules go."""
    for name, given in table.items():
        for tenant in _tenants(given):
            yield (name,), tenant, given.get("options", {}).get("queue")


async def apply_schedules(host: Host, table: Table, *, dry_run: bool, prune: bool) -> list[tuple[Path, str]]:
    """Adds the schedules that are missing, and changes those that differ; returns what it has done.

    Args:
        host: the runtime.
        table: the tables.
        dry_run: whether to write nothing.
        prune: whether to remove schedules that came from a configuration, and are not in this one.
    """
    done: list[tuple[Path, str]] = []
    kept = set()
    for name, given in table.items():
        for tenant in _tenants(given):
            kept.add((tenant, name))
            if (what := await _apply(host, name, given, tenant, dry_run=dry_run)) is not None:
                done.append(((name,), f"{what} for tenant {shown(tenant)}"))
    if prune:
        async for found in Schedules(host.runtime).list():
            if MARK in found.metadata and (found.tenant, found.id) not in kept:
                if not dry_run:
                    await call(host, "remove", found.tenant, found.id, "")
                done.append(((found.id,), f"removed for tenant {shown(found.tenant)}"))
    return done


async def _apply(host: Host, name: str, given: Table, tenant: str, *, dry_run: bool) -> str | None:
    try:
        actor = host.actor(given["actor"])
    except UnknownActor:
        return f"skipped, because this runtime does not have the actor {shown(given['actor'])},"
    message: Message[Any] = actor(*given.get("args", ()), **given.get("kwargs", {})).options(**given.get("options", {}))
    metadata = {**given.get("metadata", {}), MARK: True}
    rule = _rule(given)
    compared = await compare_schedule(host, rule, tenant, message, name, metadata)
    if compared == "same":
        return None
    if not dry_run:
        try:
            await add_schedule(host, rule, tenant, message, name, metadata, declared=False)
        except NeverRuns as error:
            return f"skipped ({error})"
    return "added" if compared == "new" else "changed"


def _rule(given: Table) -> Rule:
    options = {key: _moment(key, given[key]) for key in ScheduleOptions.__optional_keys__ if key in given}
    when = next(_moment(key, given[key]) for key in _TIMES if key in given)
    return Rule(when=when, kept=0, **options)  # a finished schedule must not start again when this is applied again


def _moment(key: str, value: Any) -> Any:
    """Converts text to a moment, where one is expected."""
    if key not in _MOMENTS or not isinstance(value, str):
        return value
    try:
        return dt.datetime.fromisoformat(value)
    except ValueError:
        raise ConfigurationError(f"{key}={shown(value)}: give a time, such as 2030-01-31T12:00:00Z") from None


def _check_call(given: Table) -> Iterable[tuple[Path, str]]:
    """Yields what is wrong with what a schedule sends, and to whom."""
    if "actor" not in given:
        yield (), "give the actor = … that it calls"
    else:
        yield from _attempt(("actor",), partial(check_name, "actor", given["actor"]))
    tenants = given.get("tenant")
    if tenants is None:
        yield (), "give the tenant = … for which it runs, or a list of tenants"
    elif not isinstance(tenants, str | list | tuple) or not tenants:
        yield ("tenant",), f"{shown(tenants)}: give a tenant, or a list of tenants"
    else:
        for tenant in [tenants] if isinstance(tenants, str) else tenants:
            yield from _attempt(("tenant",), partial(check_name, "tenant", tenant))
    for key in ("kwargs", "metadata", "options"):
        if not isinstance(given.get(key, {}), Mapping):
            yield (key,), f"{shown(given[key])}: give a table"
    if isinstance(given.get("args", ()), str) or not isinstance(given.get("args", ()), Sequence):
        yield ("args",), f"{shown(given['args'])}: give a list"
    yield from _check_options(given.get("options", {}))


def _check_options(options: Any) -> Iterable[tuple[Path, str]]:
    for key, value in options.items() if isinstance(options, Mapping) else ():
        if key not in _OPTIONS:
            yield ("options", key), unknown(key, _OPTIONS, "option")
        elif key != "key_window":
            yield from _attempt(("options", key), partial(_option, key, value))


def _option(key: str, value: Any) -> None:
    Options(**{key: value})


def _check_times(given: Table) -> Iterable[tuple[Path, str]]:
    """Yields what is wrong with when a schedule runs."""
    times = [key for key in _TIMES if key in given]
    if len(times) != 1:
        yield (), f"give one of cron = …, every = … (seconds) and at = … (a time){', not several' if times else ''}"
    for key in times:
        value = given[key]
        if key == "cron" and not isinstance(value, str):
            yield (key,), f"{shown(value)}: give a cron expression, such as '0 3 * * *'"
        elif key == "every" and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield (key,), f"{shown(value)}: give a number of seconds"
        elif key == "at" and not isinstance(value, str | dt.datetime):
            yield (key,), f"{shown(value)}: give a time, such as 2030-01-31T12:00:00Z"
        else:
            yield from _attempt((key,), partial(_check_rule, when=(key, value)))
    for key in ScheduleOptions.__optional_keys__:
        if key in given:
            yield from _attempt((key,), partial(_check_rule, **{key: (key, given[key])}))


def _check_rule(**given: tuple[str, Any]) -> None:
    options: dict[str, Any] = {"when": 60, **{option: _moment(key, value) for option, (key, value) in given.items()}}
    Rule(**options)


def _tenants(given: Table) -> tuple[str, ...]:
    tenants = given["tenant"]
    return tuple(dict.fromkeys([tenants] if isinstance(tenants, str) else tenants))


def _attempt(path: Path, check: Callable[[], Any]) -> Iterator[tuple[Path, str]]:
    try:
        check()
    except ConfigurationError as error:
        yield path, str(error)
