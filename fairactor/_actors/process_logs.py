"""Passes log records from a worker process to the loggers of its runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from .process_protocol import LOG

logger: Final = logging.getLogger(__name__)


class Forwarder(logging.Handler):
    """Passes on what is logged in a worker process. Each record gets the attribute ``fairactor_task``.

    Args:
        send: takes the kind of a frame, and a packed record.
    """

    def __init__(self, send: Callable[[bytes, bytes], None]) -> None:
        super().__init__()
        self._send = send
        self._forked = False
        os.register_at_fork(after_in_child=self._note_fork)
        self._formatter = logging.Formatter()
        self.task_id = ""
        """The task that runs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Passes a record on. A process that a handler has forked cannot: there it goes to stderr."""
        if self._forked:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            self._send(LOG, self._pack(record))
        except Exception:  # noqa: BLE001 - as other handlers do
            self.handleError(record)

    def _pack(self, record: logging.LogRecord) -> bytes:
        text = record.exc_text
        if record.exc_info and not text:
            text = self._formatter.formatException(record.exc_info)
        said = {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
        fields = record.__dict__ | said | {"fairactor_task": self.task_id}
        return msgspec.json.encode({str(name): _plain(value) for name, value in fields.items()}, enc_hook=repr)

    def _note_fork(self) -> None:
        self._forked = True

    def take_over(self) -> None:
        """Replaces the handlers that modules have installed when they were imported: the runtime has them, too."""
        named = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
        for each in (logging.root, *named):
            installed = [handler for handler in each.handlers if not isinstance(handler, logging.NullHandler)]
            for handler in installed:
                each.removeHandler(handler)
            if each is logging.root or (installed and not each.propagate):
                each.addHandler(self)


def _plain(value: Any) -> Any:
    """Escapes characters that UTF-8 cannot encode."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def levels() -> dict[str, int]:
    """Returns the levels of all loggers that have one, by name."""
    named = list(logging.root.manager.loggerDict.items())
    found = {name: each.level for name, each in named if isinstance(each, logging.Logger) and each.level}
    return {"root": logging.root.level, **found}


def set_levels(wanted: Mapping[str, int]) -> None:
    """Sets the levels of loggers, so that a process passes on what its runtime would log."""
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)


def replay(body: bytes) -> None:
    """Gives a record that was passed on to the logger with its name."""
    try:
        record = logging.makeLogRecord(msgspec.json.decode(body))
        target = logging.getLogger(record.name)
        if target.isEnabledFor(record.levelno):
            target.handle(record)
    except Exception:  # a filter may raise anything
        logger.exception("a log record of a worker process could not be passed on")
