"""Every exception that fairactor raises on purpose.

Each message names the cause and the way out. All derive from `FairactorError`; those that replace a
built-in error also derive from it, so that ``except TimeoutError`` and the like do what one expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class FairactorError(Exception):
    """The base of all that fairactor raises."""


class ConfigurationError(FairactorError, ValueError):
    """A setting, an option or a name that cannot work; refused before anything is done."""


class EmbeddedServerError(FairactorError):
    """The embedded server cannot be installed, started or joined."""


class ServerError(FairactorError):
    """The server cannot serve as it is, or refuses: it is too old, full, read-only, or about to evict keys.

    ``maybe_accepted`` tells whether what was sent may have been accepted all the same, and ``ids`` are the ids under
    which it was sent. To send it again with the same ``id=`` is always safe: the server takes an id once.
    """

    def __init__(self, message: str, *, maybe_accepted: bool = False, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.maybe_accepted = maybe_accepted
        self.ids = tuple(ids)

    def about(self, ids: Sequence[str], *, maybe_accepted: bool | None = None) -> Self:
        """The same error, of what was sent under these ids."""
        maybe = self.maybe_accepted if maybe_accepted is None else maybe_accepted
        return type(self)(str(self), maybe_accepted=maybe, ids=ids)


class ServerUnavailable(ServerError, ConnectionError):
    """The server did not answer, or could not serve, for as long as was tried."""


class NotReplicated(ServerError):
    """The server has accepted what was sent, but too few replicas have confirmed it in time."""


class NamespaceMismatch(FairactorError):
    """The namespace was created with other fixed settings than this runtime asks for."""


class MissingPlugin(NamespaceMismatch):
    """The namespace depends on a plugin that this runtime has not. ``plugin`` is its name."""

    def __init__(self, plugin: str, where: str) -> None:
        super().__init__(
            f"{where} depends on the plugin {plugin!r}, which this Runtime has not: install it, and leave plugins= out "
            "or name it there"
        )
        self.plugin = plugin

    def __reduce__(self) -> tuple[type[Exception], tuple[str]]:
        return NamespaceMismatch, (str(self),)


class RuntimeNotRunning(FairactorError, RuntimeError):
    """A runtime is used before it was entered, after it was left, or from another thread or event loop."""


class UnknownActor(FairactorError, LookupError):
    """A message names an actor that is not registered."""


class DuplicateActor(ConfigurationError):
    """Two different actors are registered under one name."""


class NotSerializable(FairactorError, TypeError):
    """An argument or a result has no JSON form; the message gives the path to the value."""


class PayloadTooLarge(FairactorError, ValueError):
    """An encoded message or result is longer than ``max_payload`` bytes."""


class InvalidPayload(FairactorError, ValueError):
    """A stored task cannot be decoded, or its arguments no longer fit its actor."""


class TaskExists(FairactorError, ValueError):
    """The id is taken by a task of another tenant."""


class MailboxFull(FairactorError):
    """The mailbox of a tenant holds as many waiting tasks as its ``backlog`` allows; nothing of the send was accepted.

    ``tenant`` is whose it is.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"the mailbox of {tenant!r} is full: its backlog limit is reached. Send again when some of it is done, or "
            "raise the limit with runtime.tenant(…).configure(backlog=…)"
        )
        self.tenant = tenant


class TaskNotFound(FairactorError, LookupError):
    """No such task: never sent, or settled so long ago that its record has expired."""


class NotADeadLetter(FairactorError, ValueError):
    """A task is to be sent again that has not failed, or whose key stands for another task by now."""


class Deadlock(FairactorError, RuntimeError):
    """A handler waits for a task that cannot start before that handler has ended."""


class TaskFailed(FairactorError):
    """The task has failed for good.

    ``error`` is the name of the exception's type in the worker and ``traceback`` its text there.
    """

    def __init__(self, message: str, *, error: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.traceback = traceback


class TaskCanceled(FairactorError):
    """The task was canceled; the message says by what."""


class RemoteError(FairactorError):
    """What a handler in a process of its own has raised, where that cannot be carried over.

    ``types`` are the names of the exception's type and of its bases.
    """

    def __init__(self, message: str, types: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.types = tuple(types)

    def __reduce__(self) -> tuple[type[Self], tuple[str, Sequence[str]], dict[str, Any]]:
        return type(self), (str(self), self.types), self.__dict__  # with its notes


class LeaseLost(FairactorError):
    """The server gave this runtime's claims to others, because its lease ran out."""
