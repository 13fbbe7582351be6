"""The errors of the plugin."""

from fairactor.errors import ConfigurationError, FairactorError, TaskNotFound


class GraphError(ConfigurationError):
    """A graph cannot be sent: it has a cycle, for example, or two of its steps have one id. Nothing was sent."""


class UnknownParent(TaskNotFound):
    """A task depends on one that does not exist, or whose record has expired. Nothing was sent."""


class RunNotSent(FairactorError):
    """A run could not be sent completely. What was sent of it is canceled, and none of it has run."""


class ResultsExpired(FairactorError):
    """A task takes a list of results that is not kept any more."""


def unknown_parent(task_id: str) -> UnknownParent:
    """Returns the error for a parent that the tenant does not have."""
    return UnknownParent(
        f"there is no task {task_id!r} to depend on: it was never sent, or its record has expired (result_ttl=, "
        "failed_ttl=, canceled_ttl=); nothing was sent"
    )
