"""What a runtime offers to send messages and to follow their tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, Unpack, overload

from fairactor._actors.graph import Graph, Run
from fairactor._actors.handle import Handle
from fairactor._actors.host import Host, Sendable
from fairactor._actors.message import Message, check_message
from fairactor._actors.options import AskOptions, TaskOptions
from fairactor._actors.plugin_options import OptionValue
from fairactor._model.states import TaskState
from fairactor._util.checks import check_name, check_timeout
from fairactor._util.slices import slices
from fairactor.errors import ConfigurationError

if TYPE_CHECKING:
    from .sender import Sender
    from .tracker import Tracker

R = TypeVar("R")
S = TypeVar("S")


class Parts(Protocol):
    """The parts of a running runtime that this needs."""

    @property
    def sender(self) -> Sender:
        """Sends messages."""
        ...

    @property
    def tracker(self) -> Tracker:
        """Follows tasks."""
        ...

    @property
    def host(self) -> Host:
        """Serves plugins."""
        ...


class TaskClient(ABC):
    """Sends messages and follows their tasks. `Runtime` is one."""

    @abstractmethod
    def _running(self) -> Parts:
        """Returns the parts; raises RuntimeNotRunning if the runtime cannot be used here."""

    @overload
    async def send(
        self, tenant: str, message: Message[R], *values: OptionValue, **options: Unpack[TaskOptions]
    ) -> Handle[R]: ...
    @overload
    async def send(self, tenant: str, message: Sendable[S]) -> S: ...

    async def send(self, tenant: str, message: Any, *values: OptionValue, **options: Unpack[TaskOptions]) -> Any:
        """Puts a message into a tenant's mailbox. When it returns, the server has the task.

        Args:
            tenant: the name of the tenant, any string.
            message: a call to an actor, or an object that a plugin sends, such as a graph.
            values: options of plugins that do not ship with fairactor, see `fairactor.plugins.Option`.
            options: as in `Message.options`.

        Returns:
            A handle of the task. For a graph, its `Run`.

        Raises:
            ServerUnavailable: the server did not answer, or could not serve, for ``connect_timeout`` seconds.
            ServerError: the server refused, for example because its memory is full. For both errors the attribute
                ``maybe_accepted`` says whether the server may have the task, and ``ids`` has its id. Sending the
                message again with the same ``id=`` is safe.
            NotReplicated: the server has the task, but too few replicas have confirmed it
                (``durability="replicated"``).
            UnknownActor: this runtime runs actors, but not the message's.
            NotSerializable: an argument does not fit its annotation, or has no JSON form.
            PayloadTooLarge: the arguments are longer than ``max_payload`` bytes.
            TaskExists: a task of another tenant has this id.
            MailboxFull: the mailbox has reached the tenant's ``backlog``.
            ConfigurationError: a tenant, an id or an option is invalid.
        """
        parts = self._running()
        if not isinstance(message, Message) and hasattr(message, "send_to"):
            _refuse_options(values, options)
            return await message.send_to(parts.host, tenant)
        check_message(message)
        return await parts.sender.send(tenant, message.options(*values, **options) if values or options else message)

    @overload
    async def send_many(self, messages: Iterable[tuple[str, Message[R]]]) -> list[Handle[R]]: ...
    @overload
    async def send_many(self, messages: Iterable[tuple[str, Message[Any] | Graph]]) -> list[Handle[Any] | Run]: ...

    async def send_many(self, messages: Iterable[tuple[str, Any]]) -> list[Any]:
        """Sends many messages and graphs; returns a handle for each message, a `Run` for each graph, in the same order.

        It checks all messages before it sends the first one. They travel in batches of up to 120, each of which is
        accepted as a whole. If a tenant has a ``backlog``, all its messages are accepted or none is, because room for
        them is reserved first. However many there are, the event loop gets a turn after each 1,000, and other sends go
        between the batches.

        Raises:
            As `send`. After ServerUnavailable, or if it is canceled, some batches may have been accepted.
        """
        parts = self._running()
        given: list[tuple[str, Any]] = []
        with_graphs = False
        async for part in slices(messages):
            given += part
            with_graphs = with_graphs or not all(isinstance(message, Message) for _, message in part)
        if not with_graphs:
            return await parts.sender.send_many(given)
        from .graphs import send_together

        return await send_together(parts.sender, parts.host, given)

    @overload
    async def ask(self, tenant: str, message: Graph[R], *, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - as in Runtime.ask
    @overload
    async def ask(
        self,
        tenant: str,
        message: Message[R],
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Runtime.ask
        **options: Unpack[AskOptions],
    ) -> R: ...

    async def ask(
        self,
        tenant: str,
        message: Any,
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - the promised signature
        **options: Unpack[AskOptions],
    ) -> Any:
        """Sends a message, and waits for the handler's result. In a handler, its worker can run other tasks meanwhile.

        Of a graph it returns the result of the run, see `Run.result`.

        Args:
            tenant: as for `send`.
            message: as for `send`.
            values: as for `send`.
            timeout: the seconds to wait for the result; None for no limit.
            options: as for `send`.

        Raises:
            As `send` and `Handle.result`. After Deadlock, nothing was sent.
        """
        parts = self._running()
        check_timeout(timeout)
        if isinstance(message, Graph):
            from .graphs import ask_graph

            _refuse_options(values, options)
            return await ask_graph(parts.sender, parts.host, tenant, message, timeout)
        check_message(message)
        if values or options:
            message = message.options(*values, **options)
        return await parts.sender.ask(tenant, message, timeout)

    def handle(self, task_id: str, tenant: str | None = None) -> Handle[Any]:
        """Makes a handle from a task's id.

        Always give the tenant if the id, or the wish, comes from outside, as in ``GET /tasks/{id}`` of a web service:
        for such a handle the tasks of other tenants do not exist.

        Args:
            task_id: the id.
            tenant: the tenant of the task. None, which is for operators, finds the task of any tenant, and searches
                all shards for it.

        Raises:
            ConfigurationError: the id or the tenant is invalid.
        """
        parts = self._running()
        checked = None if tenant is None else check_name("tenant", tenant)
        return Handle(parts.tracker, check_name("task id", task_id), checked)

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

    async def results(
        self,
        handles: Iterable[Handle[Any]],
        timeout: float | None = None,  # noqa: ASYNC109 - as in Handle
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Waits for the results of many tasks, and returns them in the same order.

        It asks for 500 tasks in a call, and all shards at the same time. In a handler, its worker can run other tasks
        meanwhile.

        Args:
            handles: the handles of the tasks, of any tenants.
            timeout: the seconds to wait for all of them; None for no limit.
            return_exceptions: whether to return the error of a task in place of its result, so that the others are
                not lost. Otherwise the first error is raised as soon as it arrives, and the tasks go on.

        Raises:
            As `Handle.result`.
            ConfigurationError: something is not a handle of this runtime.
        """
        return await self._running().tracker.results(handles, timeout, return_exceptions=return_exceptions)

    async def cancel_many(self, handles: Iterable[Handle[Any]]) -> list[TaskState | None]:
        """Cancels many tasks as `Handle.cancel` does, 200 in a call.

        Returns:
            The state in which each was, in the same order; None for one that does not exist, or whose record has
            expired.

        Raises:
            ConfigurationError: something is not a handle of this runtime.
            ServerUnavailable: as `send`. Some tasks may have been canceled.
            ServerError: likewise.
        """
        return await self._running().tracker.cancel_many(handles)


def _refuse_options(values: Iterable[OptionValue], options: Iterable[str]) -> None:
    if names := ", ".join([*(value.name for value in values), *options]):
        raise ConfigurationError(f"{names}: only messages take options: give them to each message in it")
