"""`LogLine`: what `Handle.logs` returns."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen
class LogLine:
    """A record that a handler has logged while it ran a task."""

    at: datetime
    level: str
    """The name of its level; '' for the line that says how many lines before were not kept."""
    logger: str
    message: str
    """What was logged, with the traceback if there is one."""
    attempt: int
    """The number of the attempt that logged it."""
