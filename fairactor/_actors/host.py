"""What handlers and plugins may do with the runtime that runs them: the written contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, Unpack, overload

from fairactor._util.wakeup import Wakeup
from fairactor.settings import Settings

from .handle import Handle
from .message import Message, Target
from .options import AskOptions, TaskOptions
from .plugin_options import OptionValue

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")


class RegisteredActor(Target[R_co], Protocol[R_co]):
    """An actor that a runtime runs. Calling it makes a message."""

    def __call__(self, *args: Any, **kwargs: Any) -> Message[R_co]:
        """Makes a message with these arguments."""
        ...


class Sendable(Protocol[S_co]):
    """What `Runtime.send` takes besides messages, such as a `Graph`."""

    async def send_to(self, host: Host, tenant: str) -> S_co:
        """Sends it. `Runtime.send` returns what this returns."""
        ...


class Client(Protocol):
    """The part of a runtime that sends and follows tasks. `Runtime` documents each method."""

    @property
    def host(self) -> Host:
        """What plugins may touch."""
        ...

    @overload
    async def send(
        self, tenant: str, message: Message[R], *values: OptionValue, **options: Unpack[TaskOptions]
    ) -> Handle[R]: ...
    @overload
    async def send(self, tenant: str, message: Sendable[S]) -> S: ...

    async def send_many(self, messages: Iterable[tuple[str, Message[R]]]) -> list[Handle[R]]:
        """See `Runtime.send_many`."""
        ...

    async def ask(
        self,
        tenant: str,
        message: Message[R],
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Runtime
        **options: Unpack[AskOptions],
    ) -> R:
        """See `Runtime.ask`."""
        ...

    def handle(self, task_id: str, tenant: str | None = None) -> Handle[Any]:
        """See `Runtime.handle`."""
        ...


class Host(Protocol):
    """What a plugin may touch of a runtime. Nothing else of it is promised to plugins.

    A plugin gets its host in ``lifespan(host)``; whoever has a runtime finds it as ``runtime.host``.
    """

    @property
    def runtime(self) -> Client:
        """The runtime, to send and follow tasks."""
        ...

    @property
    def name(self) -> str:
        """The runtime's name, which no other runtime ever has."""
        ...

    @property
    def settings(self) -> Settings:
        """The runtime's settings."""
        ...

    @property
    def plugins(self) -> frozenset[str]:
        """The names of the runtime's plugins."""
        ...

    @property
    def shard_count(self) -> int:
        """The number of shards of the namespace. Each tenant is on one of them."""
        ...

    def shard_of(self, tenant: str) -> int:
        """The number of the shard that keeps a tenant, from 0."""
        ...

    def actor(self, name: str) -> RegisteredActor[Any]:
        """Returns the actor of that name.

        Raises:
            UnknownActor: the runtime does not run it.
        """
        ...

    async def call(self, script: str, where: str | int, *arguments: str | float | bytes) -> Any:
        """Runs a script of a plugin and returns its reply.

        Args:
            script: ``plugin/name``.
            where: a tenant, whose shard runs the script, or the number of a shard.
            arguments: the script's ``ARGV``.

        Raises:
            ServerUnavailable, ServerError: as `Runtime.send`.
            ConfigurationError: there is no such script.
        """
        ...

    def pack(self, tenant: str, message: Message[Any]) -> bytes:
        """Packs a message, with a new id, for scripts that include ``lib/accept.lua``: what `send` would send now.

        Send wrappers, observers and the sender's trace do not apply.

        Raises:
            What `Runtime.send` raises before it sends anything.
        """
        ...

    def pack_template(self, tenant: str, message: Message[Any]) -> bytes:
        """Packs a message like `pack`, to be sent many times: without an id, a due time or a trace context.

        Raises:
            What `Runtime.send` raises before it sends anything.
        """
        ...

    def subscribe(self, plugin: str) -> AbstractContextManager[Wakeup]:
        """Returns a wake-up that scripts of a plugin set in all runtimes: ``call('PUBLISH', EVENTS, 'p' .. SELF)``.

        It is also set whenever such a message may have been lost.

        Args:
            plugin: the plugin's name.
        """
        ...

    def supervise(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Runs an actor of a plugin until it returns or the plugins' lifespans end; restarts it if it raises.

        If it fails 6 times within 30 seconds, the runtime stops with its error.

        Args:
            name: for log messages.
            actor: an async function without arguments.
        """
        ...
