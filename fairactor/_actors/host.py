"""The contract between a runtime and the handlers and plugins that it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, Unpack, overload

import attrs

from fairactor._model.limit import LimitPolicy, LimitSettings, LimitUsage
from fairactor._model.states import TaskState
from fairactor._util.wakeup import Wakeup
from fairactor.settings import Settings

from .graph import Graph, Run
from .handle import Handle
from .message import Message, Target
from .options import AskOptions, TaskOptions
from .plugin_options import OptionValue

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

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
    """An object other than a message that `Runtime.send` accepts, such as a `Graph`."""

    async def send_to(self, host: Host, tenant: str) -> S_co:
        """Sends the object. `Runtime.send` returns the result of this method."""
        ...


class SharedLimit(Protocol):
    """A limit that tenants share, or that of an actor. `Limit` documents each method."""

    async def configure(self, **settings: Unpack[LimitSettings]) -> LimitPolicy:
        """See `Limit.configure`."""
        ...

    async def policy(self) -> LimitPolicy:
        """See `Limit.policy`."""
        ...

    async def usage(self, tenant: str | None = None) -> LimitUsage:
        """See `Limit.usage`."""
        ...

    async def pause(self, seconds: float | None = None, *, tenant: str | None = None) -> None:
        """See `Limit.pause`."""
        ...

    async def resume(self, *, tenant: str | None = None) -> None:
        """See `Limit.resume`."""
        ...


class Client(Protocol):
    """The part of a runtime that sends and follows tasks. `Runtime` documents each method."""

    @property
    def host(self) -> Host:
        """The part of the runtime that plugins may use."""
        ...

    @overload
    async def send(
        self, tenant: str, message: Message[R], *values: OptionValue, **options: Unpack[TaskOptions]
    ) -> Handle[R]: ...
    @overload
    async def send(self, tenant: str, message: Sendable[S]) -> S: ...

    @overload
    async def send_many(self, messages: Iterable[tuple[str, Message[R]]]) -> list[Handle[R]]: ...
    @overload
    async def send_many(self, messages: Iterable[tuple[str, Message[Any] | Graph]]) -> list[Handle[Any] | Run]: ...

    @overload
    async def ask(self, tenant: str, message: Graph[R], *, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - as in Runtime.ask
    @overload
    async def ask(
        self,
        tenant: str,
        message: Message[R],
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Runtime
        **options: Unpack[AskOptions],
    ) -> R: ...

    def handle(self, task_id: str, tenant: str | None = None) -> Handle[Any]:
        """See `Runtime.handle`."""
        ...

    def limit(self, limit: str | RegisteredActor[Any]) -> SharedLimit:
        """See `Runtime.limit`."""
        ...

    @overload
    async def results(
        self,
        handles: Iterable[Handle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - as in Handle
        *,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    async def results(
        self,
        handles: Iterable[Handle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - as in Handle
        *,
        return_exceptions: bool,
    ) -> list[R | Exception]: ...

    async def cancel_many(self, handles: Iterable[Handle[Any]]) -> list[TaskState | None]:
        """See `Runtime.cancel_many`."""
        ...


@attrs.frozen
class PackedGraph:
    """A graph that a script can send; see `Host.pack_graph`."""

    items: Sequence[bytes]
    """The packed messages, parents first."""
    ids: Sequence[str]
    """The ids of their tasks. Each begins with the id of the run and a colon."""
    plugins: Collection[str]
    """The plugins whose Lua reads these messages. A script makes the shard `depend_on` them before it sends any."""
    digest: bytes
    """It differs if the graph differs, and does not depend on the id of the run."""


class Host(Protocol):
    """The part of a runtime that plugins may use. Everything else is internal and may change.

    A plugin receives its host in ``lifespan(host)``. It is also available as ``runtime.host``.
    """

    @property
    def runtime(self) -> Client:
        """The runtime, to send and follow tasks."""
        ...

    @property
    def name(self) -> str:
        """The runtime's name, which is unique."""
        ...

    @property
    def settings(self) -> Settings:
        """The runtime's settings."""
        ...

    @property
    def plugins(self) -> Mapping[str, Any]:
        """The runtime's plugins by name."""
        ...

    @property
    def shard_count(self) -> int:
        """The number of shards of the namespace. It may grow, see `for_each_shard`."""
        ...

    def shard_of(self, tenant: str) -> int:
        """Returns the number of a tenant's shard, from 0, as far as it is known here: a tenant may move, see `find`."""
        ...

    async def find(self, tenants: Iterable[str]) -> None:
        """Finds out where tenants are, if some move to other shards now, so that `shard_of` knows."""
        ...

    def shards_of(self, tenant: str) -> list[int]:
        """Returns the number of a tenant's shard, and of those on which it was before, the latest first.

        What a plugin has kept there and does not move, such as what expires, is still there.
        """
        ...

    def for_each_shard(self, start: Callable[[int], None]) -> None:
        """Calls a function with the number of each shard, and again with each that is added later."""
        ...

    def actor(self, name: str) -> RegisteredActor[Any]:
        """Returns the actor with this name.

        Raises:
            UnknownActor: the runtime does not run such an actor.
        """
        ...

    async def call(self, script: str, where: str | int, *arguments: str | float | bytes) -> Any:
        """Runs a script of a plugin and returns its reply.

        Args:
            script: ``plugin/name``.
            where: the shard that runs the script: its number, or one of its tenants.
            arguments: the script's ``ARGV``.

        Raises:
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
            ConfigurationError: the script does not exist.
        """
        ...

    def pack(self, tenant: str, message: Message[Any]) -> bytes:
        """Packs a message as `Runtime.send` would send it now, for scripts that include ``lib/accept.lua``.

        Send wrappers and observers do not apply. No span is made: the task refers to that of the caller, if any.

        Raises:
            As `Runtime.send` before it sends anything.
        """
        ...

    def pack_template(self, tenant: str, message: Message[Any], *, linked: bool = True) -> bytes:
        """Packs a message that a script can send many times: without an id or a due time.

        Args:
            tenant: the owner of the mailbox.
            message: the message.
            linked: whether the spans of its tasks link to the caller's span, so that the same message is packed
                differently each time.

        Raises:
            ConfigurationError: an option names another task; each time the message would wait for the same one.
            As `Runtime.send` before it sends anything.
        """
        ...

    async def pack_graph(self, tenant: str, graph: Graph, run_id: str) -> PackedGraph:
        """Packs a graph that a script can send many times, as one batch of at most 500 tasks of one tenant.

        Send wrappers apply now and not again. Observers and the sender's trace do not apply.

        Args:
            tenant: the tenant.
            graph: the graph.
            run_id: stands for the id of a run, and must occur nowhere in the graph. In the packed messages the script
                replaces it by an id of the same length.

        Raises:
            ConfigurationError: a message has another tenant or an ``eta``, or names an earlier task, or they are too
                many.
            PayloadTooLarge: together they are longer than ``max_payload``.
            As `Runtime.send` before it sends anything.
        """
        ...

    @property
    def meter(self) -> Meter | None:
        """The OpenTelemetry meter of the runtime, for instruments of your own; None without an SDK for metrics."""
        ...

    @property
    def traces(self) -> bool:
        """Whether the runtime makes spans, because there is an OpenTelemetry SDK."""
        ...

    async def trace_ends(self, shard: int, tasks: Sequence[bytes]) -> None:
        """Makes a span for each of some tasks that scripts have ended; does nothing without an OpenTelemetry SDK.

        Args:
            shard: the number of their shard.
            tasks: their ids, encoded.

        Raises:
            ServerUnavailable: the server did not answer.
            ServerError: it refused.
        """
        ...

    @property
    def packs(self) -> bool:
        """Whether the messages that a send wrapper gets are packed for later, see `pack_graph`, and not sent."""
        ...

    def subscribe(self, plugin: str) -> AbstractContextManager[Wakeup]:
        """Returns a wake-up that scripts of the plugin set in all runtimes: ``call('PUBLISH', EVENTS, 'p' .. SELF)``.

        It is also set when such a message may have been lost.

        Args:
            plugin: the plugin's name.
        """
        ...

    def supervise(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Runs an async function of a plugin until it returns, or the plugins' lifespans end. Restarts it if it raises.

        If it fails 6 times within 30 seconds, the runtime stops with the error.

        Args:
            name: a name for log messages.
            actor: the function, which takes no arguments.
        """
        ...
