"""Configuration files: the settings of runtimes, policies, limits and schedules, in TOML or YAML.

`load` reads a file, the environment and what is given with them, and checks all of it. docs/settings.md describes
what a file may have. ``Runtime.from_config`` makes a runtime of it, and ``Runtime.apply`` applies the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import attrs

from ._config.apply import Change
from ._config.document import Document
from ._config.fairque import Converted
from ._config.files import find_file, read_file
from ._config.hiding import hidden_copy
from ._config.mistakes import Path, shown_path
from ._config.options import OPTIONS, hidden, plain
from ._config.parts import Given, Parts, leaves, put_together
from ._config.sections import set_alert_check
from ._config.serving import Finding, Route, Server, find_unserved
from ._config.variables import Variables
from ._util.checks import DEFAULT_QUEUE, shown
from .errors import ConfigurationError, InvalidConfig
from .plugins import Plugin, installed_plugins
from .settings import Settings

__all__ = ["Change", "Config", "Converted", "Finding", "InvalidConfig", "load", "set_alert_check", "shown_values"]

Table = Mapping[str, Any]
Tables = Mapping[str, Table]
_SECTIONS: Final = ("defaults", "tenants", "groups", "limits", "worker", "alerts")


@attrs.frozen(kw_only=True, repr=False)
class Config:
    """A configuration that was read and checked. `load` makes one."""

    settings: Settings
    """What the runtime gets."""
    apply: bool = False
    """Whether runtimes apply the configuration when they are entered."""
    defaults: Table = attrs.field(factory=dict)
    """The policy of tenants without settings of their own."""
    tenants: Tables = attrs.field(factory=dict)
    """The policies of tenants."""
    groups: Tables = attrs.field(factory=dict)
    """The weights of groups."""
    limits: Tables = attrs.field(factory=dict)
    """The limits that tenants share, and those of actors."""
    workers: Tables = attrs.field(factory=dict)
    """The tables of named workers, ``[worker.NAME]`` in a file."""
    alerts: Tables = attrs.field(factory=dict)
    """The rules of alerts."""
    plugins: Tables = attrs.field(factory=dict)
    """The sections of plugins by name, such as ``schedules`` and ``xcom``."""
    base: Table = attrs.field(factory=dict)
    """The options that were given at the top, in the environment, as flags or keywords."""
    worker: str | None = attrs.field(default=None, eq=False)
    """The worker whose table is part of the settings."""
    source: str = attrs.field(default="", eq=False)
    """The file; '' if there is none."""
    sources: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    """Where each value was given: a line of the file, a variable, a flag or a keyword."""
    converted: Sequence[Converted] = attrs.field(default=(), eq=False)
    """What became of each key, if the file is fairque's."""
    secret: frozenset[Path] = attrs.field(default=frozenset(), eq=False)
    """The values that came from variables."""

    @property
    def schedules(self) -> Tables:
        """The schedules."""
        return self.plugins.get("schedules", {})

    @property
    def xcom(self) -> Table:
        """The settings of the plugin fairactor_xcom."""
        return self.plugins.get("xcom", {})

    @classmethod
    def from_dict(cls, data: Table, *, worker: str | None = None, plugins: Iterable[Plugin] = ()) -> Self:
        """Makes a configuration of a dict that has what a file may have. It reads no environment.

        Args:
            data: the configuration, such as `to_dict` returns.
            worker: the worker whose table to use.
            plugins: plugins that have sections, beside those that are installed.

        Raises:
            InvalidConfig: it has mistakes; the error names all of them.
        """
        if not isinstance(data, Mapping):
            raise ConfigurationError(f"Config.from_dict({shown(data)}): give a dict")
        odd = [key for key in data if not isinstance(key, str)]
        if odd:
            raise InvalidConfig([f"the key {shown(key)} is not a string" for key in odd])
        return cls._of(put_together(Given(document=Document("", data), worker=worker, plugins=tuple(plugins))), "")

    def to_dict(self, *, secrets: bool = True) -> dict[str, Any]:
        """Returns the configuration as a dict that `from_dict` reads, with values that JSON and TOML have.

        Args:
            secrets: whether values that may be secret are in it. Otherwise it cannot be read again.
        """
        tables = {
            "defaults": self.defaults,
            "tenants": self.tenants,
            "groups": self.groups,
            "limits": self.limits,
            "worker": self.workers,
            "alerts": self.alerts,
            **self.plugins,
        }
        found: dict[str, Any] = {**self.base, **{name: table for name, table in tables.items() if table}}
        return hidden_copy(found, self.secret, hide=not secrets)

    def options(self, worker: str | None = None) -> dict[str, Any]:
        """Returns the options that a worker gets, those that were given; None for one without a name."""
        return {**self.base, **(self.workers[worker] if worker is not None else {})}

    def check(self, actors: Iterable[Any] = ()) -> list[Finding]:
        """Checks that every known tenant and queue is served by somebody; returns what is not.

        Known are the tenants and queues that the configuration names, and the queues of the actors. The workers are
        those with a table, or, if there are none, the one that the top of the file describes.

        Args:
            actors: actors of the service.
        """
        servers = [Server.of(name, self.options(name)) for name in self.workers] or [Server.of("", self.base)]
        routes = [
            Route(shown_path(("queues", queue)), None, queue)
            for server in servers
            for queue in sorted(server.queues or ())
        ]
        for actor in actors:
            queue = getattr(getattr(actor, "options", None), "queue", None)
            routes.append(Route(f"actor {actor.name}", None, queue or DEFAULT_QUEUE))
        for name, plugin in self._section_plugins().items():
            for path, tenant, queue in getattr(plugin, "section_routes", lambda _: ())(self.plugins[name]):
                routes.append(Route(shown_path((name, *path)), tenant, queue or DEFAULT_QUEUE))
        tenants = {*self.tenants, *(route.tenant for route in routes if route.tenant is not None)}
        for server in servers:
            tenants |= {*server.assigned, *(() if isinstance(server.steal, bool) else server.steal)}
        return list(find_unserved(servers, tenants, routes))

    def with_options(self, worker: str | None = None, options: Table | None = None) -> Self:
        """Returns a copy with the table of another worker, or other options at the top.

        Raises:
            InvalidConfig: an option is invalid, or there is no such worker.
        """
        if worker is None and not options:
            return self
        given = Given(document=Document("", self.to_dict()), worker=worker or self.worker, keywords=options or {})
        found = self._of(put_together(given), self.source)
        sources = dict(found.sources)
        table = () if found.worker is None else self.workers.get(found.worker, ())
        for name in sources.keys() - (options or {}).keys():
            place = shown_path(("worker", found.worker or "", name)) if name in table else name
            sources[name] = self.sources.get(place, self.sources.get(name, ""))
        return attrs.evolve(found, sources=sources, converted=self.converted, secret=self.secret)

    def configured_plugins(
        self,
        given: Iterable[Plugin] = (),
        without: Iterable[str] | bool = (),  # noqa: FBT001 - as in Runtime
    ) -> list[Plugin]:
        """Returns the given plugins, and those that sections of the configuration set up.

        Args:
            given: plugins to use as they are.
            without: the names of installed plugins to leave out; True for all.
        """
        added = list(given)
        names = {getattr(plugin, "name", None) for plugin in added}
        left_out = without if isinstance(without, bool) else frozenset(without)
        for section, plugin in self._section_plugins().items():
            if left_out is True or (not isinstance(left_out, bool) and plugin.name in left_out):
                continue
            if plugin.name not in names and hasattr(plugin, "configured"):
                added.append(plugin.configured(self.plugins[section]))
        return added

    def _section_plugins(self) -> dict[str, Any]:
        """Returns the installed plugins that have a section here, by its name."""
        if not self.plugins:
            return {}
        found = {getattr(plugin, "section", None): plugin for plugin in installed_plugins()}
        return {section: found[section] for section in self.plugins if section in found}

    @classmethod
    def _of(cls, parts: Parts, source: str) -> Self:
        sections = parts.sections
        return cls(
            settings=parts.settings,
            apply=parts.apply,
            defaults=sections.get("defaults", {}),
            tenants=sections.get("tenants", {}),
            groups=sections.get("groups", {}),
            limits=sections.get("limits", {}),
            workers=sections.get("worker", {}),
            alerts=sections.get("alerts", {}),
            plugins={name: table for name, table in sections.items() if name not in _SECTIONS and table},
            base=parts.base,
            worker=parts.worker,
            source=source,
            sources=parts.sources,
            converted=parts.converted,
            secret=parts.hidden,
        )

    def __repr__(self) -> str:
        tables = {
            "tenants": self.tenants, "groups": self.groups, "limits": self.limits, "workers": self.workers,
            "alerts": self.alerts, **self.plugins,
        }  # fmt: skip
        counts = "".join(f", {len(table)} {name}" for name, table in tables.items() if table)
        url = "" if self.settings.url is None else f", url={hidden(self.settings.url)}"
        name = "" if self.worker is None else f", worker={shown(self.worker)}"
        return f"<Config {shown(self.source)}: namespace={shown(self.settings.namespace)}{url}{name}{counts}>"


def shown_values(config: Config, *, defaults: bool = False) -> Iterator[tuple[str, Any, str]]:
    """Yields what a configuration says: the name of each value, the value, and where it was given.

    What may be secret is hidden.

    Args:
        config: the configuration.
        defaults: whether to yield settings that were not given, too.
    """
    given = config.to_dict(secrets=False)
    options = {**given, **given.get("worker", {}).get(config.worker, {})}
    for name in OPTIONS:
        if name in options:
            yield name, options[name], config.sources.get(name, "")
        elif defaults:
            yield name, plain(getattr(config.settings, name, config.apply)), "default"
    for path, value in leaves({name: table for name, table in given.items() if name not in OPTIONS}, ()):
        yield shown_path(path), value, config.sources.get(shown_path(path), "")


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    worker: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    plugins: Iterable[Plugin] = (),
    **keywords: Any,
) -> Config:
    """Reads a configuration: a file < the table of the worker < environment variables < flags < keywords.

    Args:
        path: a file in TOML or YAML. None takes the file that ``FAIRACTOR_CONFIG`` names, or ``fairactor.toml``,
            ``fairactor.yaml`` or ``pyproject.toml`` (with a table ``tool.fairactor``) in the current folder, or none.
        worker: the name of the worker whose table ``[worker.NAME]`` to use. None takes that of ``FAIRACTOR_WORKER``.
        environ: the environment; None takes that of the process.
        flags: settings that were given on a command line.
        plugins: plugins that have sections, beside those that are installed.
        keywords: settings that replace all others.

    Raises:
        InvalidConfig: there are mistakes. The error names all of them, with file and line.
        ConfigurationError: the file cannot be read.
    """
    variables = Variables(os.environ if environ is None else environ)
    found = find_file(path, variables.environ)
    document = Document("", {}) if found is None else read_file(found)
    given = Given(
        document=document, worker=worker, variables=variables, flags=flags or {}, keywords=keywords,
        plugins=tuple(plugins),
    )  # fmt: skip
    return Config._of(put_together(given), document.name)  # noqa: SLF001 - its own module
