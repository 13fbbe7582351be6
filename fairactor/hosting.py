"""What a runtime offers to its plugins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from .actors import Actor
from .inbox import Inbox
from .keys import shard_of
from .message import Message
from .middleware import Plugins
from .registry import Registry
from .sending import Sender
from .shard import Shard
from .signals import Signal
from .supervisor import Supervisor
from .wire import pack_item


class Hosting:
    """The part of `fairactor.Runtime` that is for plugins."""

    inbox: Inbox
    _sender: Sender
    _plugin_actors: Supervisor
    _registry: Registry
    _plugins: Plugins
    _shards: list[Shard]

    def check(self) -> None:
        """Refuses use from where it cannot work."""
        raise NotImplementedError

    def shard(self, tenant: str) -> Shard:
        """The shard that keeps a tenant."""
        raise NotImplementedError

    @property
    def plugins(self) -> frozenset[str]:
        """The names of the plugins of this runtime."""
        return self._plugins.names

    @property
    def shards(self) -> int:
        """Into how many parts the namespace is cut; a tenant is in one of them."""
        return len(self._shards)

    def shard_of(self, tenant: str) -> int:
        """The number of the part that keeps a tenant, from 0."""
        return shard_of(tenant, self.shards)

    def actor(self, name: str) -> Actor[..., Any]:
        """The actor of that name.

        Raises:
            UnknownActor: this runtime does not run it.
        """
        return self._registry.get(name)

    async def call(self, script: str, where: str | int, *arguments: str | int | bytes) -> Any:
        """Runs a script of a plugin.

        Args:
            script: ``plugin/name``.
            where: on the shard of this tenant, or on the shard of this number.
            arguments: its ``ARGV``.

        Raises:
            ServerUnavailable, ServerError: as `send`.
            ConfigurationError: there is no such script.
        """
        self.check()
        shard = self._shards[where] if isinstance(where, int) else self.shard(where)
        return await shard.call(script, *arguments)

    def pack(self, tenant: str, message: Message[Any]) -> bytes:
        """A message as scripts take it that include ``lib/accept.lua``: all that `send` would send, with an id.

        What is around sending is not around this.

        Raises:
            What `send` raises before it has sent anything.
        """
        self.check()
        return pack_item(self._sender.item(tenant, message)[1])

    def hears(self, plugin: str) -> AbstractContextManager[Signal]:
        """A signal that scripts of a plugin raise in all runtimes: ``call('PUBLISH', EVENTS, 'p' .. SELF)``.

        It is raised as well whenever that may have been missed.

        Args:
            plugin: its name.
        """
        return self.inbox.hears(b"p" + plugin.encode())

    def supervise(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Runs an actor of a plugin until it returns or the plugins' lifespans end, and starts it again when it raises.

        One that fails 6 times within 30 seconds takes the runtime down with what it raised.

        Args:
            name: for log messages.
            actor: a function without arguments.
        """
        self.check()
        self._plugin_actors.start(name, actor)
