"""Actors: the functions and methods that handle messages."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

import attrs

from fairactor._model.limit import PackedLimit
from fairactor._model.placeholder import Placeholder
from fairactor._model.route import pack_route
from fairactor._util.checks import shown
from fairactor._util.kinds import is_generator
from fairactor.errors import ConfigurationError, InvalidPayload

from .batch import BatchCodec, Batching, run_alone
from .codec import Codec
from .message import Message
from .options import Options
from .task import Task, enter_task

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

Invoke = Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Any]]
RunInProcess = Callable[..., Awaitable[Any]]
"""Runs an actor in a worker process, given the actor, the positional and the named arguments."""
HOOKS: Final = ("started", "stopped")


class Actor(Generic[P, R_co]):
    """A handler of messages. Calling it makes a `Message`, and runs nothing.

    A method can be an actor, too: ``Cart.add("apple")`` on the class makes a message, and ``cart.add("apple")`` on an
    instance calls the method. Each runtime has one instance of the class. If the class has the methods ``started`` and
    ``stopped`` (plain or async), the runtime calls them before the first task and when it is left.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        options: Options,
        *,
        process: bool = False,
        batching: Batching | None = None,
        version: int = 1,
        owner: type[Any] | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.options = options
        self.process = process
        self.version = version
        """The version of its signature: it runs the messages of this version and of earlier ones."""
        self.owner = owner
        """The class, if the handler is a method."""
        self.limit: PackedLimit = {}
        """What `actor` was given as the actor's limit, packed."""
        self.batching = batching
        """How its calls are gathered, if its handler takes lists of them."""
        self.codec = (Codec if batching is None else BatchCodec)(name, function, method=owner is not None)
        self._route: tuple[Options | None, str] = None, ""  # the options of the last message, and its route
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Message[R_co]:
        """Makes a message with these arguments.

        Raises:
            TypeError: they do not fit the handler's signature.
        """
        positional, named = self.codec.bind(args, kwargs)
        return Message(self, positional, named, self.options)

    def __repr__(self) -> str:
        return f"<actor {self.name}>"

    def route(self, options: Options) -> str:
        """Returns where a message with these options can run, see `fairactor._model.route`."""
        known, route = self._route
        if known is not options:
            route = pack_route(self.name, options.queue, self.version, options.limits)
            self._route = options, route
        return route

    def bind(self, instance: object = None, run_in_process: RunInProcess | None = None) -> Invoke:
        """Returns a function that runs the handler.

        Args:
            instance: what it runs on, if it is a method.
            run_in_process: runs an actor in a worker process. By default the actor gets a process of its own.
        """
        function = self.function if instance is None else partial(self.function, instance)
        if self.process:
            from .process_pool import run_in_own_process  # slow to import

            return partial(run_in_process or run_in_own_process, self)
        if inspect.iscoroutinefunction(self.function):
            return lambda args, kwargs: function(*args, **kwargs)
        from .threads import run_in_thread  # imports anyio's backend for asyncio

        return partial(run_in_thread, function)

    async def run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R_co:
        """Runs the handler in this process; a method gets a new instance. In a handler it becomes part of that task.

        Arguments and the result are checked, and arrive, as if the message were sent.
        """
        if unknown := [value for value in (*args, *kwargs.values()) if isinstance(value, Placeholder)]:
            raise InvalidPayload(f"{self.name}(): {unknown[0]!r} is not known here: send the message, or give a value")
        args, kwargs = self.codec.as_sent(args, kwargs)
        task = Task(id="local", tenant="local", actor=self.name)
        with enter_task(task if self.batching is None else attrs.evolve(task, members=[task])):
            result = await self._run_here(args, kwargs)
        received: R_co = self.codec.result_from_json(self.codec.result_to_json(result))
        return received

    async def _run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self.owner is None:
            return await self._run_call(self.bind(), args, kwargs)
        check_takes_no_arguments(self.owner)
        instance = self.owner()
        await start_instance(instance)
        try:
            return await self._run_call(self.bind(instance), args, kwargs)
        finally:
            await stop_instance(instance)

    async def _run_call(self, invoke: Invoke, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self.batching is not None:
            return await run_alone(self.name, invoke, args)
        return await invoke(args, kwargs)


class ActorMethod(Generic[P, R_co]):
    """A method with ``@actor``: an actor on the class, and the method itself on an instance.

    Each class that inherits the method has an actor of its own, named after that class.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None,
        options: Options,
        version: int | None = None,
        batching: Batching | None = None,
    ) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self._given_name = name
        self._options = options
        self._batching = batching
        self._version = version
        self.limit: PackedLimit = {}
        self._name = function.__name__
        self._actors: dict[type[Any], Actor[..., Any]] = {}
        if inspect.isfunction(function):
            kind = Codec if batching is None else BatchCodec
            kind(function.__qualname__, function, method=True).check_annotations()

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is not None:
            return self.function.__get__(instance, owner)
        if owner not in self._actors:
            defaults = _defaults_of(owner)
            name = self._given_name or f"{defaults.name}.{self._name}"
            options, version = self._options.over(defaults.options), self._version or defaults.version
            self._actors[owner] = Actor(
                self.function, name, options, version=version, batching=self._batching, owner=owner
            )
            self._actors[owner].limit = self.limit
        return self._actors[owner]


class AsyncActor(Actor[P, R_co]):
    """The type of an async function with ``@actor``. To type checkers it may be a method, too."""

    @overload
    def __get__(self: AsyncActor[Concatenate[T, Q], R], instance: None, owner: type[T]) -> Actor[Q, R]: ...
    @overload
    def __get__(
        self: AsyncActor[Concatenate[T, Q], R], instance: T, owner: type[T]
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self  # at run time this is no method: the class just refers to a function


class PlainActor(Actor[P, R_co]):
    """The type of a plain function with ``@actor``. To type checkers it may be a method, too."""

    @overload
    def __get__(self: PlainActor[Concatenate[T, Q], R], instance: None, owner: type[T]) -> Actor[Q, R]: ...
    @overload
    def __get__(self: PlainActor[Concatenate[T, Q], R], instance: T, owner: type[T]) -> Callable[Q, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self  # as above


@attrs.frozen
class ClassDefaults:
    """The defaults that ``@actor`` on a class sets for its methods."""

    name: str
    options: Options
    version: int = 1


DEFAULTS: Final = "__fairactor_defaults__"


def _defaults_of(cls: type[Any]) -> ClassDefaults:
    """Returns the defaults for the methods of a class. Options and the version are inherited, names are not."""
    own: ClassDefaults | None = vars(cls).get(DEFAULTS)
    inherited: ClassDefaults = getattr(cls, DEFAULTS, ClassDefaults("", Options()))
    return own or attrs.evolve(inherited, name=cls.__name__)


def methods_of(cls: type[Any]) -> list[Actor[..., Any]]:
    """Returns the actors of a class: its methods with ``@actor``, including inherited ones."""
    return [getattr(cls, name) for name, value in inspect.getmembers_static(cls) if isinstance(value, ActorMethod)]


def check_takes_no_arguments(cls: type[Any]) -> None:
    """Checks that a class can be instantiated without arguments.

    Raises:
        ConfigurationError: it needs arguments, so the user has to make the instance.
    """
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise ConfigurationError(
            f"{cls.__name__} cannot be made without arguments ({error}): give an instance, as in "
            f"Runtime(actors=[{cls.__name__}(…)]), or call the method on one"
        ) from None


def check_hooks(owner: object, name: str) -> None:
    """Checks that ``started`` and ``stopped``, if there are any, are methods that run when they are called.

    Raises:
        ConfigurationError: one is not; the message names it.
    """
    for hook in ("started", "stopped"):
        method = getattr(owner, hook, None)
        if method is not None and (not callable(method) or is_generator(method)):
            found = "a generator" if callable(method) else shown(method)
            raise ConfigurationError(
                f"{name}.{hook} is {found}: it must be a method, async or plain, without arguments; rename it if it is "
                "something else"
            )


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
