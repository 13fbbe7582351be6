"""The interfaces of graphs of messages, and of their runs.

The plugin that defines ``>>``, ``<<`` and ``|`` implements them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from fairactor._model.states import TaskState

from .handle import Handle

S = TypeVar("S")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)


class Combinable(Protocol):
    """An operand of ``>>``, ``<<`` and ``|``: a `Message` or a `Graph`."""

    def __rshift__(self, other: Any, /) -> Graph: ...

    def __lshift__(self, other: Any, /) -> Graph: ...

    def __or__(self, other: Any, /) -> Graph: ...


Operand = Combinable | Sequence[Combinable | Sequence[Combinable]]
"""A message, a graph, or a list of these, which run side by side."""


class Step(Generic[R_co]):
    """A message, or a graph, with what it returns."""

    __slots__ = ()


class Graph(Step[R_co], ABC):
    """Messages, and the order in which their tasks run. `Runtime.send` sends all of them and returns a `Run`.

    In ``a >> b`` and ``b << a``, the last steps of ``a`` run before the first steps of ``b``. In ``a | b`` they run
    side by side, and so do the members of a list. An empty list runs nothing and has no results, but keeps the order:
    in ``a >> [] >> b``, ``b`` runs after ``a``.
    """

    __slots__ = ()

    @overload
    def __rshift__(self, other: Step[S]) -> Graph[S]: ...
    @overload
    def __rshift__(self, other: Operand) -> Graph: ...
    @abstractmethod
    def __rshift__(self, other: Any) -> Any: ...

    @abstractmethod
    def __lshift__(self, other: Operand) -> Graph[R_co]: ...

    @overload
    def __or__(self, other: Step[S]) -> Graph[list[R_co | S]]: ...
    @overload
    def __or__(self, other: Operand) -> Graph: ...
    @abstractmethod
    def __or__(self, other: Any) -> Any: ...

    @abstractmethod
    def __rrshift__(self, other: Operand) -> Graph[R_co]: ...

    @abstractmethod
    def __rlshift__(self, other: Operand) -> Graph: ...

    @abstractmethod
    def __ror__(self, other: Operand) -> Graph: ...

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of messages."""

    @abstractmethod
    def to_mermaid(self) -> str:
        """Draws the graph as a Mermaid flowchart, https://mermaid.js.org."""

    @abstractmethod
    def prepare(
        self, host: Any, tenant: str, run_id: str | None = None
    ) -> tuple[Sequence[Any], Callable[[Sequence[Handle[Any]]], Run[R_co]]]:
        """Returns the messages that it consists of, each with its tenant, and a function that makes the run.

        The messages have to be sent as one batch. The function takes their handles. The id of each message begins with
        the id of the run and a colon. ``run_id`` is None for a random one.
        """

    @abstractmethod
    async def send_to(self, host: Any, tenant: str) -> Run[R_co]:
        """Sends all messages, or none; see `fairactor.plugins.Sendable`."""


class Run(ABC, Generic[R_co]):
    """A graph that was sent."""

    __slots__ = ()

    id: str
    """The run's id, which is also the ``xcom_run`` of its tasks."""
    tenant: str
    """The tenant to which the graph was sent."""
    attempt: int
    """The number of the attempt: 1, and one more for each `retry`."""
    handles: Mapping[str, Handle[Any]]
    """The tasks by step name. Each step comes after the steps that it waits for.

    A step's name is the ``id=`` of its message, or else the actor's name, numbered from the second on.
    """

    @abstractmethod
    async def result(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - as that of a handle
        """Waits for the last step and returns its result, or a list of results if there are several last steps.

        Skipped steps do not count: the last steps are those that ran, and after which only skipped ones come. If a
        single one of several last steps ran, its result comes alone. If an empty group comes last, the list is empty.

        Args:
            timeout: the seconds to wait; None for no limit.

        Raises:
            As `Handle.result`. If a last step could not run, it was canceled, and TaskCanceled names the failed step.
        """

    @abstractmethod
    async def wait(self, timeout: float | None = None) -> dict[str, TaskState | None]:  # noqa: ASYNC109 - likewise
        """Waits until all steps, and all items of ``each()``, have ended, and returns their states.

        Args:
            timeout: the seconds to wait; None for no limit.

        Raises:
            TimeoutError: it took longer. The run goes on.
        """

    @abstractmethod
    async def states(self) -> dict[str, TaskState | None]:
        """Returns the current state of each step and of each item of an ``each()``; None if its record has expired.

        The items are named after their actor: ``mail[0]``, ``mail[1]``; those of a second ``each(mail)`` ``mail.2[0]``.
        """

    @abstractmethod
    async def items(self) -> dict[str, Handle[Any]]:
        """Returns the tasks of the items of each ``each()`` that were sent so far, by the names of `states`."""

    @abstractmethod
    async def cancel(self) -> None:
        """Cancels the steps and items that have not ended, as `Handle.cancel` does, the last steps first.

        When it returns, no more items are accepted.
        """

    @abstractmethod
    async def retry(self) -> Run[R_co]:
        """Sends the steps that failed or were canceled again, and all steps behind them; returns the new run.

        Steps behind one that is sent again run again, even if they had finished, because they may decide otherwise now.
        All other steps that finished or were skipped are kept, and their results reach the others as before. Of an
        ``each()`` only the items that have not finished run again, unless its list comes from a step that is sent
        again. The tasks have new ids.

        Raises:
            ConfigurationError: a step or an item has not ended yet.
            TaskNotFound: the record of a step or an item has expired, so it is unknown whether it finished.
            UnknownParent: likewise, for a step that others wait for.
        """

    @abstractmethod
    async def to_mermaid(self) -> str:
        """Draws the run with the states of its steps as a Mermaid flowchart, https://mermaid.js.org."""
