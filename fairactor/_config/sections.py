"""The tables of a configuration: policies, groups, limits, workers, alerts, and those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from fairactor._model.limit import LIMIT_SETTINGS, check_limit_name, limit_changes
from fairactor._model.policy import SETTINGS as POLICY_SETTINGS
from fairactor._model.policy import changes_of
from fairactor._util.checks import check_name, shown
from fairactor._util.nearest import unknown
from fairactor.errors import ConfigurationError

from .mistakes import Path
from .options import OF_NAMESPACE, OF_WORKER, OPTIONS, check_option

Problem = tuple[Path, str]
"""Where in a table something is wrong, and the message."""
Check = Callable[[Mapping[str, Any]], Iterable[Problem]]

_DEFAULTS: Final = POLICY_SETTINGS[:-1]
_LIMIT: Final = (*LIMIT_SETTINGS, "burst")


def check_defaults(table: Mapping[str, Any]) -> Iterable[Problem]:
    """Checks the table of defaults."""
    return _check_settings(table, (), _DEFAULTS, lambda given: changes_of(given, *_DEFAULTS))


def check_tenants(table: Mapping[str, Any]) -> Iterable[Problem]:
    """Checks the tables of tenants."""
    for name, settings in _tables(table):
        yield from _named((name,), partial(check_name, "tenant", name))
        yield from _check_settings(
            settings, (name,), POLICY_SETTINGS, lambda given: changes_of(given, *POLICY_SETTINGS)
        )
    yield from _no_tables(table)


def check_groups(table: Mapping[str, Any]) -> Iterable[Problem]:
    """Checks the tables of groups."""
    for name, settings in _tables(table):
        yield from _named((name,), partial(check_name, "group", name))
        yield from _check_settings(settings, (name,), ("weight",), lambda given: changes_of(given, "weight"))
    yield from _no_tables(table)


def check_limits(table: Mapping[str, Any]) -> Iterable[Problem]:
    """Checks the tables of limits."""
    for name, settings in _tables(table):
        yield from _named((name,), partial(check_limit_name, name))
        yield from _check_settings(settings, (name,), _LIMIT, limit_changes)
    yield from _no_tables(table)


def check_workers(table: Mapping[str, Any]) -> Iterable[Problem]:
    """Checks the tables of named workers."""
    for worker, settings in _tables(table):
        for option, value in settings.items():
            if option in OF_NAMESPACE:
                yield (worker, option), f"{option} is the same for all workers: move it to the top of the file"
            elif option not in OPTIONS:
                yield (worker, option), unknown(option, OF_WORKER, "setting")
            else:
                yield from _named((worker, option), partial(check_option, option, value))
        if settings.get("url") is not None and settings.get("path") is not None:
            yield (worker, "path"), "give url (your server) or path (an embedded server), not both"
    for key, value in table.items():
        if not isinstance(value, Mapping):
            hint = "; the number of workers is workers = …" if key in ("count", "number", "workers") else ""
            yield (key,), f"{shown(value)}: give a table of settings, as in [worker.gpu]{hint}"


CHECKS: Final[Mapping[str, Check]] = {
    "defaults": check_defaults,
    "tenants": check_tenants,
    "groups": check_groups,
    "limits": check_limits,
    "worker": check_workers,
}
"""The sections that are not those of plugins."""


def section_problems(table: Any, check: Check) -> Iterable[Problem]:
    """Yields what is wrong in a section."""
    if not isinstance(table, Mapping):
        yield (), f"{shown(table)}: give a table"
        return
    yield from check(table)


def _check_settings(
    settings: Mapping[str, Any], path: Path, known: Iterable[str], check: Callable[[Mapping[str, Any]], Any]
) -> Iterable[Problem]:
    """Checks each setting by itself, and ``burst`` together with ``rate``, which it needs."""
    wrong = False
    for setting, value in settings.items():
        if setting not in known:
            yield (*path, setting), unknown(setting, known, "setting")
        elif setting != "burst":
            for problem in _named((*path, setting), partial(check, {setting: value})):
                wrong = wrong or setting == "rate"
                yield problem
    if "burst" in settings and "burst" in known and not wrong:
        together = {name: settings[name] for name in ("rate", "burst") if name in settings}
        yield from _named((*path, "burst"), lambda: check(together))


def _named(path: Path, check: Callable[[], Any]) -> Iterable[Problem]:
    try:
        check()
    except ConfigurationError as error:
        yield path, str(error)


def _tables(table: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((name, value) for name, value in table.items() if isinstance(value, Mapping))


def _no_tables(table: Mapping[str, Any]) -> Iterable[Problem]:
    for name, value in table.items():
        if not isinstance(value, Mapping):
            yield (name,), f"{shown(value)}: give a table of settings"
