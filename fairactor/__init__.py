"""fairactor: an actor-style asyncio runtime for services with many tenants, on Redis or Valkey."""

from .actors import actor
from .context import current_task
from .errors import FairactorError, TaskCanceled, TaskFailed
from .handle import Handle
from .message import Message
from .retry import Retry
from .runtime import Runtime
from .states import Priority, TaskState

__all__ = [
    "FairactorError",
    "Handle",
    "Message",
    "Priority",
    "Retry",
    "Runtime",
    "TaskCanceled",
    "TaskFailed",
    "TaskState",
    "actor",
    "current_task",
]
