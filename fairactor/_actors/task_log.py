"""Keeps what a handler logs while it runs a task, for the record of the task."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, Self

from fairactor._model.task_logs import pack_line, with_logs
from fairactor.settings import Settings

from .task import running_task

_formatter: Final = logging.Formatter()


class TaskLog:
    """What an attempt has logged, packed: the last lines, as far as they fit.

    Args:
        attempt: the number of the attempt.
        most: the most bytes to keep.
        level: the least level to keep.
    """

    def __init__(self, attempt: int, most: int, level: int) -> None:
        self._attempt = attempt
        self._most = most
        self._level = level
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0

    @classmethod
    def of(cls, settings: Settings, attempt: int) -> Self:
        """Returns an empty log for an attempt, as the settings say."""
        return cls(attempt, settings.task_logs, getattr(logging, settings.task_logs_level.upper()))

    def add(self, record: logging.LogRecord) -> None:
        """Adds a record. A message that is too long is cut off."""
        if record.levelno < self._level:
            return
        message = record.getMessage()
        if record.exc_info or record.exc_text:
            trace = record.exc_text or _formatter.formatException(record.exc_info or (None, None, None))
            message = f"{message}\n{trace}"
        line = self._packed(record, message)
        if len(line) > self._most:
            left = max(0, self._most - (len(self._packed(record, "")) + 8))  # 8 bytes for the mark
            cut = message.encode(errors="replace")[:left].decode(errors="ignore")
            line = self._packed(record, cut + "…")
            while len(line) > self._most and cut:  # escaped characters take more
                cut = cut[: len(cut) // 2]
                line = self._packed(record, cut + "…")
        self._lines.append(line)
        self._size += len(line)
        while self._size > self._most:
            self._size -= len(self._lines.popleft())
            self._dropped += 1

    def _packed(self, record: logging.LogRecord, message: str) -> bytes:
        plain = (text.encode(errors="backslashreplace").decode() for text in (record.levelname, record.name, message))
        return pack_line(self._attempt, round(record.created, 3), *plain)

    def added_to(self, body: bytes) -> bytes:
        """Returns the body of a record with these lines; the same body if nothing was logged."""
        if not (self._lines or self._dropped):
            return body
        return with_logs(body, list(self._lines), self._dropped, self._most)


class TaskLogHandler(logging.Handler):
    """Adds each record to the log of the task that is running. It is installed on the root logger while it is used."""

    def __init__(self) -> None:
        super().__init__()
        self._users = 0

    def install(self) -> None:
        """Installs it. Several runtimes of a process share it."""
        self._users += 1
        if self._users == 1:
            logging.getLogger().addHandler(self)

    def remove(self) -> None:
        """Removes it when the last runtime that has installed it does so."""
        self._users -= 1
        if self._users == 0:
            logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a record. What fairactor itself logs is not the handler's."""
        task = running_task()
        if task is None or task.log is None or record.name.startswith("fairactor."):
            return
        try:
            task.log.add(record)
        except Exception:  # noqa: BLE001 - as other handlers do
            self.handleError(record)


task_log_handler: Final = TaskLogHandler()
