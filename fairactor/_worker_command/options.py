"""The options of ``fairactor worker``, and its exit codes."""

from __future__ import annotations

import json
from typing import Any, Final, Literal, Self

import attrs

LogFormat = Literal["text", "json"]

STOPPED: Final = 0
"""The exit code after a signal, once running tasks have ended, and after ``--until-drained``."""
FAILED: Final = 1
"""The exit code if processes cannot be started, and after ``--until-drained`` if tasks have failed for good."""
UNUSABLE: Final = 2
"""The exit code if an option, the module or a setting is wrong."""
NO_SERVER: Final = 3
"""The exit code if the server is away, refuses, or has data of another release."""
INTERRUPTED: Final = 130
"""The exit code after SIGINT before a process was ready, or if a second signal stopped running tasks."""


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """What the command line says. Times are in seconds."""

    targets: tuple[str, ...]
    """Each ``MODULE`` or ``MODULE:NAME``; a module is a dotted name or the path of a file."""
    processes: int = 1
    """How many processes run tasks. 0 runs them in the process of the command, for debuggers."""
    settings: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """Settings of the runtime, which override those of the module: ``url``, ``namespace``, ``queues`` and so on."""
    config: str | None = None
    """A file with settings; None looks for one, see `fairactor.config.load`."""
    worker: str | None = None
    """The worker whose settings in the file to use."""
    name: str | None = None
    """What the names of the runtimes begin with, instead of the host."""
    until_drained: bool = False
    """Whether to end once nothing is pending."""
    max_tasks: int | None = None
    """After how many tasks a process is replaced."""
    max_memory: int | None = None
    """From how many MB of resident memory on a process is replaced."""
    reload: bool = False
    """Whether to start again when a Python file beside the module changes."""
    metrics_port: int | None = None
    """The port for Prometheus, or the first of those that the processes try; 0 takes any, None serves no metrics."""
    log_level: str = "info"
    log_format: LogFormat = "text"
    fallback: str | None = None
    """The folder of an embedded server that the processes share if nothing else names a server."""

    def packed(self) -> bytes:
        """Returns the options as one line, for a process."""
        return json.dumps(attrs.asdict(self)).encode() + b"\n"

    @classmethod
    def unpacked(cls, line: bytes) -> Self:
        """Returns the options that were packed."""
        given = json.loads(line)
        return cls(**given | {"targets": tuple(given["targets"])})
