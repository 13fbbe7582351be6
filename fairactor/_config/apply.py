"""Applies a configuration to a namespace: policies, groups and limits. It writes only what differs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from fairactor._actors.host import Host
from fairactor._client.limit import Limit
from fairactor._client.policies import Policies
from fairactor._model.limit import LIMIT_SETTINGS, LimitPolicy, limit_changes, parts_of
from fairactor._model.policy import SETTINGS, changes_of
from fairactor._util.checks import shown

from .mistakes import shown_path

if TYPE_CHECKING:
    from fairactor._model.wire import PackedPolicy
    from fairactor._store.shard import Shard
    from fairactor._store.shards import Shards

logger: Final = logging.getLogger(__name__)
Tables = Mapping[str, Mapping[str, Any]]
_DEFAULTS: Final = SETTINGS[:-1]
_FEW: Final = 50  # tenants that are read one by one


@attrs.frozen
class Change:
    """What `Runtime.apply` has changed, or would change."""

    about: str
    """The place in the configuration, such as ``tenants.acme.weight``."""
    change: str
    """What it was and what it is now, or what was done."""

    def __str__(self) -> str:
        return f"{self.about}: {self.change}"


class Applier:
    """Compares a configuration with a namespace, and writes the differences.

    Args:
        shards: returns the shards of the namespace.
        dry_run: whether to write nothing.
        prune: whether to reset what the configuration does not name.
    """

    def __init__(self, shards: Callable[[], Shards], *, dry_run: bool, prune: bool) -> None:
        self._shards = shards
        self._policies = Policies(shards)
        self._dry_run = dry_run
        self._prune = prune
        self.changes: list[Change] = []

    async def defaults(self, table: Mapping[str, Any]) -> None:
        """Applies the policy of tenants without settings of their own."""
        _, own = await self._shards()[0].policy("")
        changed = self._differences(("defaults",), table, own, _DEFAULTS)
        if changed and not self._dry_run:
            await self._policies.configure_defaults(**changed)

    async def groups(self, tables: Tables) -> None:
        """Applies the weights of groups."""
        if not tables and not self._prune:
            return
        configured = await self._policies.groups()
        names = [*tables, *(name for name in configured if self._prune and name not in tables)]
        for name in names:
            own = {"weight": configured[name]} if name in configured else {}
            changed = self._differences(("groups", name), tables.get(name, {}), own, ("weight",))
            if changed and not self._dry_run:
                await self._policies.configure_group(name, weight=changed["weight"])

    async def tenants(self, tables: Tables) -> None:
        """Applies the policies of tenants."""
        shards = self._shards()
        everything = await self._policies.own() if self._prune or len(tables) > _FEW else None
        names = [*tables, *(name for name in everything or () if self._prune and name not in tables)]
        for name in names:
            if everything is not None:
                own = everything.get(name, {})
            else:
                own, _ = await shards.at_home(name, partial(_policy, name))
            changed = self._differences(("tenants", name), tables.get(name, {}), own, SETTINGS)
            if changed and not self._dry_run:
                packed = changes_of(changed, *SETTINGS)
                await shards.at_home(name, partial(_configure, name, packed))

    async def limits(self, tables: Tables) -> None:
        """Applies limits."""
        shards = self._shards()
        found = await _configured_limits(shards)
        for name in [*tables, *(name for name in found if self._prune and name not in tables)]:
            own = found.get(name, {})
            table = dict(tables.get(name, {}))
            if self._prune:
                table |= {key: None for key in LIMIT_SETTINGS if key not in table and own.get(key) is not None}
            per = table["per"] if "per" in table else own.get("per")
            wanted = parts_of(limit_changes(table), len(shards), per=per)[0] if table else {}
            different = {key for key, value in wanted.items() if _plain(own.get(key)) != _plain(value)} - {"whole"}
            if not different:
                continue
            before = LimitPolicy.read(own | {"declared": {}})
            for key in (key for key in table if key in different or (key == "burst" and "rate" in different)):
                self._note(("limits", name, key), getattr(before, key), table[key])
            if not self._dry_run:
                await Limit(name, self._shards).configure(**table)

    def _differences(
        self, path: tuple[str, ...], table: Mapping[str, Any], own: PackedPolicy, known: Iterable[str]
    ) -> dict[str, Any]:
        """Returns the settings to change; notes each of them."""
        wanted = dict(table)
        if self._prune:
            wanted |= {key: None for key in known if key not in table and own.get(key) is not None}
            if "rate" in table and "burst" not in table:
                wanted.pop("burst", None)
        changed: dict[str, Any] = {}
        packed = changes_of(wanted, *known)
        for key, value in packed.items():
            if _plain(own.get(key)) != _plain(value):
                changed[key] = wanted[key]
                self._note((*path, key), _shown_setting(own.get(key)), wanted[key])
                if key == "rate" and "burst" in wanted:
                    changed["burst"] = wanted["burst"]
        return changed

    def _note(self, path: tuple[str, ...], before: Any, after: Any) -> None:
        def text(value: Any) -> str:
            return "not set" if value is None else shown(value)

        self.changes.append(Change(shown_path(path), f"{text(before)} → {text(after)}"))


async def _policy(tenant: str, shard: Shard) -> tuple[PackedPolicy, PackedPolicy]:
    return await shard.policy(tenant)


async def _configure(tenant: str, changes: PackedPolicy, shard: Shard) -> PackedPolicy:
    return await shard.configure(tenant, changes)


def _plain(value: Any) -> Any:
    """Returns a packed value in a form that can be compared, whether it comes from here or from the server."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value


def _shown_setting(packed: Any) -> Any:
    """Returns a stored setting as users give it: of a rate, the text."""
    value = _plain(packed)
    return (value[0] or float("inf")) if isinstance(value, list) else value


async def _configured_limits(shards: Shards) -> dict[str, dict[str, Any]]:
    from fairactor._model.lane import name_in_json  # loads msgspec

    _, found = await shards[0].limits()
    return {name_in_json(name): dict(settings) for name, (settings, *_) in found.items()}


class Configuration(Protocol):
    """What `apply` needs of a configuration."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The policy of tenants without settings of their own."""
        ...

    @property
    def groups(self) -> Tables:
        """The groups."""
        ...

    @property
    def tenants(self) -> Tables:
        """The tenants."""
        ...

    @property
    def limits(self) -> Tables:
        """The limits."""
        ...

    @property
    def plugins(self) -> Tables:
        """The sections of plugins."""
        ...


async def apply(
    config: Configuration,
    shards: Callable[[], Shards],
    host: Host,
    *,
    dry_run: bool,
    prune: bool,
) -> list[Change]:
    """Applies a configuration; see `Runtime.apply`."""
    applier = Applier(shards, dry_run=dry_run, prune=prune)
    await applier.defaults(config.defaults)
    await applier.groups(config.groups)
    await applier.tenants(config.tenants)
    await applier.limits(config.limits)
    for plugin in host.plugins.values():
        section = getattr(plugin, "section", None)
        if section is None or not hasattr(plugin, "apply_section") or not (prune or section in config.plugins):
            continue
        found = await plugin.apply_section(host, config.plugins.get(section, {}), dry_run=dry_run, prune=prune)
        applier.changes += [Change(shown_path((section, *path)), text) for path, text in found]
    for change in applier.changes:
        logger.info("%s%s", "dry run: " if dry_run else "", change)
    return applier.changes
