"""The settings of a runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Final, Literal, TypedDict, get_args

import attrs
from attrs.validators import optional

from ._util.checks import (
    YEAR,
    check_one_of,
    check_queues,
    check_seconds,
    check_tenants,
    check_tenants_or_all,
    check_whole_number,
    shown,
    validate,
)
from .errors import ConfigurationError

FairBy = Literal["tasks", "time"]
FAIR_BY: Final[tuple[FairBy, ...]] = get_args(FairBy)
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LOG_LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)
Durability = Literal["server", "replicated"]
DURABILITIES: Final[tuple[Durability, ...]] = get_args(Durability)
Tracing = Literal["link", "parent"]
TRACINGS: Final[tuple[Tracing, ...]] = get_args(Tracing)


class Priority(IntEnum):
    """How urgent a task is compared with other tasks of its tenant. It has no effect on other tenants.

    From `VERY_LOW` to `VERY_HIGH`, each step counts like ``aging`` seconds of waiting, so tasks of low priority are
    not starved. `CRITICAL` tasks start before all others of the tenant, in the order in which they were sent.
    """

    VERY_LOW = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    VERY_HIGH = 5
    CRITICAL = 6


PriorityName = Literal["very_low", "low", "normal", "high", "very_high", "critical"]

MOST_ATTEMPTS: Final = 65_535
"""The most attempts at a task: a record counts them in two bytes."""
_MOST_WORKERS: Final = 1_000_000
MOST_SHARDS: Final = 16_384  # a cluster has so many slots
_LONGEST: Final = 512 << 20  # the longest value of Redis, in bytes
_MOST_REPLICAS: Final = 1_000
_MOST_LOGS: Final = 1 << 20  # bytes; each claim of a task reads what it keeps
_MOST_LISTED: Final = 1_000_000


def available_processors() -> int:
    """Returns how many processors this process may use."""
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)  # since Python 3.13
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count() or 1


def to_priority(value: Priority | int | PriorityName) -> Priority:
    """Converts a number or a name to a priority.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return Priority[value.upper()] if isinstance(value, str) else Priority(value)
    except Exception:  # noqa: BLE001 - comparing the value may raise anything
        names = ", ".join(f"{p.name.lower()} ({p.value})" for p in Priority)
        raise ConfigurationError(f"priority={shown(value)}: give one of {names}") from None


class RuntimeSettings(TypedDict, total=False):
    """The keyword arguments of `Runtime`, for editors and type checkers. `Settings` describes each."""

    path: str | os.PathLike[str] | None
    namespace: str
    workers: int
    threads: int | None
    processes: int
    lease: float
    grace: float
    connect_timeout: float
    shards: int | None
    aging: float
    fair_by: FairBy | None
    assigned: Iterable[str]
    steal: Iterable[str] | bool
    queues: Iterable[str] | None
    priority: Priority | int | PriorityName
    timeout: float | None
    max_retries: int
    result_ttl: float
    failed_ttl: float
    canceled_ttl: float
    unknown_ttl: float
    ended_index: int
    max_payload: int
    max_deliveries: int
    durability: Durability
    replicas: int
    tracing: Tracing
    task_logs: int
    task_logs_level: LogLevel


@attrs.frozen(kw_only=True)
class Settings:
    """All settings of a `Runtime`, which takes them as keyword arguments. Times are in seconds.

    Raises:
        ConfigurationError: a setting is invalid; the message names it.
    """

    url: str | None = attrs.field(default=None, repr=False)  # it may contain a password
    """The URL of the server: ``redis://``, ``rediss://`` or ``unix://``. None uses the environment variable
    ``FAIRACTOR_URL``, or else a private embedded server, unless ``FAIRACTOR_EMBEDDED=0`` forbids that. docs/servers.md
    has the options that may follow a ``?``."""
    path: str | os.PathLike[str] | None = None
    """The folder in which an embedded server keeps its data. All processes that name the folder share that server."""
    namespace: str = "fairactor"
    """Separates services that share a server: runtimes see only the tasks of their namespace."""
    workers: int = attrs.field(default=100, validator=validate(check_whole_number, 0, _MOST_WORKERS, far=True))
    """How many tasks of async functions this process runs at once, not counting those that wait for other tasks.
    Without `threads`, plain functions count too. With 0 this runtime only sends, whatever the next two say."""
    threads: int | None = attrs.field(
        default=None, validator=optional(validate(check_whole_number, 1, _MOST_WORKERS, far=True))
    )
    """How many tasks of plain functions it runs at once beside the `workers`, each in a thread. By default they have no
    number of their own, and each takes one of the `workers`."""
    processes: int = attrs.field(
        factory=available_processors, validator=validate(check_whole_number, 1, _MOST_WORKERS, far=True)
    )
    """How many tasks of actors with ``process=True`` it runs at once beside the `workers`, each in a worker process. By
    default as many as there are processors that this process may use."""
    lease: float = attrs.field(default=15.0, validator=validate(check_seconds, zero=False))
    """How long a silent runtime keeps its claims. After that, other runtimes run its tasks."""
    grace: float = attrs.field(default=25.0, validator=validate(check_seconds))
    """How long running tasks may go on after `Runtime.run` receives a signal to stop."""
    connect_timeout: float = attrs.field(default=5.0, validator=validate(check_seconds, zero=False))
    """How long to try to reach the server, on entering and for each call."""
    shards: int | None = attrs.field(
        default=None, validator=optional(validate(check_whole_number, 1, MOST_SHARDS, far=True))
    )
    """The number of shards of a new namespace; None means 1, or 16 on a cluster. For an existing namespace, give None
    or the number with which it was created; `Runtime.grow` adds more."""
    aging: float = attrs.field(default=60.0, validator=validate(check_seconds, most=YEAR))
    """The seconds of waiting that one step of priority is worth. It is fixed when the namespace is created."""
    fair_by: FairBy | None = attrs.field(default=None, validator=optional(validate(check_one_of, FAIR_BY)))
    """What tenants get equal shares of: ``tasks``, the number of tasks run, or ``time``, the seconds that they run. It
    is fixed when the namespace is created. None means ``tasks``, or the value of an existing namespace."""
    assigned: Sequence[str] = attrs.field(default=(), converter=check_tenants)
    """The tenants that this runtime serves first. If this and `steal` are empty, it serves all tenants alike."""
    steal: Sequence[str] | bool = attrs.field(default=(), converter=check_tenants_or_all)
    """The tenants that it serves while the assigned ones have nothing to do. True means all others."""
    queues: Sequence[str] | None = attrs.field(default=None, converter=check_queues)
    """The queues from which this runtime runs tasks of its actors; None for all. A task is in the queue that its
    message or its actor names with ``queue=``, or else in ``default``."""
    priority: Priority = attrs.field(default=Priority.NORMAL, converter=to_priority)
    """The priority of the messages that this runtime sends, unless they or their actors have one."""
    timeout: float | None = attrs.field(default=None, validator=optional(validate(check_seconds, zero=False)))
    """How long an attempt may take here, unless the message or its actor has a ``timeout``; None for no limit."""
    max_retries: int = attrs.field(default=0, validator=validate(check_whole_number, 0, MOST_ATTEMPTS - 1))
    """How many more attempts a task that fails here gets, unless the message or its actor has ``max_retries``."""
    result_ttl: float = attrs.field(default=3600.0, validator=validate(check_seconds))
    """How long to keep the record of a task that finishes here, unless the message or its actor has a ``result_ttl``;
    0 keeps none."""
    failed_ttl: float = attrs.field(default=7 * 86400.0, validator=validate(check_seconds))
    """How long to keep a failed task as a dead letter; 0 keeps none."""
    canceled_ttl: float = attrs.field(default=3600.0, validator=validate(check_seconds))
    """How long to keep the record of a canceled task; 0 keeps none."""
    unknown_ttl: float = attrs.field(default=600.0, validator=validate(check_seconds))
    """How long a task waits while no runtime can run it: none that serves its queue has its actor, of the version that
    it needs. Then it becomes a dead letter; with 0 at once. The value of the runtime that joined last holds."""
    ended_index: int = attrs.field(default=1000, validator=validate(check_whole_number, 0, _MOST_LISTED, far=True))
    """How many of the finished and canceled tasks of each tenant are listed, the last ones, for `Runtime.tasks`, and
    how many of each shard. Only tasks whose records are kept are listed. 0 lists none. The value of the runtime that
    joined last holds."""
    max_payload: int = attrs.field(default=1 << 20, validator=validate(check_whole_number, 1, _LONGEST, far=True))
    """The longest encoded message or result, in bytes."""
    max_deliveries: int = attrs.field(default=5, validator=validate(check_whole_number, 1, 255))
    """A task fails for good once this many runtimes have died while they ran it."""
    durability: Durability = attrs.field(default="server", validator=validate(check_one_of, DURABILITIES))
    """When a send has succeeded. With ``server``, the server has the task, and stores it as durably as the server is
    configured to. With ``replicated``, `replicas` of its replicas have also confirmed the task."""
    replicas: int = attrs.field(default=1, validator=validate(check_whole_number, 1, _MOST_REPLICAS, far=True))
    """How many replicas must confirm a send of durability ``replicated``."""
    tracing: Tracing = attrs.field(default="link", validator=validate(check_one_of, TRACINGS))
    """How the OpenTelemetry spans of attempts that this runtime runs refer to the sends. With ``link``, each attempt
    has a trace of its own, which links to the send. With ``parent``, it is a child of the send, in the same trace."""

    task_logs: int = attrs.field(default=0, validator=validate(check_whole_number, 0, _MOST_LOGS))
    """How many bytes of what the handler of a task logs are kept with the task, the last ones of all attempts; 0 keeps
    nothing. `Handle.logs` returns them."""
    task_logs_level: LogLevel = attrs.field(default="info", validator=validate(check_one_of, LOG_LEVELS))
    """The least level that is kept with a task. The levels of the loggers decide first what is logged at all."""

    def __attrs_post_init__(self) -> None:
        if self.url is not None and not isinstance(self.url, str):
            raise ConfigurationError(f"url= is a {type(self.url).__name__}: give a string, such as 'redis://localhost'")
        if not isinstance(self.namespace, str):
            raise ConfigurationError(f"namespace={shown(self.namespace)}: give a string")
        if self.path is not None and not isinstance(self.path, str | os.PathLike):
            raise ConfigurationError(f"path={shown(self.path)}: give the path of a folder")
        if self.url is not None and self.path is not None:
            raise ConfigurationError("give url= (your server) or path= (an embedded server), not both")
