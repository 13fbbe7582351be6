"""The options of tasks. An actor has defaults for its messages, and each message can change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

import attrs
from attrs.validators import optional

from fairactor._util.checks import (
    check_aware,
    check_bool,
    check_name,
    check_one_of,
    check_route_name,
    check_seconds,
    check_whole_number,
    shown,
    to_seconds,
    validate,
)
from fairactor._util.failures import exception_name
from fairactor.errors import ConfigurationError
from fairactor.settings import DURABILITIES, MOST_ATTEMPTS, Durability, Priority, PriorityName, to_priority

from .handle import Handle
from .plugin_options import OptionValue, convert_options

TriggerRule = Literal["all_success", "all_done", "one_success", "one_failed", "none_failed"]
ExceptionTypes = type[BaseException] | Iterable[type[BaseException]]


class _CommonOptions(TypedDict, total=False):
    priority: Priority | int | PriorityName | None
    queue: str | None
    delay: float | timedelta | None
    eta: datetime | None
    max_retries: int | None
    backoff: float | timedelta | None
    backoff_cap: float | timedelta | None
    retry_on: ExceptionTypes | None
    no_retry_on: ExceptionTypes | None
    result_ttl: float | timedelta | None
    expires: float | timedelta | None
    key: str | None
    key_window: float | timedelta | None
    replace: bool | None
    durability: Durability | None
    # Of the plugins that ship with fairactor: fairactor_dependencies and fairactor_xcom.
    depends_on: Iterable[Handle[Any] | str] | None
    trigger_rule: TriggerRule | None
    xcom: str | None
    xcom_run: str | None
    xcom_ttl: float | timedelta | None


class ActorOptions(_CommonOptions, total=False):
    """The options of ``@actor``, for editors and type checkers. `Options` describes each. None means: not given.

    Options of other plugins are given as values, see `fairactor.plugins.Option`.
    """

    timeout: float | timedelta | None


class TaskOptions(ActorOptions, total=False):
    """The options of `Message.options` and `Runtime.send`: those of ``@actor``, and an id."""

    id: str | None


class AskOptions(_CommonOptions, total=False):
    """The options of `Runtime.ask`: those of `Runtime.send`, except ``timeout``, which limits the wait."""

    id: str | None


def _to_types(value: Any) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    types = tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
    for given in types:
        if not (isinstance(given, type) and issubclass(given, BaseException)):
            raise ConfigurationError(f"retry_on= and no_retry_on= got {shown(given)}: give exception types")
    return types


def _to_moment(value: datetime | None) -> datetime | None:
    return None if value is None else check_aware("eta", value)


def _duration(*, zero: bool = True) -> Any:
    """Makes a field of seconds, which can also be given as a timedelta."""
    return attrs.field(default=None, converter=to_seconds, validator=optional(validate(check_seconds, zero=zero)))


def _check_queue(_: Any, __: Any, value: str) -> None:
    check_route_name("queue", value)


def _check_key(_: Any, __: Any, value: str) -> None:
    check_name("key", value)


_TRAVELLING: Final = (
    "timeout", "max_retries", "backoff", "backoff_cap", "retry_on", "no_retry_on", "result_ttl", "expires", "key",
    "key_window",
)  # fmt: skip


@attrs.frozen(kw_only=True, slots=False)  # instances without slots are copied faster, see `copied`
class Options:
    """How a task is run. For an option that is None, the actor's default holds, and then the setting of the runtime.

    Raises:
        ConfigurationError: a value is invalid; the message names it.
    """

    id: str | None = None
    """The id of the task: any string, by default 96 random bits. Sending the same id again has no effect."""
    priority: Priority | None = attrs.field(default=None, converter=attrs.converters.optional(to_priority))
    queue: str | None = attrs.field(default=None, validator=optional(_check_queue))
    """The queue of the task, by default ``default``. Runtimes that serve the queue run it, see `Settings.queues`."""
    delay: float | None = _duration()
    """Run the task this many seconds (or a timedelta) after the send, by the server's clock."""
    eta: datetime | None = attrs.field(default=None, converter=_to_moment)
    """Run the task at this moment, a datetime with a time zone."""
    timeout: float | None = _duration(zero=False)
    """The seconds that one attempt may take; by default as `Settings.timeout`."""
    max_retries: int | None = attrs.field(
        default=None, validator=optional(validate(check_whole_number, 0, MOST_ATTEMPTS - 1))
    )
    """How many more attempts a failed task gets; by default as `Settings.max_retries`."""
    backoff: float | None = _duration()
    """The longest pause before the second attempt, in seconds; 1 by default. It doubles with each further attempt. The
    actual pause is uniform in [0, this], so tasks that failed together do not retry together."""
    backoff_cap: float | None = _duration()
    """The longest pause between any two attempts, in seconds; 300 by default."""
    retry_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_to_types)
    """Retry only errors of these types, and exception groups of only these types. By default all errors are retried."""
    no_retry_on: tuple[type[BaseException], ...] | None = attrs.field(default=None, converter=_to_types)
    """Do not retry errors of these types."""
    result_ttl: float | None = _duration()
    """The seconds to keep the record of a finished task, by default as `Settings.result_ttl`. With 0 only callers that
    already wait receive the result."""
    expires: float | None = _duration()
    """No attempt starts later than this many seconds after the task was sent, or became due."""
    key: str | None = attrs.field(default=None, validator=optional(_check_key))
    """A deduplication key. Until the task ends, a message to this tenant with the same key is not sent, and its sender
    gets a handle of this task."""
    key_window: float | None = _duration()
    """The seconds for which the key stays in use after the task has finished; 0 by default."""
    replace: bool | None = attrs.field(default=None, validator=optional(validate(check_bool)))
    """With a ``key``: the last message wins. If the task with that key waits, it gets this call, its options, and its
    delay anew. If it has started, one more task runs after it, with the last call that came meanwhile."""
    durability: Durability | None = attrs.field(default=None, validator=optional(validate(check_one_of, DURABILITIES)))
    """When the send has succeeded; see `Settings.durability`."""
    plugin_options: Mapping[str, Any] = attrs.field(factory=dict)
    """Options of plugins that travel with the task, in JSON types."""
    script_options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """Options of plugins that only their scripts read, by plugin."""
    travelling: dict[str, Any] = attrs.field(init=False, eq=False, repr=False)
    """The options that the worker needs, and those needed to send the task again, in JSON types."""

    def __attrs_post_init__(self) -> None:
        if self.id is not None:
            check_name("task id", self.id)
        if self.delay is not None and self.eta is not None:
            raise ConfigurationError("give delay= or eta=, not both")
        given = ((option, getattr(self, option)) for option in _TRAVELLING)
        travelling = {option: _to_json(value) for option, value in given if value is not None}
        travelling.update(self.plugin_options)
        object.__setattr__(self, "travelling", travelling)  # once for all messages of an actor

    def over(self, defaults: Options) -> Options:
        """Returns these options, with ``defaults`` for those that are not given."""
        given = _given(self)
        if "delay" in given or "eta" in given:
            defaults = attrs.evolve(defaults, delay=None, eta=None)
        if self.plugin_options:
            given["plugin_options"] = {**defaults.plugin_options, **self.plugin_options}
        if self.script_options:
            plugins = defaults.script_options.keys() | self.script_options.keys()
            given["script_options"] = {
                plugin: {**defaults.script_options.get(plugin, {}), **self.script_options.get(plugin, {})}
                for plugin in plugins
            }
        return attrs.evolve(defaults, **given) if given else defaults

    def copied(self, **changed: Any) -> Options:
        """Returns a copy with some fields replaced, without checks, for plugins that send many messages."""
        made = object.__new__(Options)
        vars(made).update(vars(self), **changed)
        return made


def _to_json(value: Any) -> Any:
    return [exception_name(kind) for kind in value] if isinstance(value, tuple) else value


_GIVEN: Final = tuple(
    field.name
    for field in attrs.fields(Options)
    if field.init and field.name not in {"plugin_options", "script_options"}
)
_CORE: Final = frozenset(_GIVEN)


def _given(options: Options) -> dict[str, Any]:
    return {name: value for name in _GIVEN if (value := getattr(options, name)) is not None}


def parse_options(keywords: Mapping[str, Any], values: Sequence[OptionValue] = ()) -> Options:
    """Makes options from keyword arguments and from values of plugins' options.

    Raises:
        ConfigurationError: an option is unknown, given twice, or invalid.
    """
    options = dict(keywords)
    for given in values:
        if not isinstance(given, OptionValue):
            raise ConfigurationError(f"got {shown(given)} instead of an option: give options by name, as in timeout=5")
        if given.name in options:
            raise ConfigurationError(f"option {shown(given.name)} is given twice")
        options[given.name] = given.value
    others = {name: options.pop(name) for name in options.keys() - _CORE}
    if not others:
        return Options(**options)
    plugin_options, script_options = convert_options(others, _CORE)
    return Options(**options, plugin_options=plugin_options, script_options=script_options)
