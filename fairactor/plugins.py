"""What plugins may do: an interface for each kind of it, and the tools that plugins need.

A plugin is an object with a ``name`` and any of the methods of the interfaces below. It need not derive from them.

Wrappers run in the order of the plugins: the first plugin's wrapper is the outermost. They may change, refuse and
repeat
what they wrap, and what they raise reaches the caller. Observers are called in the same order. They run between tasks
and
must not block; what they raise is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from ._actors.actor import Actor
from ._actors.entry_points import factories
from ._actors.graph import Graph, Operand, Run
from ._actors.handle import Handle
from ._actors.host import Client, Host, Sendable
from ._actors.message import Message
from ._actors.options import Options, TriggerRule
from ._actors.plugin_options import Operator, Option, OptionValue
from ._actors.registry import Registrable
from ._actors.task import Task
from ._model.placeholder import Placeholder
from ._model.wire import BATCH, FULL, TAKEN, whole_ms
from ._store.plugin_lua import read_lua
from ._util.checks import (
    YEAR,
    check_aware,
    check_name,
    check_one_of,
    check_seconds,
    check_whole_number,
    to_seconds,
    validate,
)
from ._util.wakeup import Wakeup

__all__ = [
    "BATCH",
    "FULL",
    "TAKEN",
    "YEAR",
    "Actor",
    "Actors",
    "Addressed",
    "CanceledObserver",
    "Client",
    "DeadObserver",
    "ExecuteWrapper",
    "FailedObserver",
    "FinishedObserver",
    "Graph",
    "Host",
    "Lifespan",
    "LuaHooks",
    "LuaScripts",
    "Operand",
    "Operator",
    "Option",
    "OptionValue",
    "Options",
    "Placeholder",
    "Plugin",
    "ProceedExecute",
    "ProceedSend",
    "RetriedObserver",
    "Run",
    "SendWrapper",
    "Sendable",
    "SentObserver",
    "StartedObserver",
    "TriggerRule",
    "Wakeup",
    "check_aware",
    "check_name",
    "check_one_of",
    "check_seconds",
    "check_whole_number",
    "installed_plugins",
    "read_lua",
    "to_seconds",
    "validate",
    "whole_ms",
]

Addressed = tuple[str, Message[Any]]
"""A tenant, and a message to it."""
ProceedSend = Callable[[Sequence[Addressed]], Awaitable[list[Handle[Any]]]]
"""Sends messages through the wrappers that are left; returns a handle for each."""
ProceedExecute = Callable[[], Awaitable[Any]]
"""Runs the handler through the wrappers that are left; returns its result."""


class Plugin(Protocol):
    """Anything with a name.

    It may also have ``before`` and ``after``: lists of the names of plugins that it must precede or follow. Names of
    plugins that are not used are ignored.
    """

    @property
    def name(self) -> str:
        """The name, by which other plugins and error messages refer to it: that of its package."""
        ...


class Lifespan(Protocol):
    """A plugin that runs along with a runtime."""

    def lifespan(self, host: Host) -> AbstractAsyncContextManager[None]:
        """Wraps the life of the runtime.

        It is entered once the runtime can send, before its workers start, and exited after they have stopped. An error
        on entering is raised by entering the runtime. `Host.supervise` starts actors of the plugin.
        """
        ...


class SendWrapper(Protocol):
    """A plugin that wraps sending."""

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Wraps `Runtime.send` and ``ask``, with one message, and ``send_many``, with all its messages.

        It passes messages to ``proceed`` and returns a handle for each message that it was given. Its errors reach the
        sender; if it has not called ``proceed``, nothing was sent. If the plugin has ``only_with``, a collection of
        option names, it is called only if a message has one of these options.
        """
        ...


class ExecuteWrapper(Protocol):
    """A plugin that wraps each attempt at a task."""

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Is called instead of the handler, which ``proceed`` runs, within the timeout of the attempt.

        It returns the result of the task. Its error becomes the error of the attempt; `Retry` asks for another attempt.
        If the plugin has ``only_with``, a collection of option names, it is called only for tasks with one of these
        options.
        """
        ...


class Actors(Protocol):
    """A plugin with handlers of its own."""

    @property
    def actors(self) -> Sequence[Registrable]:
        """The actors to register in each runtime that runs actors."""
        ...


class SentObserver(Protocol):
    """A plugin that observes what this runtime sends."""

    def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
        """The server has accepted a message, or it had a task with the same key already (``handle.duplicate``)."""


class StartedObserver(Protocol):
    """A plugin that observes when attempts start."""

    def started(self, task: Task) -> None:
        """An attempt is about to start. No wrapper has run yet."""


class FinishedObserver(Protocol):
    """A plugin that observes finished tasks."""

    def finished(self, task: Task, result: Any) -> None:
        """A task has finished here.

        As with all outcomes, the server does not know yet. If the lease is lost meanwhile, the server refuses the
        outcome, and the task runs again.
        """


class FailedObserver(Protocol):
    """A plugin that observes failed attempts."""

    def failed(self, task: Task, error: BaseException) -> None:
        """An attempt has failed here; ``retried`` or ``dead`` follows."""


class RetriedObserver(Protocol):
    """A plugin that observes retries."""

    def retried(self, task: Task, error: BaseException, delay: float) -> None:
        """A task gets another attempt, in ``delay`` seconds."""


class CanceledObserver(Protocol):
    """A plugin that observes canceled tasks."""

    def canceled(self, task: Task, reason: str) -> None:
        """A task that a worker here had claimed was canceled, or had expired.

        Workers do not see tasks that are canceled while they wait.
        """


class DeadObserver(Protocol):
    """A plugin that observes tasks that fail for good."""

    def dead(self, task: Task, error: BaseException) -> None:
        """A task has failed for good here; also one that cannot be decoded, or whose actor is unknown.

        Workers do not see tasks that fail because too many runtimes died while they ran them.
        """


class LuaHooks(Protocol):
    """A plugin whose Lua runs inside fairactor's scripts, atomically with what they do."""

    @property
    def lua(self) -> Mapping[str, str]:
        """Lua by hook: ``sent``, ``ended`` or ``ends``; see docs/write-a-plugin.md.

        At the hook the Lua reads and decides; it writes in functions that it adds to ``later``.
        """
        ...


class LuaScripts(Protocol):
    """A plugin with scripts of its own, for `Host.call`."""

    @property
    def scripts(self) -> Mapping[str, str]:
        """Lua by name. It may include the parts of which fairactor's own scripts are made."""
        ...


def installed_plugins() -> list[Plugin]:
    """Makes all installed plugins, which a `Runtime` uses unless it is given others.

    To add one that is not installed: ``Runtime(plugins=[*installed_plugins(), mine])``.

    Raises:
        ConfigurationError: one cannot be imported.
    """
    return [make() for make in factories()]
