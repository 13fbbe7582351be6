"""Logging: adds the running task to log records, and formats them as text or JSON. `fairactor worker` uses it.

A service with logging of its own puts a `TaskFilter` on its handlers, and may then name ``%(task_id)s``,
``%(tenant)s``, ``%(actor)s`` and ``%(attempt)s`` in its formats.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ._actors.task import running_task

__all__ = ["JsonFormatter", "TaskFilter", "TextFormatter"]

_LONGEST: Final = 200
"""The most characters of a name in a line of text."""


class TaskFilter(logging.Filter):
    """Adds ``task_id``, ``tenant``, ``actor`` and ``attempt`` of the running task to each record; it drops none.

    Outside handlers the first three are empty strings and the attempt is 0. Put it on handlers, not on loggers: what is
    logged to the children of a logger does not pass the logger's filters. It works in threads of plain functions, and
    for what actors with ``process=True`` log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the attributes. A record that has them already keeps them."""
        task = running_task()
        if task is None and hasattr(record, "task_id"):  # a QueueHandler has passed it on to another thread
            return True
        record.task_id = task.id if task else ""
        record.tenant = task.tenant if task else ""
        record.actor = task.actor if task else ""
        record.attempt = task.attempt if task else 0
        return True


class TextFormatter(logging.Formatter):
    """Formats records as lines of text that end with the task, such as ``[task=… tenant=acme actor=bill attempt=1]``.

    Control characters in the names are escaped, and long names are cut off.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Formats a record without its traceback."""
        line = super().formatMessage(record)
        given = vars(record)
        if not given.get("task_id"):
            return line
        names = " ".join(
            f"{key}={_printable(str(given.get(name, '')))}"
            for key, name in (("task", "task_id"), ("tenant", "tenant"), ("actor", "actor"), ("attempt", "attempt"))
        )
        return f"{line} [{names}]"


class JsonFormatter(logging.Formatter):
    """Formats each record as a JSON object in one line.

    It has ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``; ``traceback`` if there is one; ``task_id``,
    ``tenant``, ``actor`` and ``attempt`` while a task runs; and what was logged with ``extra=``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: value for name, value in _added(vars(record)).items() if name not in said}
        if trace := _traceback(self, record):
            said["traceback"] = trace
        return json.dumps(said, default=_text)


def _added(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes of a record that are not those of every record."""
    unused = _OF_A_TASK if not given.get("task_id") else frozenset[str]()
    return {name: value for name, value in given.items() if name not in _USUAL and name not in unused}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
    return "\n".join(filter(None, (text, record.stack_info and formatter.formatStack(record.stack_info))))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - the value's own code may raise anything
        return f"<{type(value).__name__}>"


def _printable(name: str) -> str:
    """Escapes what a terminal would not show as it is, and cuts a long name off."""
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    if short.isprintable() and " " not in short:
        return short
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in short).replace(" ", "\\x20")


_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "fairactor_task"}
_OF_A_TASK: Final = frozenset({"task_id", "tenant", "actor", "attempt"})
