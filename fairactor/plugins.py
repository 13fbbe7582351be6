"""The interfaces of plugins, and the tools that plugins need.

A plugin is an object with a ``name`` and any of the methods of the interfaces below. It need not derive from them.

Wrappers run in the order of the plugins: the first plugin's wrapper is the outermost. A wrapper may change, refuse and
repeat what it wraps, and its errors reach the caller. Observers are called in the same order. They are called between
tasks, so they must not block. Their errors are logged and have no other effect. All but `SentObserver` get the `Task`
with its times: ``task.waited`` until the attempt began, and ``task.seconds`` from then on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from ._actors.actor import Actor
from ._actors.entry_points import factories, installed_names
from ._actors.graph import Graph, Operand, Run
from ._actors.handle import Handle
from ._actors.host import Client, Host, PackedGraph, Sendable
from ._actors.message import Message
from ._actors.options import Options, TriggerRule
from ._actors.plugin_options import Operator, Option, OptionValue
from ._actors.registry import Registrable
from ._actors.retry import UnstorableResult
from ._actors.task import Task
from ._model.placeholder import Placeholder
from ._model.wire import BATCH, BATCH_WITH_DATA, FULL, TAKEN, whole_ms
from ._store.plugin_lua import read_lua
from ._util.checks import (
    YEAR,
    check_aware,
    check_name,
    check_one_of,
    check_seconds,
    check_whole_number,
    shown,
    to_seconds,
    validate,
)
from ._util.nearest import unknown
from ._util.one_call import NotInOneCall, in_one_call
from ._util.wakeup import Wakeup
from .errors import ConfigurationError

__all__ = [
    "BATCH",
    "BATCH_WITH_DATA",
    "FULL",
    "TAKEN",
    "YEAR",
    "Actor",
    "Actors",
    "Addressed",
    "ArgumentsLoader",
    "CanceledObserver",
    "Client",
    "Configurable",
    "DeadObserver",
    "ExecuteWrapper",
    "FailedObserver",
    "FinishedObserver",
    "Graph",
    "HealthReporter",
    "Host",
    "Inspector",
    "Lifespan",
    "LuaHooks",
    "LuaKeys",
    "LuaScripts",
    "NotInOneCall",
    "Operand",
    "Operator",
    "Option",
    "OptionValue",
    "Options",
    "PackedGraph",
    "Placeholder",
    "Plugin",
    "ProceedExecute",
    "ProceedSend",
    "PunctualPlugin",
    "Related",
    "Relatives",
    "RetriedObserver",
    "Run",
    "SendWrapper",
    "Sendable",
    "SentObserver",
    "StartedObserver",
    "TenantMover",
    "TriggerRule",
    "UnstorableResult",
    "Wakeup",
    "check_aware",
    "check_name",
    "check_one_of",
    "check_seconds",
    "check_whole_number",
    "in_one_call",
    "installed_plugins",
    "read_lua",
    "shown",
    "to_seconds",
    "unknown",
    "validate",
    "whole_ms",
]

Addressed = tuple[str, Message[Any]]
"""A tenant, and a message for it."""
ProceedSend = Callable[[Sequence[Addressed]], Awaitable[list[Handle[Any]]]]
"""Sends messages through the remaining wrappers; returns a handle for each."""
ProceedExecute = Callable[[], Awaitable[Any]]
"""Runs the handler through the remaining wrappers; returns its result."""


class Plugin(Protocol):
    """A plugin: any object with a name.

    It may also have ``before`` and ``after``: lists of the names of plugins that it must precede or follow. Names of
    plugins that are not used are ignored.
    """

    @property
    def name(self) -> str:
        """The name of the plugin's package. Other plugins and error messages refer to the plugin by it."""
        ...


class Lifespan(Protocol):
    """A plugin that starts and stops with a runtime."""

    def lifespan(self, host: Host) -> AbstractAsyncContextManager[None]:
        """Wraps the life of the runtime.

        It is entered once the runtime can send, before the workers start, and exited after they have stopped. If
        entering it fails, entering the runtime fails with the same error. In it, `Host.supervise` starts long-running
        functions of the plugin.
        """
        ...


class SendWrapper(Protocol):
    """A plugin that wraps sending."""

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Wraps `Runtime.send`, `Runtime.ask` (one message each) and `Runtime.send_many` (all messages).

        It passes messages to ``proceed``, and returns a handle for each message that it was given. Its errors reach the
        sender. Nothing is sent unless it calls ``proceed``. If the plugin has ``only_with``, a collection of option
        names, it is called only if a message has one of these options.
        """
        ...


class ExecuteWrapper(Protocol):
    """A plugin that wraps each attempt at a task."""

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Runs instead of the handler, within the timeout of the attempt. ``proceed`` runs the handler.

        It returns the result of the task. Its error becomes the error of the attempt; `Retry` asks for another attempt.
        If the plugin has ``only_with``, a collection of option names, it is called only for tasks with one of these
        options.
        """
        ...


class ArgumentsLoader(Protocol):
    """A plugin that loads arguments which do not travel in a message."""

    async def load_arguments(
        self, actor: str, tenant: str, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Returns the arguments of a task that is about to run, in JSON types. Its error fails the attempt.

        It is called only for tasks with an argument that is a list or a dict. If the plugin has ``only_with``, a
        collection of option names, the task also has one of these options.
        """
        ...


class Actors(Protocol):
    """A plugin that provides actors."""

    @property
    def actors(self) -> Sequence[Registrable]:
        """The actors to register in each runtime that runs actors."""
        ...


class Configurable(Protocol):
    """A plugin that has a section of its own in configuration files, see `fairactor.config`.

    It may also have ``configured(table)``, which returns a plugin with the settings of the section; ``async
    apply_section(host, table, *, dry_run, prune)``, which `Runtime.apply` calls, and which returns what it has changed
    as pairs of a path in the section and a text; and ``section_routes(table)``, which yields where tasks may go: a path
    in the section, a tenant or None, and a queue or None.
    """

    @property
    def section(self) -> str:
        """The name of the section."""
        ...

    def check_section(self, table: Mapping[str, Any]) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """Yields what is wrong: where in the section, as keys, and a message that says what was expected."""
        ...


class SentObserver(Protocol):
    """A plugin that observes the messages that this runtime sends."""

    def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
        """Called when the server has accepted a message, or already had a task with the key (``handle.duplicate``).

        An idle runtime, even this one, may have started the task before.
        """


class StartedObserver(Protocol):
    """A plugin that observes when attempts start."""

    def started(self, task: Task) -> None:
        """Called when an attempt is about to start, before any wrapper runs. It has waited ``task.waited`` seconds."""


class FinishedObserver(Protocol):
    """A plugin that observes finished tasks."""

    def finished(self, task: Task, result: Any) -> None:
        """Called when a task has finished here, after ``task.seconds``. It had waited for ``task.waited`` seconds.

        Like all outcomes, it has not been reported to the server yet. If the lease is lost meanwhile, the server
        refuses the outcome, and the task runs again.
        """


class FailedObserver(Protocol):
    """A plugin that observes failed attempts."""

    def failed(self, task: Task, error: BaseException) -> None:
        """Called when an attempt has failed here after ``task.seconds``, before ``retried`` or ``dead``."""


class RetriedObserver(Protocol):
    """A plugin that observes retries."""

    def retried(self, task: Task, error: BaseException, delay: float) -> None:
        """Called when a task gets another attempt, in ``delay`` seconds.

        After `Retry` with ``count=False`` the attempt has not failed: ``error.count`` is False, and ``failed`` is not
        called.
        """


class CanceledObserver(Protocol):
    """A plugin that observes canceled tasks."""

    def canceled(self, task: Task, reason: str) -> None:
        """Called when a task that this runtime had claimed was canceled, or had expired.

        It is not called for tasks that are canceled while they wait.
        """


class DeadObserver(Protocol):
    """A plugin that observes tasks that fail for good."""

    def dead(self, task: Task, error: BaseException) -> None:
        """Called when a task has failed for good here, also if it cannot be decoded.

        It is not called for tasks that fail because too many runtimes have died while they ran them, or because no
        runtime could run them.
        """


class LuaHooks(Protocol):
    """A plugin whose Lua runs inside fairactor's scripts, atomically with what they do."""

    @property
    def lua(self) -> Mapping[str, str]:
        """The Lua source by hook: ``sent``, ``ended``, ``ends`` or ``departs``; see docs/write-a-plugin.md.

        At the hook the Lua only reads and decides. It writes in functions that it adds to ``later``.
        """
        ...


class LuaScripts(Protocol):
    """A plugin that provides Lua scripts, for `Host.call`."""

    @property
    def scripts(self) -> Mapping[str, str]:
        """The Lua source by script name. It may include the parts of fairactor's own scripts."""
        ...


class LuaKeys(Protocol):
    """A plugin that tells the types of its keys, so that `Runtime.repair` sets aside those of another type."""

    @property
    def lua_keys(self) -> Mapping[str, str]:
        """The type (string, hash, list, set or zset) by key after ``OWN``; ``name:*`` stands for all that begin so."""
        ...


class TenantMover(Protocol):
    """A plugin that keeps something on the shard of a tenant that has to move with it when shards are added."""

    def tenants_on(self, host: Host, shard: int) -> AsyncIterator[str]:
        """Yields the tenants for which it keeps something on a shard. They move even if nothing else is known of them.

        Args:
            host: the part of the runtime that plugins may use.
            shard: the number of the shard.
        """
        ...

    async def move_tenant(self, host: Host, tenant: str, source: int, target: int) -> None:
        """Moves what it keeps for a tenant. None of the tenant's tasks runs, or is started, before this returns.

        It may be called again with the same arguments, from another runtime, if that one has died meanwhile.

        Args:
            host: the part of the runtime that plugins may use.
            tenant: the tenant.
            source: the number of the shard where the tenant was.
            target: the number of its new shard.
        """
        ...


class Related(NamedTuple):
    """A task to which another one is related."""

    id: str
    tenant: str
    """'' if it is not known."""
    state: str
    """Its state, or ``unknown`` if its record has expired."""


class Relatives(NamedTuple):
    """The tasks to which a task is related; at most 100 of each kind."""

    waits_for: Sequence[Related]
    """Those that must end before it can start, also if they have ended."""
    children: Sequence[Related]
    """Those that wait for it."""


class HealthReporter(Protocol):
    """A plugin that knows of problems of the namespace, for `Runtime.health`."""

    async def health_problems(self, host: Host) -> Sequence[str]:
        """Returns a sentence for each problem that needs a person. It only reads, and its cost is bounded.

        Args:
            host: the part of the runtime that plugins may use.
        """
        ...


class PunctualPlugin(Protocol):
    """A plugin that does things at certain times, and knows what is late."""

    async def lateness(self, host: Host) -> Mapping[str, float]:
        """Returns what should have happened by now and has not, and for how many seconds; some of it, if it is much.

        Args:
            host: the part of the runtime that plugins may use.
        """
        ...


class Inspector(Protocol):
    """A plugin that knows which tasks wait for others, for `Runtime.task`."""

    async def relatives(self, host: Host, task_id: str, tenant: str, options: Mapping[str, Any]) -> Relatives:
        """Tells which tasks a task waits for, and which wait for it. It only reads, and its cost is bounded.

        Args:
            host: the part of the runtime that plugins may use.
            task_id: the task.
            tenant: its tenant.
            options: the options that it was sent with, as they are stored.
        """
        ...


def installed_plugins(without: Collection[str] = ()) -> list[Plugin]:
    """Makes an instance of every installed plugin. A `Runtime` uses these, and those that it is given.

    Args:
        without: the names of plugins to leave out. They are not even imported.

    Raises:
        ConfigurationError: a plugin cannot be imported, or no installed plugin has one of the names.
    """
    made: dict[str, Plugin] = {name: make() for name, make in factories(without).items()}
    known = {*installed_names(), *(plugin.name for plugin in made.values() if hasattr(plugin, "name"))}
    for name in without:
        if not isinstance(name, str) or name not in known:
            raise ConfigurationError(
                f"without_plugins= names {shown(name)}, which is not installed; installed are "
                f"{', '.join(sorted(known))}"
            )
    return [plugin for plugin in made.values() if getattr(plugin, "name", None) not in without]
