"""All exceptions that fairactor raises.

Each message says what happened and what to do about it. All exceptions derive from `FairactorError`. Those that
correspond to a built-in exception also derive from that one, so ``except TimeoutError``, ``except LookupError`` and
the like work as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class FairactorError(Exception):
    """The base class of all exceptions of fairactor. They can be copied and pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[FairactorError], args: tuple[Any, ...], state: dict[str, Any]) -> FairactorError:
    """Makes an exception again as it was, whatever its ``__init__`` takes."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(FairactorError, ValueError):
    """A setting, an option or a name is invalid. Nothing was sent or changed; correct the value."""


class InvalidConfig(ConfigurationError):
    """A configuration has mistakes: a file, environment variables, or what was given with them.

    Attributes:
        mistakes: all of them. Each says where it is, what is wrong, and what was expected.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        many = f"{len(mistakes)} mistakes" if len(mistakes) != 1 else "a mistake"
        super().__init__("\n".join([f"the configuration has {many}:", *(f"  {mistake}" for mistake in mistakes)]))
        self.mistakes = tuple(mistakes)


class EmbeddedServerError(FairactorError):
    """The embedded server is not installed, or could not be started or joined."""


class ServerError(FairactorError):
    """The server refuses to work: it is too old, full, read-only, or configured to evict keys.

    Correct the server's configuration. You can safely send the messages again if they have an ``id=``, because the
    server accepts each id only once.

    Attributes:
        maybe_accepted: whether the server may have accepted the messages despite the error.
        ids: the ids of the tasks that were being sent; empty if the error does not concern a send.
    """

    def __init__(self, message: str, *, maybe_accepted: bool = False, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.maybe_accepted = maybe_accepted
        self.ids = tuple(ids)

    def about(self, ids: Sequence[str], *, maybe_accepted: bool | None = None) -> Self:
        """Returns a copy of the error that names the tasks it concerns."""
        maybe = self.maybe_accepted if maybe_accepted is None else maybe_accepted
        return type(self)(str(self), maybe_accepted=maybe, ids=ids)


class ServerUnavailable(ServerError, ConnectionError):
    """The server did not answer, or could not serve, until the retries ran out. Try again later."""


class NotReplicated(ServerError):
    """The server accepted the messages, but too few replicas confirmed them in time."""


class NamespaceMismatch(FairactorError):
    """The namespace was created with other fixed settings. Use the same settings, or another namespace."""


class MissingPlugin(NamespaceMismatch):
    """The namespace depends on a plugin that this runtime does not have. Install it.

    Attributes:
        plugin: the name of the plugin.
    """

    def __init__(self, plugin: str, where: str) -> None:
        super().__init__(
            f"{where} depends on the plugin {plugin!r}, which this Runtime does not have: install it, or give it in "
            "plugins=, and do not name it in without_plugins="
        )
        self.plugin = plugin


class RuntimeNotRunning(FairactorError, RuntimeError):
    """A runtime was used outside its ``async with`` block, or from another thread or event loop."""


class UnknownActor(FairactorError, LookupError):
    """A message is for an actor that is not registered. Add the actor to ``Runtime(actors=[…])``."""


class DuplicateActor(ConfigurationError):
    """Two different actors are registered under the same name. Rename one of them."""


class NotSerializable(FairactorError, TypeError):
    """An argument or a result does not fit its annotation, or has no JSON form. The message has the path to it."""


class PayloadTooLarge(FairactorError, ValueError):
    """An encoded message or result is longer than ``max_payload`` bytes."""


class InvalidPayload(FairactorError, ValueError):
    """A stored task cannot be decoded, or its arguments do not fit the actor: its parameters may have changed."""


class TaskExists(FairactorError, ValueError):
    """The id already belongs to a task of another tenant. Ids are unique in a namespace: choose another one."""


class MailboxFull(FairactorError):
    """The tenant's mailbox holds as many waiting tasks as its ``backlog`` allows.

    None of the messages that were sent together was accepted. Send them again later.

    Attributes:
        tenant: the owner of the mailbox.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"the mailbox of {tenant!r} is full: it has reached its backlog limit. Send again when some of its tasks "
            "are done, or raise the limit with runtime.tenant(…).configure(backlog=…)"
        )
        self.tenant = tenant


class TaskNotFound(FairactorError, LookupError):
    """The task does not exist: it was never sent, or it ended so long ago that its record has expired."""


class NotADeadLetter(FairactorError, ValueError):
    """The task cannot be redriven: it has not failed, or another task now uses its deduplication key."""


class Deadlock(FairactorError, RuntimeError):
    """A handler waits for a task that cannot start before the handler ends."""


class TaskFailed(FairactorError):
    """The task failed and will not be tried again.

    Attributes:
        error: the type name of the exception that the handler raised.
        traceback: its traceback, as text.
    """

    def __init__(self, message: str, *, error: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.traceback = traceback


class TaskCanceled(FairactorError):
    """The task was canceled. The message gives the reason."""


class TaskSkipped(TaskCanceled):
    """The task had nothing to do, so it was not run, and counts as canceled.

    Its trigger rule waits for a failure, and nothing failed; or a task that it depends on was skipped.
    """


class RemoteError(FairactorError):
    """A handler in a worker process raised an exception that cannot be pickled; this one replaces it.

    Attributes:
        types: the names of the original exception's type and of its base classes.
    """

    def __init__(self, message: str, types: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.types = tuple(types)


class WorkerProcessDied(FairactorError):
    """The process of a handler with ``process=True`` ended before the handler returned, or could not start it.

    The message says how: the exit status, the signal, or the module that cannot be imported.
    """


class LeaseLost(FairactorError):
    """The runtime's lease expired, or the server lost data, so other runtimes may run the runtime's tasks."""
