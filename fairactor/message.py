"""A message: one call to an actor, not sent yet, and the options of how it is to be run."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import attrs
from attrs.validators import optional

from . import extras
from .errors import ConfigurationError
from .record import MOST_ATTEMPTS
from .retry import name_of
from .settings import DURABILITIES, Durability, duration, name, one_of, seconds
from .states import Priority

if TYPE_CHECKING:
    from .actors import Actor

R = TypeVar("R")


def _check_duration(_: Any, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None:
        seconds(attribute.name, value, zero=attribute.name != "timeout")


def _priority(value: Priority | int | str | None) -> Priority | None:
    if value is None:
        return None
    try:
        return Priority[value.upper()] if isinstance(value, str) else Priority(value)
    except (KeyError, ValueError):
        names = ", ".join(f"{p.name.lower()} ({p.value})" for p in Priority)
        raise ConfigurationError(f"priority={value!r}: give one of {names}") from None


def _exceptions(value: Any) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    types = tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
    for given in types:
        if not (isinstance(given, type) and issubclass(given, BaseException)):
            raise ConfigurationError(f"retry_on= and no_retry_on= got {given!r}: give types of exceptions")
    return types


def _eta(value: datetime | None) -> datetime | None:
    if value is not None and not isinstance(value, datetime):
        raise ConfigurationError(f"eta={value!r}: give a datetime with a time zone")
    if value is not None and value.tzinfo is None:
        raise ConfigurationError(f"eta={value!r}: has no time zone; give one, such as tzinfo=timezone.utc")
    return value


_TRAVELLING: Final = (
    "timeout", "max_retries", "backoff", "backoff_cap", "retry_on", "no_retry_on", "result_ttl", "expires", "key",
    "key_window",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Options:
    """How a task is to be run; what is None is left to the actor, then to the runtime.

    Raises:
        ConfigurationError: a value cannot work; the message names it.
    """

    id: str | None = None
    """An id of your own: a second send of it is a no-op. Any text; by default 128 random bits."""
    priority: Priority | None = attrs.field(default=None, converter=_priority)
    delay: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds (or a timedelta) from the send, by the server's clock."""
    eta: datetime | None = attrs.field(default=None, converter=_eta)
    """The moment to run at, with a time zone."""
    timeout: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds that one attempt may take."""
    max_retries: int | None = None
    """How many more attempts a failed one gets; 0 by default."""
    backoff: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds before the second attempt, at most, 1 by default; doubled for each one after it. How long it really is,
    is drawn between 0 and that, so that what failed together does not come back together."""
    backoff_cap: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds that no back-off exceeds; 300 by default."""
    retry_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_exceptions)
    """Only errors of these types get another attempt; a group, if all that is in it does."""
    no_retry_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_exceptions)
    """Errors of these types get none."""
    result_ttl: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds for which the record of a finished one is kept; 0: the result goes only to who waits by then."""
    expires: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds after which it is too late to start, another attempt too."""
    key: str | None = None
    """A deduplication key: until the task has ended, another message with this key to its tenant is not sent; its
    sender gets a handle of this task."""
    key_window: float | None = attrs.field(default=None, converter=duration, validator=_check_duration)
    """Seconds for which the key goes on to stand for the task after it has finished."""
    durability: Durability | None = attrs.field(default=None, validator=optional(one_of(DURABILITIES)))
    """When the send has succeeded; see `Settings.durability`."""
    of_plugins: Mapping[str, Any] = attrs.field(factory=dict)
    """Those that plugins add, as they travel."""
    for_scripts: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """Those of plugins that only their scripts look at, by plugin."""
    travelling: dict[str, Any] = attrs.field(init=False, eq=False, repr=False)
    """What the worker needs to know of these, and who sends the task again, as JSON has it."""

    def __attrs_post_init__(self) -> None:
        if self.id is not None:
            name("task id", self.id)
        if self.delay is not None and self.eta is not None:
            raise ConfigurationError("give delay= or eta=, not both")
        if self.key is not None:
            name("key", self.key)
        retries, most = self.max_retries, MOST_ATTEMPTS - 1
        whole = isinstance(retries, int) and not isinstance(retries, bool)
        if retries is not None and not (whole and 0 <= retries <= most):
            raise ConfigurationError(f"max_retries={retries!r}: give a whole number, from 0 to {most}")
        given = ((option, getattr(self, option)) for option in _TRAVELLING)
        travelling = {option: _plain(value) for option, value in given if value is not None}
        travelling.update(self.of_plugins)
        object.__setattr__(self, "travelling", travelling)  # once, and not for each message

    def over(self, defaults: Options) -> Options:
        """These options, with what they leave open taken from ``defaults``."""
        given = _given(self)
        if "delay" in given or "eta" in given:
            defaults = attrs.evolve(defaults, delay=None, eta=None)
        if self.of_plugins:
            given["of_plugins"] = {**defaults.of_plugins, **self.of_plugins}
        if self.for_scripts:
            plugins = defaults.for_scripts.keys() | self.for_scripts.keys()
            given["for_scripts"] = {
                plugin: {**defaults.for_scripts.get(plugin, {}), **self.for_scripts.get(plugin, {})}
                for plugin in plugins
            }
        return attrs.evolve(defaults, **given) if given else defaults


def _plain(value: Any) -> Any:
    return [name_of(kind) for kind in value] if isinstance(value, tuple) else value


_GIVEN: Final = tuple(
    field.name for field in attrs.fields(Options) if field.init and field.name not in {"of_plugins", "for_scripts"}
)


_OWN: Final = frozenset(_GIVEN)


def _given(options: Options) -> dict[str, Any]:
    return {name: value for name in _GIVEN if (value := getattr(options, name)) is not None}


@attrs.define(eq=False)
class Message(Generic[R]):
    """One call to an actor. Send it with a runtime, or await it to run it here and now, without a server."""

    actor: Actor[..., R]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    how: Options

    def options(self, **options: Any) -> Message[R]:
        """A copy with other options: those of `Options`, and those of plugins.

        Raises:
            ConfigurationError: there is no such option, or its value cannot work.
        """
        return attrs.evolve(self, how=parse_options(options).over(self.how))

    def __rshift__(self, other: Any) -> Any:
        """What a plugin makes of it."""
        return extras.operate(">>", self, other)

    def __lshift__(self, other: Any) -> Any:
        """What a plugin makes of it."""
        return extras.operate("<<", self, other)

    def __or__(self, other: Any) -> Any:
        """What a plugin makes of it."""
        return extras.operate("|", self, other)

    def __await__(self) -> Generator[Any, None, R]:
        """Runs the handler in this process: no server, no queue, no retries."""
        return self.actor.run_here(self.args, self.kwargs).__await__()


def parse_options(options: dict[str, Any]) -> Options:
    """Options from keywords.

    Raises:
        ConfigurationError: there is no such option, or its value cannot work.
    """
    others = {given: options[given] for given in options.keys() - _OWN}
    if not others:
        return Options(**options)
    own = {given: value for given, value in options.items() if given not in others}
    of_plugins, for_scripts = extras.convert(others, _OWN)
    return Options(**own, of_plugins=of_plugins, for_scripts=for_scripts)
