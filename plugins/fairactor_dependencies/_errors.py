"""What the plugin raises on purpose."""

from fairactor.errors import ConfigurationError, FairactorError, TaskNotFound


class GraphError(ConfigurationError):
    """A graph that cannot be: it goes round in a circle, or two of its steps have one id. Nothing was sent."""


class UnknownParent(TaskNotFound):
    """A task is to wait for one that is not there (any more). Nothing was sent."""


class RunNotSent(FairactorError):
    """A run could not be sent whole, so all of it that was sent is canceled; nothing of it has run."""
