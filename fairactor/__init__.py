"""fairactor: an actor-style asyncio runtime for services with many tenants, on Redis or Valkey.

These names are public, and the public modules are `fairactor.errors`, `fairactor.plugins`, `fairactor.settings`,
`fairactor.serialization`, `fairactor.embedded` and `fairactor.testing`. Modules with an underscore are internal.
"""

from ._actors.decorator import actor
from ._actors.handle import Handle
from ._actors.message import Message
from ._actors.retry import Retry
from ._actors.task import Task, current_batch, current_task
from ._client.tenant import Tenant
from ._model.info import TaskInfo
from ._model.policy import Policy
from ._model.states import Priority, TaskState
from ._store.stats import Stats
from .errors import FairactorError, TaskCanceled, TaskFailed, TaskSkipped
from .runtime import Runtime

__version__ = "0.1.0"

__all__ = [
    "FairactorError",
    "Handle",
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
