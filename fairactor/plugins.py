"""Plugins: what they may do, each kind of it an interface, and how a runtime calls them.

A plugin is an object with a ``name`` and any of the methods of the interfaces below; it need not derive from them.
Wrappers are around what they wrap, in the order of the plugins: the first one is outermost, so it comes first before
and last after. They may change, refuse and repeat, and what they raise goes to who called. Observers are told, in that
order; what they raise is logged and goes no further. They are called between tasks and must not block.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from .context import Task
from .errors import ConfigurationError
from .extensions import HOOKS, Extensions
from .extras import Option as Option  # noqa: PLC0414 - plugins find it here
from .extras import plugin_of
from .handle import Handle
from .keys import plugin_prefix
from .message import Message, Options

if TYPE_CHECKING:
    from .runtime import Runtime

logger: Final = logging.getLogger(__name__)

Addressed = tuple[str, Message[Any]]
"""A tenant, and a message to it."""
ProceedSend = Callable[[Sequence[Addressed]], Awaitable[list[Handle[Any]]]]
ProceedExecute = Callable[[], Awaitable[Any]]


class Plugin(Protocol):
    """Anything with a name.

    It may also have ``before`` and ``after``, lists of names of plugins that it has to stand before or after. Those
    that are not there do not matter.
    """

    @property
    def name(self) -> str:
        """As others and messages name it: that of its package."""
        ...


class Lifespan(Protocol):
    """A plugin that lives as long as a runtime."""

    def lifespan(self, runtime: Runtime) -> AbstractAsyncContextManager[None]:
        """Is entered when the runtime can send, before its workers start, and left when they have stopped.

        `Runtime.supervise` starts actors of the plugin's own. What entering raises is raised by entering the runtime.
        """
        ...


class SendWrapper(Protocol):
    """A plugin around sending."""

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Is called by `Runtime.send` and ``ask`` with one message, and by ``send_many`` with all of them.

        What it passes to ``proceed`` is sent. It returns a handle for each message that it was given. What it raises
        goes to who sends; where it has not called ``proceed``, nothing was sent.
        """
        ...


class ExecuteWrapper(Protocol):
    """A plugin around each attempt at a task."""

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        """Is called in place of the handler, which ``proceed`` runs, within the timeout of the attempt.

        What it returns is the result. What it raises is how the attempt has failed; `Retry` asks for another one. Where
        the plugin has ``only_with``, names of options, it is called only for tasks that have one of them.
        """
        ...


class SentObserver(Protocol):
    """Hears of what was sent from here."""

    def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
        """Is called when the server has accepted a message, or had a task of its key already (``handle.duplicate``)."""


class StartedObserver(Protocol):
    """Hears of attempts that begin."""

    def started(self, task: Task) -> None:
        """Is called before an attempt, and before what wraps it."""


class FinishedObserver(Protocol):
    """Hears of tasks that have finished."""

    def finished(self, task: Task, result: Any) -> None:
        """Is called when a task has finished here.

        As with all outcomes, the server does not know of it yet: it refuses it if the lease was lost meanwhile, and
        then the task runs again.
        """


class FailedObserver(Protocol):
    """Hears of attempts that have failed."""

    def failed(self, task: Task, error: BaseException) -> None:
        """Is called when an attempt has failed here; ``retried`` or ``dead`` follows."""


class RetriedObserver(Protocol):
    """Hears of tasks that get another attempt."""

    def retried(self, task: Task, error: BaseException, delay: float) -> None:
        """Is called when a task is to be tried again, in ``delay`` seconds."""


class CanceledObserver(Protocol):
    """Hears of tasks that were canceled."""

    def canceled(self, task: Task, reason: str) -> None:
        """Is called when a task that a worker here had claimed was canceled, or had expired.

        What is canceled while it waits, no worker hears of.
        """


class DeadObserver(Protocol):
    """Hears of tasks that have failed for good."""

    def dead(self, task: Task, error: BaseException) -> None:
        """Is called when a task has failed for good here, also one that cannot be decoded or whose actor is unknown.

        One that is given up since too many runtimes died under it, no worker hears of.
        """


class LuaHooks(Protocol):
    """A plugin that does something within the scripts, in one step with what they do."""

    @property
    def lua(self) -> Mapping[str, str]:
        """Place (a key of `HOOKS`) → Lua. It reads and decides there; what it writes, functions in ``later`` write."""
        ...


class LuaScripts(Protocol):
    """A plugin with scripts of its own, for `Runtime.call`."""

    @property
    def scripts(self) -> Mapping[str, str]:
        """Name → Lua, which may include the parts of which fairactor's own scripts are made."""
        ...


_METHODS: Final = (
    "lifespan", "wrap_send", "wrap_execute", "lua", "scripts",
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
        self._send = [plugin.wrap_send for plugin in reversed(self._all) if hasattr(plugin, "wrap_send")]
        self._execute = [
            (plugin.wrap_execute, frozenset(getattr(plugin, "only_with", ())))
            for plugin in reversed(self._all)
            if hasattr(plugin, "wrap_execute")
        ]
        self._always = any(not only for _, only in self._execute)

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

    @property
    def wraps_send(self) -> bool:
        """Whether anything is around sending."""
        return bool(self._send)

    async def send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        """Sends, through all that is around it."""
        for wrap in self._send:
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
        return self._always or (bool(options) and bool(self._execute))


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
