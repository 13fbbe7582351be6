"""Sets up logging for ``fairactor worker``, and says why it ends."""

from __future__ import annotations

import logging
import sys
from typing import Final

from fairactor.logs import JsonFormatter, TaskFilter, TextFormatter

from .options import WorkerOptions

logger: Final = logging.getLogger("fairactor.worker")


def set_up_logging(options: WorkerOptions) -> None:
    """Logs to stderr, with the running task in each record. A module that is imported later may set up its own."""
    handler = logging.StreamHandler()
    handler.addFilter(TaskFilter())
    handler.setFormatter(JsonFormatter() if options.log_format == "json" else TextFormatter())
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])


def say_failure(options: WorkerOptions, message: str, trace: str = "") -> None:
    """Says on stderr what went wrong, below the traceback if there is one."""
    if options.log_format == "json":
        logger.critical("%s", message, extra={"traceback": trace} if trace else None)
    else:
        sys.stderr.write((f"{trace}\n" if trace else "") + f"fairactor worker: {message}\n")
        sys.stderr.flush()
