"""Every exception that fairactor raises on purpose.

Each message names the cause and the way out. All derive from `FairactorError`; those that replace a
built-in error also derive from it, so that ``except TimeoutError`` and the like do what one expects.
"""

from __future__ import annotations


class FairactorError(Exception):
    """The base of all that fairactor raises."""


class ConfigurationError(FairactorError, ValueError):
    """A setting, an option or a name that cannot work; refused before anything is done."""


class EmbeddedServerError(FairactorError):
    """The embedded server cannot be installed, started or joined."""


class ServerError(FairactorError):
    """The server cannot serve as it is: too old, refusing the login, or about to evict keys."""


class ServerUnavailable(ServerError, ConnectionError):
    """The server did not answer, for as long as was tried.

    A send that raises this may or may not have been accepted; sending the same message again is safe,
    because its id travels with it and the server takes an id once.
    """


class NamespaceMismatch(FairactorError):
    """The namespace was created with other fixed settings than this runtime asks for."""


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


class TaskNotFound(FairactorError, LookupError):
    """No such task: never sent, or settled so long ago that its record has expired."""


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


class LeaseLost(FairactorError):
    """The server gave this runtime's claims to others, because its lease ran out."""
