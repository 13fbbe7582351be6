"""The interfaces of graphs of messages, and of their runs.

The plugin that defines ``>>``, ``<<`` and ``|`` implements them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fairactor._model.states import TaskState

from .handle import Handle


class Combinable(Protocol):
    """An operand of ``>>``, ``<<`` and ``|``: a `Message` or a `Graph`."""

    def __rshift__(self, other: Any, /) -> Graph: ...

    def __lshift__(self, other: Any, /) -> Graph: ...

    def __or__(self, other: Any, /) -> Graph: ...


Operand = Combinable | Sequence[Combinable | Sequence[Combinable]]
"""A message, a graph, or a list of these, which run side by side."""


class Graph(ABC):
    """Messages, and the order in which their tasks run. `Runtime.send` sends all of them and returns a `Run`.

    In ``a >> b`` and ``b << a``, the last steps of ``a`` run before the first steps of ``b``. In ``a | b`` they run
    side by side, and so do the members of a list.
    """

    __slots__ = ()

    @abstractmethod
    def __rshift__(self, other: Operand) -> Graph: ...

    @abstractmethod
    def __lshift__(self, other: Operand) -> Graph: ...

    @abstractmethod
    def __or__(self, other: Operand) -> Graph: ...

    @abstractmethod
    def __rrshift__(self, other: Operand) -> Graph: ...

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
    async def send_to(self, host: Any, tenant: str) -> Run:
        """Sends all messages, or none; see `fairactor.plugins.Sendable`."""


class Run(ABC):
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
    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as that of a handle
        """Waits for the last step and returns its result, or a list of results if there are several last steps.

        Args:
            timeout: the seconds to wait; None for no limit.

        Raises:
            As `Handle.result`. If a last step could not run, it was canceled, and TaskCanceled names the failed step.
        """

    @abstractmethod
    async def wait(self, timeout: float | None = None) -> dict[str, TaskState | None]:  # noqa: ASYNC109 - likewise
        """Waits until all steps have ended, and returns their states.

        Args:
            timeout: the seconds to wait; None for no limit.

        Raises:
            TimeoutError: it took longer. The run goes on.
        """

    @abstractmethod
    async def states(self) -> dict[str, TaskState | None]:
        """Returns the current state of each step; None if its record has expired."""

    @abstractmethod
    async def cancel(self) -> None:
        """Cancels the steps that have not ended, as `Handle.cancel` does, the last steps first."""

    @abstractmethod
    async def retry(self) -> Run:
        """Sends the steps that failed or were canceled again, keeps those that finished, and returns the new run.

        Its tasks have new ids. Results of finished steps reach them as before.

        Raises:
            ConfigurationError: a step has not ended yet.
            TaskNotFound: the record of a step has expired, so it is unknown whether it finished.
            UnknownParent: likewise, for a step that others wait for.
        """

    @abstractmethod
    async def to_mermaid(self) -> str:
        """Draws the run with the states of its steps as a Mermaid flowchart, https://mermaid.js.org."""
