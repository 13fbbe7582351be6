"""Actors: the functions and methods that handle messages."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

import attrs

from fairactor._model.placeholder import Placeholder
from fairactor._util.checks import check_name
from fairactor.errors import ConfigurationError, InvalidPayload

from .codec import Codec
from .elsewhere import run_in_process, run_in_thread
from .message import Message
from .options import ActorOptions, Options, parse_options
from .plugin_options import OptionValue
from .task import Task, enter_task

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

Invoke = Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Any]]
_HOOKS: Final = ("started", "stopped")


class Actor(Generic[P, R_co]):
    """A handler that messages name. Calling it makes a `Message`; it runs nothing.

    A method is an actor, too: ``Cart.add("apple")`` on the class makes a message, and ``cart.add("apple")`` on an
    instance calls the method. Each runtime has one instance of the class. If the class has the methods ``started`` and
    ``stopped`` (plain or async), the runtime calls them before the first task and when it is left.

    Raises:
        TypeError: at the call, if the arguments do not fit the handler's signature.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        options: Options,
        *,
        process: bool = False,
        owner: type[Any] | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.options = options
        self.process = process
        self.owner = owner
        """The class, if this is a method."""
        self.codec = Codec(name, function, method=owner is not None)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Message[R_co]:
        """Makes a message with these arguments."""
        positional, named = self.codec.bind(args, kwargs)
        return Message(self, positional, named, self.options)

    def __repr__(self) -> str:
        return f"<actor {self.name}>"

    def bind(self, instance: object = None) -> Invoke:
        """Returns a function that runs the handler, on an instance if it is a method."""
        function = self.function if instance is None else partial(self.function, instance)
        if self.process:
            return partial(run_in_process, self)
        if inspect.iscoroutinefunction(self.function):
            return lambda args, kwargs: function(*args, **kwargs)
        return partial(run_in_thread, function)

    async def run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R_co:
        """Runs the handler in this process, a method on a new instance. Inside a handler it is part of that task."""
        if unknown := [value for value in (*args, *kwargs.values()) if isinstance(value, Placeholder)]:
            raise InvalidPayload(f"{self.name}(): {unknown[0]!r} is not known here: send the message, or give a value")
        with enter_task(Task(id="local", tenant="local", actor=self.name)):
            if self.owner is None:
                result: R_co = await self.bind()(args, kwargs)
                return result
            check_takes_no_arguments(self.owner)
            instance = self.owner()
            await start_instance(instance)
            try:
                result = await self.bind(instance)(args, kwargs)
            finally:
                await stop_instance(instance)
            return result


class _Method(Generic[P, R_co]):
    """A method with ``@actor``: an actor on the class, and the method itself on an instance.

    Each class that inherits the method has an actor of its own, named after that class.
    """

    def __init__(self, function: Callable[..., Any], name: str | None, options: Options) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self._given_name = name
        self._options = options
        self._name = function.__name__
        self._actors: dict[type[Any], Actor[..., Any]] = {}

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is not None:
            return self.function.__get__(instance, owner)
        if owner not in self._actors:
            defaults = _defaults_of(owner)
            name = self._given_name or f"{defaults.name}.{self._name}"
            self._actors[owner] = Actor(self.function, name, self._options.over(defaults.options), owner=owner)
        return self._actors[owner]


class AsyncActor(Actor[P, R_co]):
    """What ``@actor`` makes of an async function, as type checkers see it: it may be a method."""

    @overload
    def __get__(self: AsyncActor[Concatenate[T, Q], R], instance: None, owner: type[T]) -> Actor[Q, R]: ...
    @overload
    def __get__(
        self: AsyncActor[Concatenate[T, Q], R], instance: T, owner: type[T]
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self  # a function that a class only refers to


class PlainActor(Actor[P, R_co]):
    """What ``@actor`` makes of a plain function, as type checkers see it: it may be a method."""

    @overload
    def __get__(self: PlainActor[Concatenate[T, Q], R], instance: None, owner: type[T]) -> Actor[Q, R]: ...
    @overload
    def __get__(self: PlainActor[Concatenate[T, Q], R], instance: T, owner: type[T]) -> Callable[Q, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self  # as above


@attrs.frozen
class _Defaults:
    """What ``@actor`` on a class has set for its methods."""

    name: str
    options: Options


_DEFAULTS: Final = "__fairactor_defaults__"


def _defaults_of(cls: type[Any]) -> _Defaults:
    """The defaults for the methods of a class. Options are inherited; a name is not."""
    own: _Defaults | None = vars(cls).get(_DEFAULTS)
    return own or _Defaults(cls.__name__, getattr(cls, _DEFAULTS).options if hasattr(cls, _DEFAULTS) else Options())


def methods_of(cls: type[Any]) -> list[Actor[..., Any]]:
    """The actors of a class: its methods with ``@actor``, and those that it inherits."""
    return [getattr(cls, name) for name, value in inspect.getmembers_static(cls) if isinstance(value, _Method)]


def check_takes_no_arguments(cls: type[Any]) -> None:
    """Accepts a class whose instances can be made without arguments.

    Raises:
        ConfigurationError: it needs some, so its user has to make the instance.
    """
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise ConfigurationError(
            f"{cls.__name__} cannot be made without arguments ({error}): give an instance, as in "
            f"Runtime(actors=[{cls.__name__}(…)]), or call the method on one"
        ) from None


async def start_instance(instance: object) -> None:
    """Calls the method ``started`` of an instance, if it has one."""
    await _call_hook(instance, "started")


async def stop_instance(instance: object) -> None:
    """Calls the method ``stopped`` of an instance, if it has one."""
    await _call_hook(instance, "stopped")


async def _call_hook(instance: object, hook: str) -> None:
    method = getattr(instance, hook, None)
    if method is not None:
        answer = method()
        if inspect.isawaitable(answer):
            await answer


class ActorDecorator(Protocol):
    """What ``actor(...)`` with options returns."""

    # The first overlaps the third, since a class is callable, too; the second is a special case of the third.
    @overload
    def __call__(self, handler: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, handler: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncActor[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, handler: Callable[P, R], /) -> PlainActor[P, R]: ...


@overload
def actor(handler: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]  # as above
@overload
def actor(handler: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncActor[P, R]: ...  # type: ignore[overload-overlap]
@overload
def actor(handler: Callable[P, R], /) -> PlainActor[P, R]: ...
@overload
def actor(
    *values: OptionValue, name: str | None = None, process: bool = False, **options: Unpack[ActorOptions]
) -> ActorDecorator: ...


def actor(*given: Any, name: str | None = None, process: bool = False, **options: Any) -> Any:
    """Makes an actor of a function or a method.

    An async function runs in the event loop, a plain one in a thread. On a class, ``@actor`` sets a name and default
    options for its methods, and marks all public ones if it has marked none itself.

    Args:
        given: the handler; or options of plugins that do not ship with fairactor, see `fairactor.plugins.Option`.
        name: how messages name the actor. By default the name of the function, without its module, so that code can
            move while its tasks wait; for a method, the names of its class and of the method.
        process: run the function in a worker process, because it keeps a CPU busy. Another process must be able to
            import it, and ``if __name__ == "__main__"`` must guard the program's start, as for `multiprocessing`.
        options: defaults for its messages, see `Options`.

    Raises:
        ConfigurationError: an option is unknown or cannot work, or this cannot be an actor.
    """
    if "id" in options:
        raise ConfigurationError("id= is of one message: give it with message.options(id=…)")
    handlers = [each for each in given if not isinstance(each, OptionValue)]
    if not handlers:
        defaults = parse_options(options, given)
        return lambda handler: _decorate(handler, name, defaults, process=process)
    if len(given) > 1:
        raise ConfigurationError(f"@actor takes one handler, and got {len(given)} values")
    return _decorate(handlers[0], None, Options(), process=False)


def _decorate(handler: Any, name: str | None, options: Options, *, process: bool) -> Any:
    if not callable(handler):
        raise ConfigurationError(f"@actor cannot make an actor of {handler!r}: give a function or a class")
    if name is not None:
        check_name("actor name", name)
    if inspect.isclass(handler):
        return _decorate_class(handler, name, options, process=process)
    own_name = getattr(handler, "__name__", None)
    _check_returns(handler, name or own_name)
    scope = getattr(handler, "__qualname__", "<locals>").rpartition(".")[0]
    if process and inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            f"{name or own_name}: process=True is for plain functions; write it as def, not async def"
        )
    if process and scope:
        raise ConfigurationError(
            f"{name or own_name}: process=True is for functions at the top level of a module, because another process "
            "imports it"
        )
    if scope and not scope.endswith("<locals>"):
        return _Method(handler, name, options)
    kind = AsyncActor if inspect.iscoroutinefunction(handler) else PlainActor
    return kind(handler, name or check_name("actor name", own_name), options, process=process)  # type: ignore[arg-type]  # checked


def _check_returns(handler: Callable[..., Any], name: str | None) -> None:
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise ConfigurationError(f"{name}: a generator has no single result; return a list instead")


def _decorate_class(cls: type[Any], name: str | None, options: Options, *, process: bool) -> type[Any]:
    name = name or cls.__name__
    if process:
        raise ConfigurationError(f"{name}: process=True is for functions; a class keeps its state in this process")
    setattr(cls, _DEFAULTS, _Defaults(name, options))
    if not methods_of(cls):
        for method, value in inspect.getmembers_static(cls, inspect.isfunction):
            if not method.startswith("_") and method not in _HOOKS:
                _check_returns(value, f"{name}.{method}")
                marked: _Method[..., Any] = _Method(value, None, Options())
                marked.__set_name__(cls, method)
                setattr(cls, method, marked)
    if not methods_of(cls):
        raise ConfigurationError(f"{name} has no public method, so there is no message to send it")
    return cls
