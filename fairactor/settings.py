"""What a runtime can be told, checked where it is given."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, get_args

import attrs

from .errors import ConfigurationError

MAX_NAME = 512
"""The longest name of a tenant and the longest id of a task, in bytes of UTF-8."""


FairBy = Literal["tasks", "time"]
FAIR_BY: Final[tuple[FairBy, ...]] = get_args(FairBy)
Durability = Literal["server", "replicated"]
DURABILITIES: Final[tuple[Durability, ...]] = get_args(Durability)

YEAR = 365 * 86400.0
CENTURY = 100 * YEAR
"""The longest time: what is longer is a mistake, and would be too much for the server's clock."""


def _seconds(*, zero: bool = False, most: float = CENTURY) -> Callable[[Any, attrs.Attribute[Any], float], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
        seconds(attribute.name, value, zero=zero, most=most)

    return check


def _whole(least: int, most: float = math.inf) -> Callable[[Any, attrs.Attribute[Any], int], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            bound = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            raise ConfigurationError(f"{attribute.name}={value!r}: give a whole number, {bound}")

    return check


def one_of(allowed: Sequence[str]) -> Callable[[Any, attrs.Attribute[Any], str | None], None]:
    """A validator: the value is one of these."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
        if value not in allowed:
            raise ConfigurationError(f"{attribute.name}={value!r}: give one of {', '.join(map(repr, allowed))}")

    return check


def duration(value: float | timedelta | None) -> float | None:
    """Seconds, also from a timedelta."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def seconds(name: str, value: float, *, zero: bool = True, most: float = CENTURY) -> float:
    """The value, if it is a number of seconds that is not negative (nor 0, unless ``zero``), and not absurd.

    Raises:
        ConfigurationError: it is not.
    """
    bound = "0 or more" if zero else "more than 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name}={value!r}: give seconds as a number, {bound}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigurationError(f"{name}={value!r}: give a finite number of seconds, {bound}")
    if value > most:
        raise ConfigurationError(f"{name}={value!r}: give a number of seconds, at most {most:.0f}")
    return float(value)


def name(kind: str, value: str) -> str:
    """The value, if it can name a tenant or a task: any text of 1 to `MAX_NAME` bytes.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{kind} {value!r}: give a text that is not empty")
    try:
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"{kind} {value!r}: holds half a surrogate pair, which has no UTF-8") from None
    if length > MAX_NAME:
        raise ConfigurationError(f"{kind} {value[:40]!r}…: {length} bytes long, the limit is {MAX_NAME}")
    return value


def _names(given: Any) -> Any:
    """Names of tenants, or whether all are meant."""
    if isinstance(given, str | bytes) or not isinstance(given, bool | Iterable):
        raise ConfigurationError(f"{given!r} is no list of tenants: give their names, as in assigned=['acme']")
    return given if isinstance(given, bool) else tuple(dict.fromkeys(name("tenant", tenant) for tenant in given))


@attrs.frozen(kw_only=True)
class Settings:
    """All settings of a `Runtime`, which takes them as keywords. Times are in seconds.

    Raises:
        ConfigurationError: one of them cannot work; the message names it.
    """

    url: str | None = attrs.field(default=None, repr=False)  # it may hold a password
    """``redis://``, ``rediss://`` or ``unix://``; None: ``FAIRACTOR_URL``, else an embedded server."""
    path: str | os.PathLike[str] | None = None
    """A folder: an embedded server that keeps its data there, shared by all who name it."""
    namespace: str = "fairactor"
    workers: int = attrs.field(default=100, validator=_whole(0))
    """How many tasks run at once here; 0: this runtime only sends."""
    lease: float = attrs.field(default=15.0, validator=_seconds())
    """How long a runtime that is silent keeps its claims."""
    grace: float = attrs.field(default=30.0, validator=_seconds(zero=True))
    """How long running tasks may go on when `Runtime.run` is told to stop."""
    connect_timeout: float = attrs.field(default=5.0, validator=_seconds())
    """How long to try to reach the server, at the start and with each call."""
    shards: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole(1)))
    """Into how many parts a new namespace is cut; None: what it has, or 1 (16 on a cluster)."""
    aging: float = attrs.field(default=60.0, validator=_seconds(zero=True, most=YEAR))
    """How much waiting one step of priority is worth; fixed when a namespace is created."""
    fair_by: FairBy | None = attrs.field(default=None, validator=attrs.validators.optional(one_of(FAIR_BY)))
    """What tenants get equal shares of: ``tasks``, the number that is run, or ``time``, the seconds that these run;
    fixed when a namespace is created. None: what it has, or ``tasks``."""
    assigned: Sequence[str] = attrs.field(default=(), converter=_names)
    """Tenants that this runtime serves first; without these and `steal` it serves all alike."""
    steal: Sequence[str] | bool = attrs.field(default=(), converter=_names)
    """Tenants that it serves when the assigned ones have nothing to do; True: all others."""
    result_ttl: float = attrs.field(default=3600.0, validator=_seconds(zero=True))
    """How long the record of a finished task is kept; 0: not at all."""
    failed_ttl: float = attrs.field(default=7 * 86400.0, validator=_seconds(zero=True))
    """How long a failed task is kept as a dead letter; 0: not at all."""
    canceled_ttl: float = attrs.field(default=3600.0, validator=_seconds(zero=True))
    """How long the record of a canceled task is kept; 0: not at all."""
    max_payload: int = attrs.field(default=1 << 20, validator=_whole(1))
    """The longest encoded message or result, in bytes."""
    max_deliveries: int = attrs.field(default=5, validator=_whole(1, 255))
    """After so many runtimes died under a task it is given up as failed."""
    durability: Durability = attrs.field(default="server", validator=one_of(DURABILITIES))
    """When a send has succeeded: ``server``, the server has the task, as safely as it is set up to keep what it has;
    ``replicated``, also so many replicas of it have."""
    replicas: int = attrs.field(default=1, validator=_whole(1))
    """How many replicas have to confirm a send of durability ``replicated``."""

    def __attrs_post_init__(self) -> None:
        if self.url is not None and not isinstance(self.url, str):
            raise ConfigurationError(f"url={self.url!r}: give a text, such as 'redis://localhost'")
        if not isinstance(self.namespace, str):
            raise ConfigurationError(f"namespace={self.namespace!r}: give a text")
        if self.path is not None and not isinstance(self.path, str | os.PathLike):
            raise ConfigurationError(f"path={self.path!r}: give the path of a folder")
        if self.url is not None and self.path is not None:
            raise ConfigurationError("give url= (a server of yours) or path= (an embedded one), not both")
        if self.assigned is True or self.assigned is False:  # type: ignore[comparison-overlap]  # what is typed may lie
            raise ConfigurationError("assigned= takes the names of tenants; without it a runtime serves all alike")
