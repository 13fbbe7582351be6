"""fairactor: an actor-style asyncio runtime for services with many tenants, on Redis or Valkey.

These names are public, and the public modules are `fairactor.errors`, `fairactor.plugins`, `fairactor.settings`,
`fairactor.config`, `fairactor.views`, `fairactor.commands`, `fairactor.serialization`, `fairactor.embedded` and
`fairactor.testing`. Modules with an underscore are internal.

A name is imported when it is first used, so programs and commands that need few of them start fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # that of `typing`, which takes longer to import than all else here

if TYPE_CHECKING:
    from ._actors.decorator import actor
    from ._actors.handle import Handle
    from ._actors.message import Message
    from ._actors.retry import Retry
    from ._actors.task import Task, current_batch, current_task
    from ._client.limit import Limit
    from ._client.tenant import Tenant
    from ._model.info import TaskInfo
    from ._model.limit import LimitPolicy, LimitUsage
    from ._model.policy import Policy
    from ._model.states import Priority, TaskState
    from ._store.stats import Stats
    from .errors import FairactorError, TaskCanceled, TaskFailed, TaskSkipped
    from .runtime import Runtime

__version__ = "0.1.0"

__all__ = [
    "FairactorError",
    "Handle",
    "Limit",
    "LimitPolicy",
    "LimitUsage",
    "Message",
    "Policy",
    "Priority",
    "Retry",
    "Runtime",
    "Stats",
    "Task",
    "TaskCanceled",
    "TaskFailed",
    "TaskInfo",
    "TaskSkipped",
    "TaskState",
    "Tenant",
    "__version__",
    "actor",
    "current_batch",
    "current_task",
]

_MODULES = {
    "actor": "_actors.decorator",
    "Handle": "_actors.handle",
    "Message": "_actors.message",
    "Retry": "_actors.retry",
    "Task": "_actors.task",
    "current_batch": "_actors.task",
    "current_task": "_actors.task",
    "Limit": "_client.limit",
    "Tenant": "_client.tenant",
    "TaskInfo": "_model.info",
    "LimitPolicy": "_model.limit",
    "LimitUsage": "_model.limit",
    "Policy": "_model.policy",
    "Priority": "_model.states",
    "TaskState": "_model.states",
    "Stats": "_store.stats",
    "FairactorError": "errors",
    "TaskCanceled": "errors",
    "TaskFailed": "errors",
    "TaskSkipped": "errors",
    "Runtime": "runtime",
}
"""Where each name is defined."""

_SUBMODULES = frozenset(
    {"commands", "embedded", "errors", "plugins", "runtime", "serialization", "settings", "testing", "views"}
)


def __getattr__(name: str) -> object:
    """Imports a public name, or a public module, when it is first used."""
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
