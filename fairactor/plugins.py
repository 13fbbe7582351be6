"""Plugins: what they may do, each kind of it an interface. What a runtime makes of them is `middleware`.

A plugin is an object with a ``name`` and any of the methods of the interfaces below; it need not derive from them.
Wrappers are around what they wrap, in the order of the plugins: the first one is outermost, so it comes first before
and last after. They may change, refuse and repeat, and what they raise goes to who called. Observers are told, in that
order; what they raise is logged and goes no further. They are called between tasks and must not block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .context import Task
from .extensions import read_lua as read_lua  # noqa: PLC0414 - plugins find these here
from .extras import Operator as Operator  # noqa: PLC0414
from .extras import Option as Option  # noqa: PLC0414
from .handle import Handle
from .later import Later as Later  # noqa: PLC0414
from .message import Message

if TYPE_CHECKING:
    from .registry import Registrable
    from .runtime import Runtime

S_co = TypeVar("S_co", covariant=True)
Addressed = tuple[str, Message[Any]]
"""A tenant, and a message to it."""
ProceedSend = Callable[[Sequence[Addressed]], Awaitable[list[Handle[Any]]]]
ProceedExecute = Callable[[], Awaitable[Any]]


class Plugin(Protocol):
    """Anything with a name.

    It may also have ``before`` and ``after``, lists of names of plugins that it has to stand before or after. Those
    that are not there do not matter.
    """

    @property
    def name(self) -> str:
        """As others and messages name it: that of its package."""
        ...


class Lifespan(Protocol):
    """A plugin that lives as long as a runtime."""

    def lifespan(self, runtime: Runtime) -> AbstractAsyncContextManager[None]:
        """Is entered when the runtime can send, before its workers start, and left when they have stopped.

        `Runtime.supervise` starts actors of the plugin's own. What entering raises is raised by entering the runtime.
        """
        ...


class SendWrapper(Protocol):
    """A plugin around sending."""

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Is called by `Runtime.send` and ``ask`` with one message, and by ``send_many`` with all of them.

        What it passes to ``proceed`` is sent. It returns a handle for each message that it was given. What it raises
        goes to who sends; where it has not called ``proceed``, nothing was sent. Where the plugin has ``only_with``,
        names of options, it is called only where one of the messages has one of them.
        """
        ...


class ExecuteWrapper(Protocol):
    """A plugin around each attempt at a task."""

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Is called in place of the handler, which ``proceed`` runs, within the timeout of the attempt.

        What it returns is the result. What it raises is how the attempt has failed; `Retry` asks for another one. Where
        the plugin has ``only_with``, names of options, it is called only for tasks that have one of them.
        """
        ...


class Actors(Protocol):
    """A plugin with handlers of its own."""

    @property
    def actors(self) -> Sequence[Registrable]:
        """Are registered in each runtime that runs actors."""
        ...


class Sendable(Protocol[S_co]):
    """What `Runtime.send` takes beside messages."""

    async def send_to(self, runtime: Runtime, tenant: str) -> S_co:
        """Is called by `Runtime.send`, which returns what it returns."""
        ...


class SentObserver(Protocol):
    """Hears of what was sent from here."""

    def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
        """Is called when the server has accepted a message, or had a task of its key already (``handle.duplicate``)."""


class StartedObserver(Protocol):
    """Hears of attempts that begin."""

    def started(self, task: Task) -> None:
        """Is called before an attempt, and before what wraps it."""


class FinishedObserver(Protocol):
    """Hears of tasks that have finished."""

    def finished(self, task: Task, result: Any) -> None:
        """Is called when a task has finished here.

        As with all outcomes, the server does not know of it yet: it refuses it if the lease was lost meanwhile, and
        then the task runs again.
        """


class FailedObserver(Protocol):
    """Hears of attempts that have failed."""

    def failed(self, task: Task, error: BaseException) -> None:
        """Is called when an attempt has failed here; ``retried`` or ``dead`` follows."""


class RetriedObserver(Protocol):
    """Hears of tasks that get another attempt."""

    def retried(self, task: Task, error: BaseException, delay: float) -> None:
        """Is called when a task is to be tried again, in ``delay`` seconds."""


class CanceledObserver(Protocol):
    """Hears of tasks that were canceled."""

    def canceled(self, task: Task, reason: str) -> None:
        """Is called when a task that a worker here had claimed was canceled, or had expired.

        What is canceled while it waits, no worker hears of.
        """


class DeadObserver(Protocol):
    """Hears of tasks that have failed for good."""

    def dead(self, task: Task, error: BaseException) -> None:
        """Is called when a task has failed for good here, also one that cannot be decoded or whose actor is unknown.

        One that is given up since too many runtimes died under it, no worker hears of.
        """


class LuaHooks(Protocol):
    """A plugin that does something within the scripts, in one step with what they do."""

    @property
    def lua(self) -> Mapping[str, str]:
        """Place, a key of `fairactor.extensions.HOOKS`, → Lua.

        It reads and decides there; what it writes, functions in ``later`` write.
        """
        ...


class LuaScripts(Protocol):
    """A plugin with scripts of its own, for `Runtime.call`."""

    @property
    def scripts(self) -> Mapping[str, str]:
        """Name → Lua, which may include the parts of which fairactor's own scripts are made."""
        ...
