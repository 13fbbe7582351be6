"""The plugin."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio

from fairactor import Handle
from fairactor.errors import RuntimeNotRunning, ServerError
from fairactor.plugins import Addressed, Host, Operator, ProceedSend, read_lua, whole_ms

from ._graph import after, beside, then
from ._map import join, spread
from ._send import NAME, send

logger: Final = logging.getLogger(__name__)

_BEAT: Final = 15.0
"""Seconds after which it is looked whether there is something to carry, though nobody said so."""
_PATIENCE: Final = 5.0
"""Seconds after which what somebody carries is given to another."""
_AT_ONCE: Final = 100  # messages
_PAUSE: Final = 1.0  # seconds after the server has refused

Operator(">>", plugin=NAME, apply=then)
Operator("<<", plugin=NAME, apply=after)
Operator("|", plugin=NAME, apply=beside)


class Dependencies:
    """The plugin. It is installed with fairactor, so every runtime has it that is not told otherwise."""

    name = NAME
    only_with: Final = ("depends_on",)
    actors: Final = (spread, join)

    def __init__(self) -> None:
        self._host: Host | None = None

    @property
    def lua(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaHooks`."""
        return {place: read_lua(NAME, place) for place in ("sent", "ended", "ends")}

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {
            script: read_lua(NAME, script) for script in ("unknown", "gate", "open", "grow", "take", "arrive", "ack")
        }

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """See `fairactor.plugins.Lifespan`."""
        self._host = host
        for shard in range(host.shard_count):
            host.supervise(f"{NAME} {shard}", partial(_carry, host, shard))
        yield

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """See `fairactor.plugins.SendWrapper`."""
        if self._host is None:
            raise RuntimeNotRunning("depends_on= cannot be sent before the runtime was entered")
        return await send(self._host, messages, proceed)


async def _carry(host: Host, shard: int) -> None:
    """Carries what a shard has to say to others, and does what its scripts have left to do; until canceled.

    All runtimes do, each for what it gets; what one has not carried in time another gets.
    """
    with host.subscribe(NAME) as wakeup:
        while True:
            try:
                rest, *messages = await host.call(f"{NAME}/take", shard, _AT_ONCE, whole_ms(_PATIENCE))
                await _deliver(host, shard, messages)
            except ServerError as error:
                logger.warning("%s: %s", NAME, error)
                await anyio.sleep(_PAUSE)
                continue
            if rest:
                await wakeup.wait(min(rest / 1000, _BEAT) if rest > 0 else math.inf)  # its first use raises the signal


async def _deliver(host: Host, shard: int, messages: Sequence[bytes]) -> None:
    by_shard: dict[int, list[bytes]] = {}
    for message in messages:
        by_shard.setdefault(struct.unpack_from(">H", message)[0], []).append(message)
    for to, some in by_shard.items():
        await host.call(f"{NAME}/arrive", to, *some)
        await host.call(f"{NAME}/ack", shard, *some)
