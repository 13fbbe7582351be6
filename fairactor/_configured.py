"""What a runtime does with a configuration: it can be made of one, and apply one to its namespace."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

import attrs

from ._actors.host import Host
from ._actors.registry import Registrable
from ._util.checks import shown
from .errors import ConfigurationError
from .settings import RuntimeSettings

if TYPE_CHECKING:
    from ._store.shards import Shards
    from .config import Change, Config
    from .plugins import Plugin


class Configured(ABC):
    """Is made of a configuration, and applies one. `Runtime` is one."""

    _config: Config | None = None
    """The configuration that this was made of."""

    @abstractmethod
    def __init__(self, **arguments: Any) -> None: ...

    @property
    @abstractmethod
    def host(self) -> Host:
        """The part of this runtime that plugins may use."""

    @abstractmethod
    def _shards(self) -> Shards:
        """Returns the shards; raises RuntimeNotRunning if the runtime cannot be used here."""

    @classmethod
    def from_config(
        cls,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        worker: str | None = None,
        actors: Iterable[Registrable] = (),
        plugins: Iterable[Plugin] = (),
        without_plugins: Iterable[str] | bool = (),
        url: str | None = None,
        **settings: Unpack[RuntimeSettings],
    ) -> Self:
        """Makes a runtime of a configuration: a file, environment variables, and the keywords given here.

        If the configuration has ``apply = true``, its policies, limits and schedules are applied when the runtime is
        entered.

        Args:
            config: a configuration from `fairactor.config.load`, or the path of a file. None looks for a file, see
                there.
            worker: the name of the worker whose table ``[worker.NAME]`` to use.
            actors: as for `Runtime`.
            plugins: as for `Runtime`. One with the name of an installed plugin replaces what the configuration says
                of that plugin.
            without_plugins: as for `Runtime`.
            url: as for `Runtime`.
            settings: replace what the configuration says.

        Raises:
            InvalidConfig: the configuration has mistakes; the error names all of them.
            ConfigurationError: the file cannot be read, or what `Runtime` raises.
        """
        from .config import Config, load

        given: dict[str, Any] = {**settings, **({} if url is None else {"url": url})}
        added = list(plugins)
        if isinstance(config, Config):
            config = config.with_options(worker, given)
        else:
            config = load(config, worker=worker, plugins=added, **given)
        made = cls(
            actors=actors,
            plugins=config.configured_plugins(added, without_plugins),
            without_plugins=without_plugins,
            **attrs.asdict(config.settings, recurse=False),
        )
        made._config = config
        return made

    async def apply(self, config: Config, *, dry_run: bool = False, prune: bool = False) -> Sequence[Change]:
        """Applies the policies, groups, limits and schedules of a configuration to the namespace.

        It writes only what differs, so it can be called again. What the configuration does not name stays.

        Args:
            config: the configuration, from `fairactor.config.load`.
            dry_run: whether to write nothing, and only return what would change.
            prune: whether to reset settings of tenants, groups and limits that the configuration does not name, and
                remove schedules that came from a configuration and are no longer in it.

        Returns:
            What has changed, or would.

        Raises:
            ConfigurationError: something cannot work, such as a limit that is too small for the number of shards. What
                was applied before stays.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from ._config.apply import apply
        from .config import Config as Configuration

        host = self.host  # raises if the runtime cannot be used here
        if not isinstance(config, Configuration):
            raise ConfigurationError(f"apply({shown(config)}): give a Config, as fairactor.config.load returns it")
        return await apply(config, self._shards, host, dry_run=dry_run, prune=prune)

    async def _apply_if_asked(self) -> None:
        """Applies the configuration of this runtime, if it says so."""
        if self._config is not None and self._config.apply:
            await self.apply(self._config)
