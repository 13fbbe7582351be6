"""The plugin, and the actor that delivers messages between shards."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any, Final

import anyio

from fairactor import Handle
from fairactor.errors import RuntimeNotRunning, ServerError
from fairactor.plugins import Addressed, Host, Operator, ProceedSend, Relatives, read_lua, whole_ms

from ._each import join, spread
from ._graph import after, beside, then
from ._late import load, needs_loading
from ._mapped import JOIN
from ._options import NAME
from ._relatives import relatives
from ._send import send

logger: Final = logging.getLogger(__name__)

_POLL_INTERVAL: Final = 15.0
"""Seconds after which a shard is polled even without a wake-up."""
_REDELIVERY: Final = 5.0
"""Seconds after which a message that was not acknowledged goes to another runtime."""
_MOST_MESSAGES: Final = 100
"""The most messages in one call."""
_ERROR_PAUSE: Final = 1.0
"""Seconds to wait after an error of the server."""
_SCRIPTS: Final = (
    "known", "gate", "fill", "open", "map", "mapped", "adopt", "states", "results", "take", "arrive", "ack",
    "children", "relatives",
)  # fmt: skip

Operator(">>", plugin=NAME, apply=then)
Operator("<<", plugin=NAME, apply=after)
Operator("|", plugin=NAME, apply=beside)


class Dependencies:
    """The plugin. It is installed with fairactor, so every runtime uses it unless ``without_plugins=`` names it."""

    name = NAME
    only_with: Final = ("depends_on",)
    actors: Final = (spread, join)

    def __init__(self) -> None:
        self._host: Host | None = None

    @property
    def lua(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaHooks`."""
        return {hook: read_lua(NAME, hook) for hook in ("sent", "ended", "ends", "departs")}

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {script: read_lua(NAME, script) for script in _SCRIPTS}

    @property
    def lua_keys(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaKeys`."""
        return {
            "of:t": "hash", "of:g": "hash", "of:t:*": "list", "of:g:*": "list", "got:*": "hash", "rest": "hash",
            "late": "hash", "map:*": "string", "end:*": "string", "remote": "string", "outbox": "zset",
            "tracing": "string", "ended": "list", "gates": "zset", "gate:*": "string", "gate-to:*": "set",
            "early:*": "string", "fill:*": "string",
        }  # fmt: skip

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Starts an actor per shard that delivers its messages to other shards."""
        self._host = host
        host.for_each_shard(lambda shard: host.supervise(f"{NAME} {shard}", partial(_relay, host, shard)))
        yield

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Sends messages together with what they wait for."""
        if self._host is None:
            raise RuntimeNotRunning("depends_on= cannot be sent yet: enter the runtime first")
        return await send(self._host, messages, proceed)

    async def relatives(self, host: Host, task_id: str, tenant: str, options: Mapping[str, Any]) -> Relatives:
        """See `fairactor.plugins.Inspector`."""
        return await relatives(host, task_id, tenant, options)

    async def load_arguments(
        self, actor: str, tenant: str, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Reads the results that were too large for the record of a task."""
        host = self._host
        if host is None or actor == JOIN or not any(map(needs_loading, chain(args, kwargs.values()))):
            return args, kwargs
        await host.find([tenant])
        shards = host.shards_of(tenant)
        return [await load(host, value, shards) for value in args], {
            name: await load(host, value, shards) for name, value in kwargs.items()
        }


async def _relay(host: Host, shard: int) -> None:
    """Delivers a shard's messages to other shards, and finishes the work that its scripts left over; until canceled.

    The runtimes share this work. If one does not deliver a message in time, another one gets it.
    """
    with host.subscribe(NAME) as wakeup:
        while True:
            try:
                rest, ended, *messages = await host.call(
                    f"{NAME}/take", shard, _MOST_MESSAGES, whole_ms(_REDELIVERY), int(host.traces)
                )
                if ended:
                    await host.trace_ends(shard, ended)
                await _deliver(host, shard, messages)
            except ServerError as error:
                logger.warning("%s: %s", NAME, error)
                await anyio.sleep(_ERROR_PAUSE)
                continue
            if rest:  # negative: nobody has used the plugin yet, and the first use wakes this up
                await wakeup.wait(min(rest / 1000, _POLL_INTERVAL) if rest > 0 else math.inf)


async def _deliver(host: Host, shard: int, messages: Sequence[bytes]) -> None:
    by_shard: dict[int, list[bytes]] = {}
    damaged: list[bytes] = []
    for message in messages:
        to = _destination(message)
        if to is not None and to >= host.shard_count:
            await host.call(f"{NAME}/known", 0, 0)  # if there are more shards, the first one knows
        if to is None or to >= host.shard_count:
            damaged.append(message)
        else:
            by_shard.setdefault(to, []).append(message)
    if damaged:  # otherwise they would come again and again
        logger.error("shard %d: %d messages to other shards cannot be read and are dropped", shard, len(damaged))
        await host.call(f"{NAME}/ack", shard, *damaged)
    for to, some in by_shard.items():
        left = some
        while left:
            handled = await host.call(f"{NAME}/arrive", to, *left)
            await host.call(f"{NAME}/ack", shard, *left[:handled])
            left = left[handled:]


def _destination(message: bytes) -> int | None:
    """Returns the shard that a message is for; None if the message is not as ends.lua packs it."""
    try:
        to, kind, _, _, _ = struct.unpack_from(">HccBI", message)
        at = struct.calcsize(">HccBI")
        for _ in range(3):  # task or run, parent, root
            at += 2 + struct.unpack_from(">H", message, at)[0]
    except struct.error:
        return None
    return to if at <= len(message) and kind in {b"e", b"s", b"g"} else None
