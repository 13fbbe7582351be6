"""Calling scripts: over a server that may be away, unwilling, new, or without what it had.

Every script may be run twice (see docs/architecture.md), so a call whose reply is lost is made again, for as long as
was said; who called learns whether it may have been carried out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
from redis import exceptions as broken

from . import scripts
from .connection import AWAY, Server, is_read_only, passes, was_never_sent
from .errors import FairactorError, MissingPlugin, ServerError, ServerUnavailable
from .extensions import NONE, Extensions

logger: Final = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.02  # seconds between two attempts; doubled each time
_LONGEST_PAUSE: Final = 0.5
_MARGIN: Final = 0.25
"""Seconds of the time in which the server has to answer that are not spent in waiting for replicas, half at most."""

OnError = Callable[[], Awaitable[None]]


class Calls:
    """The scripts of one shard, as calls."""

    def __init__(self, server: Server, meta: str, *, patience: float, plugins: Extensions = NONE) -> None:
        self._server = server
        self._meta = meta
        self._patience = patience
        self._plugins = plugins
        self.to_open: tuple[int, ...] | None = None
        """What to open the shard with, where a server has lost it."""

    async def run(self, name: str, *arguments: Any, patience: float | None = None) -> Any:
        """The reply of a script.

        Args:
            name: which script.
            arguments: its ARGV.
            patience: seconds for which to try; None: as long as the runtime was told to. At least once.

        Raises:
            ServerUnavailable: the server did not answer, or could not serve, for as long as was tried.
            ServerError: it refused.
            MissingPlugin: the namespace depends on a plugin that is not here.
        """
        return await self._patiently(partial(self._once, name, arguments), name, patience)

    async def run_replicated(self, replicas: int, name: str, *arguments: Any) -> tuple[Any, int]:
        """The reply of a script, and how many replicas have confirmed what it wrote: as many as that, or fewer."""
        if replicas == 0:
            return await self.run(name, *arguments), 0
        call = partial(self._once_replicated, replicas, name, arguments)
        reply: tuple[Any, int] = await self._patiently(call, name, None)
        return reply

    def _script(self, name: str) -> scripts.Script:
        return scripts.load(name, flags=self._server.flags, plugins=self._plugins)

    async def _once(self, name: str, arguments: tuple[Any, ...]) -> Any:
        script = self._script(name)
        try:
            return await self._server.execute("EVALSHA", script.sha, 1, self._meta, *arguments)
        except broken.NoScriptError:  # a new server, or SCRIPT FLUSH: nothing was run
            return await self._server.execute("EVAL", script.text, 1, self._meta, *arguments)

    async def _once_replicated(self, replicas: int, name: str, arguments: tuple[Any, ...]) -> tuple[Any, int]:
        if self._server.cluster:  # the client finds the node by this one; what follows is a repeat
            await self._once(name, arguments)
        script = ("EVAL", self._script(name).text, 1, self._meta, *arguments)
        answer = self._server.answer
        wait = ("WAIT", replicas, round(1000 * max(answer - _MARGIN, answer / 2)))
        reply, confirmed = await self._server.execute_on_one(self._meta, script, wait)  # WAIT is about its connection
        for error in (reply, confirmed):
            if isinstance(error, Exception):
                raise error
        return reply, confirmed

    async def _patiently(self, call: Callable[[], Awaitable[Any]], name: str, patience: float | None) -> Any:
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause, unsure, helped = _FIRST_PAUSE, False, False
        failure: Exception
        while True:
            try:
                return await call()
            except AWAY as error:
                unsure = unsure or self._server.cluster or not was_never_sent(error)
                failure, problem = error, f"no answer from {self._server.where}: {str(error) or type(error).__name__}"
            except broken.ResponseError as error:
                if not passes(error):
                    if not await self._help(error):
                        raise self._refused(name, error, unsure=unsure) from error
                    if not helped:
                        helped = True
                        continue
                failure, problem = error, f"{self._server.where} cannot serve now: {error}"
                if is_read_only(error):
                    await self._server.turn_away()
            if time.monotonic() + pause > deadline:
                may = "it may have been carried out" if unsure else "it was not carried out"
                raise ServerUnavailable(f"{problem}; {name}: {may}", maybe_accepted=unsure) from failure
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _help(self, error: broken.ResponseError) -> bool:
        """Does something about a shard that is not fit to be worked on; returns whether that may have helped."""
        code = str(error).partition(" ")[0]
        with suppress(*AWAY, broken.ResponseError):  # the next attempt will tell
            if code == "NOTOPEN" and self.to_open is not None:
                logger.warning("%s has lost the namespace of %s: opening it anew", self._server.where, self._meta)
                await self._once("open", self.to_open)
            elif code == "TORN":
                logger.error("%s: a script broke off in the middle; mending %s", self._server.where, self._meta)
                await self._once("mend", ("torn",))
        return code in {"NOTOPEN", "TORN"}

    def _refused(self, name: str, error: broken.ResponseError, *, unsure: bool) -> FairactorError:
        where = self._server.where
        code, _, rest = str(error).partition(" ")
        if code == "PLUGIN":
            return MissingPlugin(rest.partition(" ")[0], f"the namespace of {self._meta} at {where}")
        if "OOM command" in str(error) or isinstance(error, broken.OutOfMemoryError):
            stored = "of this attempt nothing was stored" if unsure else "nothing was stored"
            advice = "Let workers drain it, raise its maxmemory, or shorten result_ttl="
            return ServerError(f"{where} is full ({error}): {stored}. {advice}", maybe_accepted=unsure)
        if isinstance(error, broken.NoPermissionError):
            return ServerError(f"{where} refused {name}: {error}; check the user's permissions", maybe_accepted=unsure)
        # A script that broke off in the middle is mended by the next one, which may complete it.
        return ServerError(f"{where} refused {name}: {error}", maybe_accepted=True)
