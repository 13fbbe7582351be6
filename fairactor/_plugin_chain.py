"""The plugins of a runtime: checks them, puts them in order, and combines their wrappers and observers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import chain
from types import MappingProxyType
from typing import Any, Final

import attrs

from ._actors.handle import Handle
from ._actors.host import Host
from ._actors.message import Message
from ._actors.options import Options
from ._actors.plugin_options import plugin_of
from ._actors.task import Task
from ._model.keys import plugin_prefix
from ._model.placeholder import Placeholder
from ._store.plugin_lua import HOOKS, PluginLua
from ._util.checks import shown
from ._util.kinds import is_async, is_generator, is_plain
from .errors import ConfigurationError, FairactorError
from .plugins import Addressed, Plugin, ProceedExecute, ProceedSend, installed_plugins

logger: Final = logging.getLogger(__name__)

_WRAPPERS: Final = ("wrap_send", "wrap_execute", "load_arguments")
_OBSERVERS: Final = ("sent", "started", "finished", "failed", "retried", "canceled", "dead")
_METHODS: Final = (
    "lifespan",
    *_WRAPPERS,
    "lua",
    "scripts",
    "actors",
    "move_tenant",
    "relatives",
    "health_problems",
    "lateness",
    *_OBSERVERS,
)

Observe = Callable[..., None]


def _nothing(*_: Any) -> None:
    """Stands in for the observers of an event that has none."""


@attrs.frozen(kw_only=True)
class Observers:
    """For each event one function, which calls all its observers. `fairactor.plugins` describes the arguments."""

    sent: Observe | None = None
    started: Observe = _nothing
    finished: Observe = _nothing
    failed: Observe = _nothing
    retried: Observe = _nothing
    canceled: Observe = _nothing
    dead: Observe = _nothing


def plugins_in_use(given: Iterable[Plugin], without: Iterable[str] | bool) -> list[Plugin]:  # noqa: FBT001 - as in Runtime
    """Returns the installed plugins, and then those given. One that is given replaces an installed one of its name.

    Args:
        given: the plugins to add.
        without: the names of the installed plugins to leave out; True for all.

    Raises:
        ConfigurationError: these are no lists, no installed plugin has such a name, or one cannot be imported.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):  # type: ignore[unreachable]  # without a type checker
        raise ConfigurationError(f"plugins={shown(given)}: give a list, as in plugins=[…]")
    if not isinstance(without, bool) and (isinstance(without, str) or not isinstance(without, Iterable)):
        raise ConfigurationError(f"without_plugins={shown(without)}: give a list of names, or True for all")
    added = list(given)
    if without is True:
        return added
    names = {getattr(plugin, "name", None) for plugin in added}
    installed = installed_plugins(() if without is False else list(without))
    return [*(plugin for plugin in installed if plugin.name not in names), *added]


class PluginChain:
    """The plugins of a runtime, in order.

    Raises:
        ConfigurationError: something is not a plugin, two have the same name, or their order is circular.
    """

    def __init__(self, given: Iterable[Plugin]) -> None:
        self._all = _in_order([_checked(plugin) for plugin in given])
        self.by_name: Final[Mapping[str, Any]] = MappingProxyType({plugin.name: plugin for plugin in self._all})
        self.names: Final = self.by_name.keys()
        self.observers: Final = Observers(
            **{
                event: _notifier(event, observing)
                for event in (field.name for field in attrs.fields(Observers))
                if (observing := [plugin for plugin in self._all if hasattr(plugin, event)])
            }
        )
        self.lua: Final = PluginLua(
            tuple((hook, plugin.name, text) for plugin in self._all for hook, text in _lua(plugin, "lua").items()),
            tuple(
                (f"{plugin.name}/{name}", plugin.name, text)
                for plugin in self._all
                for name, text in _lua(plugin, "scripts").items()
            ),
            tuple((plugin.name, key, kind) for plugin in self._all for key, kind in _lua(plugin, "lua_keys").items()),
        )
        self._send = _wrappers(self._all, "wrap_send")
        self._sends = any(not only for _, only in self._send)
        self._send_options = frozenset[str]().union(*(only for _, only in self._send))
        self._execute = _wrappers(self._all, "wrap_execute")
        self._executes = any(not only for _, only in self._execute)
        self._load = _wrappers(self._all, "load_arguments")
        self.loads_arguments: Final = bool(self._load)
        """Whether any plugin may change arguments before a task runs."""
        self.actors: Final = [actor for plugin in self._all for actor in getattr(plugin, "actors", ())]

    async def problems(self, host: Host) -> list[str]:
        """Returns the problems that plugins know of. What a plugin cannot read is left out."""
        found: list[str] = []
        for plugin in self._all:
            if hasattr(plugin, "health_problems"):
                with suppress(FairactorError):
                    found += await plugin.health_problems(host)
        return found

    def check(self, options: Options) -> None:
        """Checks that this runtime uses the plugins that define these options.

        Raises:
            ConfigurationError: a plugin is missing.
        """
        for option in (*options.plugin_options, *chain.from_iterable(options.script_options.values())):
            if (plugin := plugin_of(option)) not in self.names:
                raise ConfigurationError(
                    f"option {option!r} belongs to the plugin {plugin!r}, which this Runtime does not use: give it in "
                    "plugins=, or take it out of without_plugins="
                )

    def lifespans(self, host: Host) -> Iterable[AbstractAsyncContextManager[None]]:
        """Returns the lifespans of the plugins, in order."""
        return (plugin.lifespan(host) for plugin in self._all if hasattr(plugin, "lifespan"))

    def wraps_send(self, message: Message[Any]) -> bool:
        """Whether any plugin wraps the sending of this message."""
        return self._sends or _has_one_of(message, self._send_options)

    async def send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Sends messages through all wrappers."""
        for wrap, only in self._send:
            if not only or any(_has_one_of(message, only) for _, message in messages):
                proceed = _Around(wrap, proceed)
        return await proceed(messages)

    def wrap_execute(self, task: Task, proceed: ProceedExecute) -> ProceedExecute:
        """Wraps an attempt in all wrappers."""
        for wrap, only in self._execute:
            if not only or not only.isdisjoint(task.options):
                proceed = _wrapped(wrap, task, proceed)
        return proceed

    async def load_arguments(
        self, options: Mapping[str, Any], actor: str, tenant: str, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Returns the arguments of a task as the plugins have loaded them."""
        for load, only in self._load:
            if not only or not only.isdisjoint(options):
                args, kwargs = await load(actor, tenant, args, kwargs)
        return args, kwargs

    async def move_tenant(self, host: Host, tenant: str, source: int, target: int) -> None:
        """Moves what plugins keep for a tenant from the one shard to the other; see `TenantMover`."""
        for plugin in self._all:
            if hasattr(plugin, "move_tenant"):
                await plugin.move_tenant(host, tenant, source, target)

    async def tenants_on(self, host: Host, shard: int) -> AsyncIterator[str]:
        """Yields the tenants for which plugins keep something on a shard, some maybe several times."""
        for plugin in self._all:
            if hasattr(plugin, "tenants_on"):
                async for tenant in plugin.tenants_on(host, shard):
                    yield tenant

    def wraps_execute(self, options: Mapping[str, Any]) -> bool:
        """Whether any plugin may wrap an attempt at a task with these options."""
        return self._executes or (bool(options) and bool(self._execute))


def _wrappers(plugins: Sequence[Any], method: str) -> list[tuple[Callable[..., Any], frozenset[str]]]:
    """Returns wrappers, the innermost first, each with its ``only_with`` options."""
    return [
        (getattr(plugin, method), frozenset(getattr(plugin, "only_with", ())))
        for plugin in reversed(plugins)
        if hasattr(plugin, method)
    ]


def _has_one_of(message: Message[Any], options: frozenset[str]) -> bool:
    """Whether a message has one of these options, or an argument that a plugin fills in.

    Non-messages are rejected later, when they are encoded.
    """
    if not isinstance(message, Message):
        return False  # type: ignore[unreachable]  # without a type checker
    own = message.task_options.plugin_options
    if own and not options.isdisjoint(own):
        return True
    for value in message.args:
        if isinstance(value, Placeholder):
            return True
    return bool(message.kwargs) and any(isinstance(value, Placeholder) for value in message.kwargs.values())


@attrs.frozen
class _Around:
    """Sends messages through a wrapper."""

    wrap: Callable[[Sequence[Addressed], ProceedSend], Awaitable[list[Handle[Any]]]]
    proceed: ProceedSend

    async def __call__(self, messages: Sequence[Addressed]) -> list[Handle[Any]]:
        handles = await self.wrap(messages, self.proceed)
        if len(handles) != len(messages):
            raise ConfigurationError(
                f"{getattr(self.wrap, '__qualname__', self.wrap)} returned {len(handles)} handles for {len(messages)} "
                "messages: a wrapper must return one for each message"
            )
        return handles


def _wrapped(
    wrap: Callable[[Task, ProceedExecute], Awaitable[Any]], task: Task, proceed: ProceedExecute
) -> ProceedExecute:
    return lambda: wrap(task, proceed)


def _notifier(event: str, observing: Sequence[Any]) -> Observe:
    methods = [(plugin.name, getattr(plugin, event)) for plugin in observing]

    def notify(*arguments: Any) -> None:
        for name, method in methods:
            try:
                method(*arguments)
            except BaseException:
                logger.exception("plugin %s: %s() failed", name, event)

    return notify


def _checked(plugin: Any) -> Any:
    if isinstance(plugin, type):
        raise ConfigurationError(
            f"plugins= got the class {plugin.__name__}: give an instance, as in plugins=[{plugin.__name__}()]"
        )
    if not isinstance(getattr(plugin, "name", None), str) or not plugin.name:
        raise ConfigurationError(f"plugins= got {shown(plugin)}: a plugin must have a name, which is a string")
    if not any(hasattr(plugin, method) for method in _METHODS):
        raise ConfigurationError(f"plugin {plugin.name!r} does nothing: it has none of {', '.join(_METHODS)}")
    _check_hooks(plugin)
    for hook in _lua(plugin, "lua"):
        if hook not in HOOKS:
            raise ConfigurationError(
                f"plugin {plugin.name!r}: there is no Lua hook {hook!r}; the hooks are {', '.join(HOOKS)}"
            )
    if _lua(plugin, "lua") or _lua(plugin, "scripts"):
        plugin_prefix(plugin.name)  # raises if the name is invalid
    return plugin


def _check_hooks(plugin: Any) -> None:
    """Checks that the hooks of a plugin are of the right kind: an observer that is a coroutine would never run.

    Raises:
        ConfigurationError: one is not; the message names the plugin and the hook.
    """
    for hook in ("lifespan", *_WRAPPERS, *_OBSERVERS):
        method, about = getattr(plugin, hook, None), f"plugin {plugin.name!r}: {hook}"
        if not hasattr(plugin, hook):
            continue
        if not callable(method):
            raise ConfigurationError(f"{about} is {shown(method)}: it must be a method")
        if hook in _OBSERVERS and (is_async(method) or is_generator(method)):
            raise ConfigurationError(
                f"{about}() is async or a generator, so it would never run: make it a plain `def`. For what takes "
                "time, put the event into a queue, and read it in a function that lifespan() gives to host.supervise"
            )
        if hook in _WRAPPERS and (is_generator(method) or is_plain(method)):
            await_it = "" if hook == "load_arguments" else ", and await proceed"
            raise ConfigurationError(f"{about}() must be `async def`, without `yield`{await_it}")
        if hook == "lifespan" and (is_async(method) or is_generator(method)):
            raise ConfigurationError(
                f"{about}() must return an async context manager: decorate it with contextlib.asynccontextmanager"
            )
    for name, kind, what in (
        ("lua", Mapping, "a dict"),
        ("scripts", Mapping, "a dict"),
        ("actors", Iterable, "a list"),
    ):
        value = getattr(plugin, name, ())
        if hasattr(plugin, name) and (not isinstance(value, kind) or isinstance(value, str)):
            raise ConfigurationError(f"plugin {plugin.name!r}: {name} is {shown(value)}: it must be {what}")


def _lua(plugin: Any, which: str) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(plugin, which, {})
    return found


def _in_order(plugins: list[Any]) -> list[Any]:
    """Sorts plugins by their ``before`` and ``after``; otherwise they stay in the given order."""
    from graphlib import CycleError, TopologicalSorter

    by_name: dict[str, Any] = {}
    for plugin in plugins:
        if by_name.setdefault(plugin.name, plugin) is not plugin:
            raise ConfigurationError(f"two plugins are named {plugin.name!r}: give only one of them")
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for plugin in plugins:
        sorter.add(plugin.name, *_others(plugin, "after", by_name))
        for later in _others(plugin, "before", by_name):
            sorter.add(later, plugin.name)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise ConfigurationError(
            f"plugins cannot be put in order: {circle}, according to their before= and after="
        ) from None
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
        raise ConfigurationError(f"plugin {plugin.name!r}: {which} is {shown(names)}: give a list of names")
    return [name for name in names if name in known]
