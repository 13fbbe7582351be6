"""Runs scripts on a server that may be unreachable, busy, read-only or restarted, or may have lost its data.

Every script may run twice (see docs/architecture.md). So a call whose reply is lost is repeated until its time is up.
The caller learns whether the call may have been carried out.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
from redis import exceptions as redis_errors

from fairactor._model.keys import namespace_of
from fairactor._model.wire import unpack_cancel
from fairactor._server.calls import Away
from fairactor._server.connection import Server, has_no_functions
from fairactor._server.rights import missing_right
from fairactor._server.slow_links import advice_on_size, size_of
from fairactor._util.backoff import Backoff
from fairactor.errors import FairactorError, MissingPlugin, ServerError, ServerUnavailable

from . import loader
from .damage import ADVICE, Progress, Repairs, find_wrong_type, mend, read_repairs
from .plugin_lua import NO_PLUGIN_LUA, PluginLua

logger: Final = logging.getLogger(__name__)

_MARGIN: Final = 0.25
"""Waiting for replicas ends this many seconds before the answer timeout, but not before half of it."""

_UNKNOWN_COMMAND: Final = re.compile(r"Unknown (\w+ )?command called from")

_OTHER_LAYOUT: Final = "LAYOUT "
_GONE: Final = "GONE the tenant "
"""How scripts refuse a call because of the layout, see lib/intact.lua and depart.lua. The latter may stand behind words
of the server."""

_LOOK_AGAIN: Final = 1.0
"""Seconds for which it is not looked again for the key that keeps scripts from running."""

_REPAIR_FOR: Final = 2.0
"""Seconds for which a call repairs a torn shard, if its own patience ends before. Others go on."""


class Elsewhere(Exception):
    """Nothing was done: the tenant has moved to another shard, or this runtime did not know the layout."""


class KnownLayout:
    """The layout that this runtime knows. The runners of all shards share it."""

    def __init__(self) -> None:
        self.epoch = 0
        self.renew: Callable[[], Awaitable[None]] | None = None
        """Reads the layout again; None if there is nobody who would know what to do with another one."""


class ScriptRunner:
    """Runs the scripts of one shard."""

    def __init__(
        self,
        server: Server,
        meta: str,
        *,
        patience: float,
        plugins: PluginLua = NO_PLUGIN_LUA,
        layout: KnownLayout | None = None,
    ) -> None:
        self._server = server
        self._execute = partial(server.calls.execute, meta)
        self._meta = meta
        self._layout = layout or KnownLayout()
        self._patience = patience
        self._plugins = plugins
        self._damage: tuple[float, str | None] = -math.inf, None  # when it was last looked for, and what was found
        self._client = secrets.token_hex(8)  # its name in repairs
        self.open_arguments: tuple[int | str, ...] | None = None
        """The arguments of ``open``, to open the shard again if the server has lost it."""
        self.away_since: float | None = None
        """Since when the shard has not answered; None if it did last."""

    @property
    def _keys(self) -> tuple[int | str, ...]:
        return self._server.calls.keys(self._meta, self._layout.epoch)

    async def run_for_tenant(self, name: str, *arguments: Any) -> Any:
        """Runs a script about a tenant of this shard; returns its reply.

        Raises:
            As `run`.
            Elsewhere: the tenant may be on another shard.
        """
        return await self._patiently(partial(self._once, name, arguments), name, arguments, None, may_repeat=False)

    async def run(self, name: str, *arguments: Any, patience: float | None = None) -> Any:
        """Runs a script and returns its reply.

        Args:
            name: the script.
            arguments: the script's ``ARGV``.
            patience: the seconds to keep trying; it tries at least once. None uses the runtime's ``connect_timeout``.

        Raises:
            Elsewhere: the script is about a tenant that has moved to another shard.
            ServerUnavailable: the server did not answer, or could not serve, in that time.
            ServerError: the server refused.
            MissingPlugin: the namespace depends on a plugin that is missing here.
        """
        return await self._patiently(partial(self._once, name, arguments), name, arguments, patience)

    async def evaluate(self, name: str, text: str, *arguments: Any) -> Any:
        """Runs a script that is not among those of `loader`; returns its reply, and raises as `run`."""
        call = partial(self._execute, "EVAL", text, *self._keys, *arguments)
        return await self._patiently(call, name, arguments, None)

    async def run_replicated(self, replicas: int, name: str, *arguments: Any) -> tuple[Any, int]:
        """As `run_for_tenant`; also returns how many replicas have confirmed its writes, up to ``replicas``."""
        if replicas == 0:
            return await self.run_for_tenant(name, *arguments), 0
        call = partial(self._once_replicated, replicas, name, arguments)
        reply: tuple[Any, int] = await self._patiently(call, name, arguments, None, may_repeat=False)
        return reply

    def run_blocking(self, client: Any, name: str, *arguments: Any) -> Any:
        """Runs a script over a synchronous client, for threads; tries once, and raises the errors of redis-py."""
        script = self._script(name)
        try:
            return client.execute_command("EVALSHA", script.sha, *self._keys, *arguments)
        except redis_errors.NoScriptError:
            return client.execute_command("EVAL", script.text, *self._keys, *arguments)

    def _script(self, name: str) -> loader.Script:
        return loader.load(name, flags=self._server.flags, plugins=self._plugins)

    async def _once(self, name: str, arguments: tuple[Any, ...]) -> Any:
        script = self._script(name)
        for _ in self._tries(script):
            try:
                return await self._execute("FCALL", script.function, *self._keys, *arguments)
            except redis_errors.ResponseError as error:
                await self._help_function(script, error)
        try:
            return await self._execute("EVALSHA", script.sha, *self._keys, *arguments)
        except redis_errors.NoScriptError:  # after a restart or SCRIPT FLUSH; nothing was run
            return await self._execute("EVAL", script.text, *self._keys, *arguments)

    def _tries(self, script: loader.Script) -> Iterator[None]:
        """Yields as often as a function should be called before the script serves: again once it was loaded."""
        for _ in range(2):
            if script.function and self._server.functions:
                yield

    async def _help_function(self, script: loader.Script, error: redis_errors.ResponseError) -> None:
        """Loads a function that could not be called, because it is new on the server or was lost; nothing was run.

        Raises:
            ResponseError: the function was called, and this is its error.
        """
        failure = error
        if "Function not found" in str(error):  # if it cannot be loaded now, the script serves
            try:
                await self._execute("FUNCTION", "LOAD", script.library())
            except redis_errors.ResponseError as refused:
                failure = refused
        elif not has_no_functions(error):
            raise error
        if has_no_functions(failure):
            self._server.functions = False

    async def _once_replicated(self, replicas: int, name: str, arguments: tuple[Any, ...]) -> tuple[Any, int]:
        script, answer = self._script(name), self._server.answer
        wait = ("WAIT", replicas, round(1000 * max(answer - _MARGIN, answer / 2)))  # for the writes of its connection
        for _ in self._tries(script):
            call = ("FCALL", script.function, *self._keys, *arguments)
            reply, confirmed = await self._server.calls.execute_together(self._meta, call, wait)
            if not isinstance(reply, redis_errors.ResponseError):
                return _checked(reply, confirmed)
            await self._help_function(script, reply)
        call = ("EVAL", script.text, *self._keys, *arguments)
        return _checked(*await self._server.calls.execute_together(self._meta, call, wait))

    async def _patiently(
        self,
        call: Callable[[], Awaitable[Any]],
        name: str,
        arguments: Sequence[Any],
        patience: float | None,
        *,
        may_repeat: bool = True,
    ) -> Any:
        call = self._timed(name, call)
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        backoff = Backoff()
        unsure = helped = False
        failure: Exception
        while True:
            epoch = self._layout.epoch
            try:
                reply = await call()
            except Away as error:
                unsure = unsure or error.maybe_done
                self.away_since = self.away_since or time.monotonic()
                failure = error
            except redis_errors.ResponseError as error:
                if await self._is_elsewhere(error, epoch):
                    if may_repeat and _GONE not in str(error):
                        continue
                    raise Elsewhere from error
                helps = await self._help(error, max(deadline, time.monotonic() + _REPAIR_FOR))
                if helps is None:
                    damage = await self._find_damage(error, arguments)
                    raise self._refused(name, error, damage, unsure=unsure, arguments=arguments) from error
                failure = error
                if helps and not helped:
                    helped = True
                    continue
            else:
                self.away_since = None
                return reply
            pause = backoff.next()
            if time.monotonic() + pause > deadline:
                may = "it may have been carried out" if unsure else "it was not carried out"
                problem = failure if isinstance(failure, Away) else f"{self._server.where} cannot serve now: {failure}"
                advice = advice_on_size(size_of(arguments))
                raise ServerUnavailable(f"{problem}; {name}: {may}{advice}", maybe_accepted=unsure) from failure
            await anyio.sleep(pause)

    def _timed(self, name: str, call: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        """Returns what calls a script and notes how long that takes, if there is an OpenTelemetry SDK."""
        meters = self._server.meters
        return call if meters is None else partial(meters.script, name, call)

    async def _is_elsewhere(self, error: redis_errors.ResponseError, epoch: int) -> bool:
        """Whether a script was refused because of the layout, of which the call knew that of an epoch.

        If this runtime does not know a later one yet, it reads the layout again.
        """
        if _GONE in str(error):
            return True
        if not str(error).startswith(_OTHER_LAYOUT) or self._layout.renew is None:
            return False
        if self._layout.epoch == epoch:
            await self._layout.renew()
        return self._layout.epoch > epoch

    async def _help(self, error: redis_errors.ResponseError, until: float) -> bool | None:
        """Opens or repairs a shard that cannot be used.

        Returns:
            Whether to call again at once, because that may have helped, or later; None if there is no help.
        """
        code = str(error).partition(" ")[0]
        with suppress(Away, redis_errors.ResponseError):  # the next attempt will tell
            if code == "NOTOPEN" and self.open_arguments is not None:
                logger.warning("%s has lost the namespace of %s: opening it again", self._server.where, self._meta)
                await self._once("open", self.open_arguments)
            elif code == "TORN":
                done = await mend(self._once, "torn", self._client, self.open_arguments or (), until)
                if done is Progress.DONE:
                    await self._report()
                return done in {Progress.DONE, Progress.WHOLE}
        return True if code in {"NOTOPEN", "TORN"} else None

    async def _report(self) -> None:
        logger.error("%s: a script failed half-way; %s was repaired", self._server.where, self._meta)
        repairs = await self._finish_repair(self._once)
        for line in (*repairs.repaired, *repairs.set_aside):
            logger.warning("%s: %s", self._server.where, line)

    async def repair(self) -> Repairs:
        """Repairs the shard, whatever is damaged; returns what was done, and raises as `run`."""

        async def call(name: str, arguments: tuple[Any, ...]) -> Any:
            return await self.run(name, *arguments)

        how = "all"
        while await mend(call, how, self._client, self.open_arguments or ()) is Progress.BUSY:
            how = "torn"
            await anyio.sleep(_LOOK_AGAIN / 10)
        return await self._finish_repair(call)

    async def _finish_repair(self, call: Callable[[str, tuple[Any, ...]], Awaitable[Any]]) -> Repairs:
        """Cancels again what was canceled while it ran and is no longer claimed; returns what the repair has done."""
        repairs, canceled = await read_repairs(call)
        for task_id, packed in canceled:
            ms, outcome = unpack_cancel(packed)
            await call("cancel", (round(ms), outcome, task_id, ""))
        return repairs

    async def _find_damage(self, error: redis_errors.ResponseError, arguments: Sequence[Any]) -> str | None:
        """Describes the damage that a script has met, if that is why it failed."""
        if _UNKNOWN_COMMAND.search(str(error)):
            return None
        if "WRONGTYPE" not in str(error):
            return "it met something that it cannot read" if "user_script" in str(error) else None
        looked, found = self._damage
        if time.monotonic() - looked > _LOOK_AGAIN:  # a dispatcher may call again and again
            with suppress(Away, redis_errors.ResponseError):
                found = await find_wrong_type(self._server, self._meta, arguments)
            self._damage = time.monotonic(), found
        return found or "a key has another type than it must have"

    def _refused(
        self,
        name: str,
        error: redis_errors.ResponseError,
        damage: str | None,
        *,
        unsure: bool,
        arguments: Sequence[Any] = (),
    ) -> FairactorError:
        where = self._server.where
        code, _, rest = str(error).partition(" ")
        if code == "PLUGIN":
            return MissingPlugin(rest.partition(" ")[0], f"the namespace of {self._meta} at {where}")
        if "OOM command" in str(error) or isinstance(error, redis_errors.OutOfMemoryError):
            stored = "this attempt stored nothing" if unsure else "nothing was stored"
            advice = "Let workers drain it, raise its maxmemory, or shorten result_ttl="
            return ServerError(f"{where} is full ({error}): {stored}. {advice}", maybe_accepted=unsure)
        if "invalid bulk length" in str(error):
            most = f"it takes no argument of {size_of(arguments) / 1e6:.1f} MB (proto-max-bulk-len)"
            advice = "nothing was stored. Store the data elsewhere, and send a reference to it"
            return ServerError(f"{where} refused {name}: {most}; {advice}", maybe_accepted=unsure)
        if right := missing_right(error):
            lacks = self._server.user.lacks([right], namespace_of(self._meta))
            inside = not isinstance(error, redis_errors.NoPermissionError)  # the script had begun
            return ServerError(f"{lacks} ({name} was refused)", maybe_accepted=unsure or inside)
        if damage is not None:
            return ServerError(
                f"what is stored under {self._meta} at {where} is damaged: {damage}; {ADVICE} ({name}: {error})",
                maybe_accepted=True,
            )
        # If the script failed half-way, the next call repairs the shard, which may complete it.
        return ServerError(f"{where} refused {name}: {error}", maybe_accepted=True)


def _checked(reply: Any, confirmed: Any) -> tuple[Any, int]:
    """Returns two replies, or raises the first error among them."""
    for error in (reply, confirmed):
        if isinstance(error, Exception):
            raise error
    return reply, confirmed
