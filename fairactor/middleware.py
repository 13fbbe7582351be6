"""The plugins of a runtime: checked, put in order, and made into what is called around its tasks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import attrs

from .context import Task
from .errors import ConfigurationError
from .extensions import HOOKS, Extensions
from .extras import plugin_of
from .handle import Handle
from .keys import plugin_prefix
from .message import Message, Options
from .plugins import Addressed, Plugin, ProceedExecute, ProceedSend

if TYPE_CHECKING:
    from .runtime import Runtime

logger: Final = logging.getLogger(__name__)

_METHODS: Final = (
    "lifespan", "wrap_send", "wrap_execute", "lua", "scripts", "actors",
    "sent", "started", "finished", "failed", "retried", "canceled", "dead",
)  # fmt: skip

Observe = Callable[..., None]


def _nothing(*_: Any) -> None:
    """What is called where nobody observes."""


@attrs.frozen(kw_only=True)
class Observers:
    """Whom to tell what; each a function of the arguments of the interface."""

    sent: Observe | None = None
    started: Observe = _nothing
    finished: Observe = _nothing
    failed: Observe = _nothing
    retried: Observe = _nothing
    canceled: Observe = _nothing
    dead: Observe = _nothing


class Plugins:
    """The plugins of a runtime, in order.

    Raises:
        ConfigurationError: something is no plugin, two have one name, or their order goes round in a circle.
    """

    def __init__(self, given: Iterable[Plugin]) -> None:
        if isinstance(given, str) or not isinstance(given, Iterable):  # type: ignore[unreachable]  # what is typed may lie
            raise ConfigurationError(f"plugins={given!r}: give a list, as in plugins=[…]")
        self._all = _in_order([_checked(plugin) for plugin in given])
        self.names: Final = frozenset(plugin.name for plugin in self._all)
        self.observers: Final = Observers(
            **{
                event: _telling(event, observing)
                for event in (field.name for field in attrs.fields(Observers))
                if (observing := [plugin for plugin in self._all if hasattr(plugin, event)])
            }
        )
        self.extensions: Final = Extensions(
            tuple((place, plugin.name, text) for plugin in self._all for place, text in _lua(plugin, "lua").items()),
            tuple(
                (f"{plugin.name}/{name}", plugin.name, text)
                for plugin in self._all
                for name, text in _lua(plugin, "scripts").items()
            ),
        )
        self._send = _wrappers(self._all, "wrap_send")
        self._sends = any(not only for _, only in self._send)
        self._concern_sends = frozenset[str]().union(*(only for _, only in self._send))
        self._execute = _wrappers(self._all, "wrap_execute")
        self._executes = any(not only for _, only in self._execute)
        self.actors: Final = [actor for plugin in self._all for actor in getattr(plugin, "actors", ())]

    def check(self, options: Options) -> None:
        """Refuses options of plugins that are not here.

        Raises:
            ConfigurationError: one is.
        """
        for option in (*options.of_plugins, *chain.from_iterable(options.for_scripts.values())):
            if (plugin := plugin_of(option)) not in self.names:
                raise ConfigurationError(
                    f"option {option!r} is of the plugin {plugin!r}, which this Runtime has not: leave plugins= out, "
                    "or name it there"
                )

    def lifespans(self, runtime: Runtime) -> Iterable[AbstractAsyncContextManager[None]]:
        """Those of the plugins that have one, in order."""
        return (plugin.lifespan(runtime) for plugin in self._all if hasattr(plugin, "lifespan"))

    def wraps_send(self, message: Message[Any]) -> bool:
        """Whether anything is around sending this."""
        return self._sends or _concerns(self._concern_sends, message)

    async def send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Sends, through all that is around it."""
        for wrap, only in self._send:
            if not only or any(_concerns(only, message) for _, message in messages):
                proceed = _Around(wrap, proceed)
        return await proceed(messages)

    def around(self, task: Task, proceed: ProceedExecute) -> ProceedExecute:
        """An attempt, with all that is around it."""
        for wrap, only in self._execute:
            if not only or not only.isdisjoint(task.options):
                proceed = _wrapped(wrap, task, proceed)
        return proceed

    def wraps_execute(self, options: Mapping[str, Any]) -> bool:
        """Whether anything may be around an attempt at a task with these options."""
        return self._executes or (bool(options) and bool(self._execute))


def _wrappers(plugins: Sequence[Any], method: str) -> list[tuple[Callable[..., Any], frozenset[str]]]:
    """The innermost first, each with the options for which alone it is there, if it says so."""
    return [
        (getattr(plugin, method), frozenset(getattr(plugin, "only_with", ())))
        for plugin in reversed(plugins)
        if hasattr(plugin, method)
    ]


def _concerns(only: frozenset[str], message: Message[Any]) -> bool:
    """Whether a message has one of those options; what is none, who seals it refuses."""
    return isinstance(message, Message) and bool(message.how.of_plugins) and not only.isdisjoint(message.how.of_plugins)


@attrs.frozen
class _Around:
    """Sending, with a wrapper around it."""

    wrap: Callable[[Sequence[Addressed], ProceedSend], Awaitable[list[Handle[Any]]]]
    proceed: ProceedSend

    async def __call__(self, messages: Sequence[Addressed]) -> list[Handle[Any]]:
        handles = await self.wrap(messages, self.proceed)
        if len(handles) != len(messages):
            raise ConfigurationError(
                f"{getattr(self.wrap, '__qualname__', self.wrap)} returned {len(handles)} handles for {len(messages)} "
                "messages: a wrapper returns one for each that it was given"
            )
        return handles


def _wrapped(
    wrap: Callable[[Task, ProceedExecute], Awaitable[Any]], task: Task, proceed: ProceedExecute
) -> ProceedExecute:
    return lambda: wrap(task, proceed)


def _telling(event: str, observing: Sequence[Any]) -> Observe:
    methods = [(plugin.name, getattr(plugin, event)) for plugin in observing]

    def tell(*what: Any) -> None:
        for name, method in methods:
            try:
                method(*what)
            except Exception:
                logger.exception("plugin %s: %s() failed", name, event)

    return tell


def _checked(plugin: Any) -> Any:
    if isinstance(plugin, type):
        raise ConfigurationError(
            f"plugins= got the class {plugin.__name__}: give a plugin, as in plugins=[{plugin.__name__}()]"
        )
    if not isinstance(getattr(plugin, "name", None), str) or not plugin.name:
        raise ConfigurationError(f"plugins= got {plugin!r}: a plugin has a name, a text")
    if not any(hasattr(plugin, method) for method in _METHODS):
        raise ConfigurationError(f"plugin {plugin.name!r} does nothing: it has none of {', '.join(_METHODS)}")
    for place in _lua(plugin, "lua"):
        if place not in HOOKS:
            raise ConfigurationError(
                f"plugin {plugin.name!r}: lua has no place {place!r}; there are {', '.join(HOOKS)}"
            )
    if _lua(plugin, "lua") or _lua(plugin, "scripts"):
        plugin_prefix(plugin.name)  # refuses a name that cannot work
    return plugin


def _lua(plugin: Any, which: str) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(plugin, which, {})
    return found


def _in_order(plugins: list[Any]) -> list[Any]:
    """The plugins as ``before`` and ``after`` ask for, and where these say nothing, as they were given."""
    by_name: dict[str, Any] = {}
    for plugin in plugins:
        if by_name.setdefault(plugin.name, plugin) is not plugin:
            raise ConfigurationError(f"two plugins are named {plugin.name!r}: give one of them")
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for plugin in plugins:
        sorter.add(plugin.name, *_others(plugin, "after", by_name))
        for later in _others(plugin, "before", by_name):
            sorter.add(later, plugin.name)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise ConfigurationError(f"plugins cannot be put in order: {circle}, by their before= and after=") from None
    places = {plugin.name: place for place, plugin in enumerate(plugins)}
    ordered: list[Any] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=places.__getitem__)
        first = ready.pop(0)
        ordered.append(by_name[first])
        sorter.done(first)
    return ordered


def _others(plugin: Any, which: str, known: Collection[str]) -> list[str]:
    names = getattr(plugin, which, ())
    if isinstance(names, str):
        raise ConfigurationError(f"plugin {plugin.name!r}: {which} is {names!r}: give a list of names")
    return [name for name in names if name in known]
