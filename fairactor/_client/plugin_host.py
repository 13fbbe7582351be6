"""The plugin host: the part of a runtime that plugins may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry.metrics import Meter

from fairactor._actors.actor import Actor
from fairactor._actors.graph import Graph
from fairactor._actors.host import Client, PackedGraph
from fairactor._actors.message import Message
from fairactor._actors.registry import Registry
from fairactor._model import record
from fairactor._model.wire import pack_item
from fairactor._store.shards import Shards
from fairactor._store.subscriber import Subscriber, plugin_event
from fairactor._store.traced_ends import trace_ends
from fairactor._util.checks import shown
from fairactor._util.meters import Meters
from fairactor._util.spans import Spans
from fairactor._util.supervisor import Supervisor
from fairactor._util.wakeup import Wakeup
from fairactor.errors import ConfigurationError
from fairactor.settings import Settings

from .envelope import as_template
from .sender import Sender
from .template import check_repeatable, pack_graph

_LONGEST_INT: Final = 64  # bits
_PACKS: Final = ContextVar("packs", default=False)


class PluginHost:
    """Implements `Host`, which documents each attribute and method."""

    def __init__(
        self,
        *,
        runtime: Client,
        name: str,
        settings: Settings,
        plugins: Mapping[str, Any],
        shards: Shards,
        subscriber: Subscriber,
        sender: Sender,
        spans: Spans | None,
        meters: Meters | None = None,
        registry: Registry,
        supervisor: Supervisor,
        check: Callable[[], None],
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.settings = settings
        self.plugins = plugins
        self._shards = shards
        self._subscriber = subscriber
        self._sender = sender
        self._spans = spans
        self._meters = meters
        self._registry = registry
        self._supervisor = supervisor
        self._check = check

    @property
    def shard_count(self) -> int:
        """See `Host`."""
        self._check()
        return len(self._shards)

    def shard_of(self, tenant: str) -> int:
        """See `Host`."""
        self._check()
        return self._shards.number_of(tenant)

    async def find(self, tenants: Iterable[str]) -> None:
        """See `Host`."""
        self._check()
        for tenant in tenants:
            await self._shards.find(tenant)

    def shards_of(self, tenant: str) -> list[int]:
        """See `Host`."""
        self._check()
        return list(dict.fromkeys([self._shards.number_of(tenant), *self._shards.layout.places(tenant)]))

    def for_each_shard(self, start: Callable[[int], None]) -> None:
        """See `Host`."""
        self._check()
        for number in range(len(self._shards)):
            start(number)
        self._shards.on_added(lambda number, _: start(number))

    def actor(self, name: str) -> Actor[..., Any]:
        """See `Host`."""
        return self._registry.get(name)

    async def call(self, script: str, where: str | int, *arguments: str | float | bytes) -> Any:
        """See `Host`."""
        self._check()
        for argument in arguments:
            if not _can_be_sent(argument):
                raise ConfigurationError(f"script {script}: the argument {shown(argument)} is not a string or a number")
        if isinstance(where, int):
            return await self._shards[where].call(script, *arguments)
        return await self._shards.at_home(where, lambda shard: shard.call_for_tenant(script, *arguments))

    def pack(self, tenant: str, message: Message[Any]) -> bytes:
        """See `Host`."""
        self._check()
        return pack_item(self._sender.encode(tenant, message))

    def pack_template(self, tenant: str, message: Message[Any], *, linked: bool = True) -> bytes:
        """See `Host`."""
        self._check()
        check_repeatable(message)
        return pack_item(as_template(self._sender.encode(tenant, message), linked=linked))

    async def pack_graph(self, tenant: str, graph: Graph, run_id: str) -> PackedGraph:
        """See `Host`."""
        self._check()
        token = _PACKS.set(True)
        try:
            return await pack_graph(self, self._sender, tenant, graph, run_id)
        finally:
            _PACKS.reset(token)

    @property
    def packs(self) -> bool:
        """See `Host`."""
        return _PACKS.get()

    @property
    def meter(self) -> Meter | None:
        """See `Host`."""
        return None if self._meters is None else self._meters.meter

    @property
    def traces(self) -> bool:
        """See `Host`."""
        return self._spans is not None

    async def trace_ends(self, shard: int, tasks: Sequence[bytes]) -> None:
        """See `Host`."""
        self._check()
        if self._spans is not None:
            canceled = record.Error("TaskCanceled", "by a script")
            await trace_ends(self._spans, self._shards[shard], tasks, canceled)

    def subscribe(self, plugin: str) -> AbstractContextManager[Wakeup]:
        """See `Host`."""
        self._check()
        return self._subscriber.subscribe(plugin_event(plugin))

    def supervise(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """See `Host`."""
        self._check()
        self._supervisor.start(name, actor)


def _can_be_sent(value: object) -> bool:
    """Whether this can be an argument of a script. Packing an int of thousands of digits would crash the process."""
    if isinstance(value, int):
        return value.bit_length() <= _LONGEST_INT
    return isinstance(value, str | bytes | float)
