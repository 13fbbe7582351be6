"""Sets up logging for ``fairactor worker``, and says why it ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from fairactor.logs import JsonFormatter, TaskFilter, TextFormatter

from .options import WorkerOptions

logger: Final = logging.getLogger("fairactor.worker")
_NAMED: Final = 50
"""The most actors that the first line names."""


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


def introduce(options: WorkerOptions, info: Mapping[str, Any]) -> None:
    """Says what runs, once the first process is ready.

    Args:
        options: the options.
        info: what the process says of itself.
    """
    more = len(info["actors"]) - _NAMED
    logger.info(
        "worker %s: %d %s on %s, namespace %s, queues: %s, actors: %s%s",
        options.name or os.uname().nodename,
        max(options.processes, 1),
        "processes" if options.processes > 1 else "process",
        info["server"],
        info["namespace"],
        ", ".join(info["queues"]) if info["queues"] else "all",
        ", ".join(info["actors"][:_NAMED]),
        f" and {more} more" if more > 0 else "",
    )
    if info["private"]:
        logger.warning(
            "no server was given: tasks are kept in a private server of this command, and are lost when it ends. "
            "Others reach it with path=%r until then. Give --url or --path, or set FAIRACTOR_URL",
            options.fallback,
        )
