"""Actors: the functions and classes that handle messages."""

from __future__ import annotations

import inspect
import math
import pickle
import signal
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

import anyio.to_process
import anyio.to_thread

from .codec import Codec
from .context import Task, a_task
from .errors import ConfigurationError, InvalidPayload, RemoteError
from .later import Later
from .message import Message, Options, parse_options
from .retry import names_of
from .settings import name as name_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Invoke = Callable[[Sequence[Any], Mapping[str, Any]], Awaitable[Any]]
_HOOKS = ("started", "stopped")


class Actor(Generic[P, R]):
    """A handler that messages can name. Calling it makes a `Message`; it runs nothing.

    Raises:
        TypeError: at the call, when the arguments do not fit the handler's signature.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, options: Options, *, process: bool = False, method: bool = False
    ) -> None:
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(f"{name}: a generator has no single result; return a list instead")
        self.function = function
        self.name = name
        self.options = options
        self.process = process
        self.codec = Codec(name, function, method=method)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self.owner: ClassActor[Any] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
        """A message with these arguments."""
        positional, named = self.codec.bind(args, kwargs)
        return Message(self, positional, named, self.options)

    def __repr__(self) -> str:
        return f"<actor {self.name}>"

    def bind(self, instance: object = None) -> Invoke:
        """How to run the handler, on an instance where it is a method."""
        function = self.function if instance is None else partial(self.function, instance)
        if self.process:
            return partial(_in_process, self)
        if inspect.iscoroutinefunction(self.function):
            return lambda args, kwargs: function(*args, **kwargs)
        return partial(_in_thread, function)

    async def run_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        """Runs the handler here; a class gets a fresh instance. Inside another handler it is a part of its task."""
        if unknown := [value for value in (*args, *kwargs.values()) if isinstance(value, Later)]:
            raise InvalidPayload(f"{self.name}(): {unknown[0]!r} is not known here: send the message, or give a value")
        with a_task(Task(id="local", tenant="local", actor=self.name)):
            if self.owner is None:
                result: R = await self.bind()(args, kwargs)
                return result
            instance = await self.owner.start()
            try:
                result = await self.bind(instance)(args, kwargs)
            finally:
                await self.owner.stop(instance)
            return result


class ClassActor(Generic[T]):
    """A class whose public methods are messages: ``Cart.add("apple")`` makes one.

    A runtime makes one instance of it when it starts. If the class has the methods ``started`` and ``stopped``
    (plain or async), it calls them when the instance has been made and when the runtime leaves.
    """

    def __init__(self, cls: type[T], name: str, options: Options, *, process: bool) -> None:
        if process:
            raise ConfigurationError(f"{name}: process=True is for functions; a class keeps its state in this process")
        self.cls = cls
        self.name = name
        self.__doc__ = cls.__doc__
        self.actors: dict[str, Actor[..., Any]] = {}
        for method, function in inspect.getmembers(cls, inspect.isfunction):
            static = isinstance(inspect.getattr_static(cls, method), staticmethod)
            if not static and not method.startswith("_") and method not in _HOOKS:
                made: Actor[..., Any] = Actor(function, f"{name}.{method}", options, method=True)
                made.owner = self
                self.actors[method] = made
        if not self.actors:
            raise ConfigurationError(f"{name} has no public method, so there is no message to send it")

    def __getattr__(self, method: str) -> Actor[..., Any]:
        try:
            return self.__dict__["actors"][method]  # type: ignore[no-any-return]  # the dict is untyped here
        except KeyError:
            raise AttributeError(f"{self.__dict__.get('name')} has no message {method!r}") from None

    def __repr__(self) -> str:
        return f"<actor class {self.name}>"

    async def start(self) -> T:
        """A started instance."""
        instance = self.cls()
        await _call_hook(instance, "started")
        return instance

    async def stop(self, instance: T) -> None:
        """Tells an instance that it is done."""
        await _call_hook(instance, "stopped")


async def _call_hook(instance: object, hook: str) -> None:
    method = getattr(instance, hook, None)
    if method is not None:
        answer = method()
        if inspect.isawaitable(answer):
            await answer


async def _in_thread(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    free = anyio.CapacityLimiter(math.inf)  # the pool is the limit; anyio's own would be 40
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True, limiter=free)


async def _in_process(actor: Actor[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs a handler in a worker process, which finds it by import; only JSON goes to and fro."""
    arguments = actor.codec.arguments_to_json(args, kwargs)
    try:
        reply = await anyio.to_process.run_sync(
            _process_main, actor.__module__, actor.__qualname__, arguments, cancellable=True
        )
    except anyio.BrokenWorkerProcess:
        message = f"{actor.name}(): its process ended before it returned: it crashed, left, or was killed"
        raise anyio.BrokenWorkerProcess(message) from None
    return actor.codec.result_from_json(reply)


def _process_main(module: str, qualname: str, arguments: tuple[list[Any], dict[str, Any]]) -> bytes:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; when to stop is the runtime's to say
        signal.signal(number, signal.SIG_IGN)
    found: Any = __import__(module, fromlist=["_"])
    for part in qualname.split("."):
        found = getattr(found, part)
    if not isinstance(found, Actor):
        raise ConfigurationError(
            f"{module}.{qualname} is no actor in a process of its own: decorate it where it is defined"
        )
    try:
        args, kwargs = found.codec.arguments_from_json(*arguments)
        return found.codec.result_to_json(found.function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is carried over
        raise _portable(error) from None


def _portable(error: Exception) -> Exception:
    """The error as it can be carried to another process, with its traceback as a note."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    try:
        carried: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled here
    except Exception:  # noqa: BLE001 - many exceptions cannot be made anew from their arguments
        carried = RemoteError(str(error), names_of(error))
    carried.add_note(f"In the process of the handler:\n{trace}")
    return carried


@overload
def actor(handler: type[T], /) -> ClassActor[T]: ...  # type: ignore[overload-overlap]  # a class is callable, too
@overload
def actor(handler: Callable[P, Awaitable[R]], /) -> Actor[P, R]: ...
@overload
def actor(handler: Callable[P, R], /) -> Actor[P, R]: ...
@overload
def actor(*, name: str | None = None, process: bool = False, **options: Any) -> _Decorator: ...


def actor(handler: Any = None, /, *, name: str | None = None, process: bool = False, **options: Any) -> Any:
    """Makes an actor of an async function, of a plain one (it runs in a thread), or of a class.

    Args:
        handler: what to decorate.
        name: how messages name it; by default the name of the function or class, without its module, so that
            code can move while its tasks wait.
        process: run the handler in a worker process: for functions that keep a CPU busy. It must be importable,
            and the program's own start guarded by ``if __name__ == "__main__"``, as for `multiprocessing`.
        options: defaults for its messages, those of `Options`.

    Raises:
        ConfigurationError: an option is unknown or cannot work.
    """
    if "id" in options:
        raise ConfigurationError("id= is of one message: give it with message.options(id=…)")
    how = parse_options(options)

    def decorate(handler: Any) -> Any:
        if not callable(handler):
            raise ConfigurationError(f"@actor cannot make an actor of {handler!r}: give a function or a class")
        own_name: Any = getattr(handler, "__name__", None)
        chosen = name_of("actor name", own_name if name is None else name)
        if inspect.isclass(handler):
            return ClassActor(handler, chosen, how, process=process)
        made: Actor[..., Any] = Actor(handler, chosen, how, process=process)
        if process and inspect.iscoroutinefunction(handler):
            raise ConfigurationError(f"{chosen}: process=True is for plain functions; write it as def, not async def")
        if process and "<locals>" in getattr(handler, "__qualname__", "<locals>"):
            raise ConfigurationError(
                f"{chosen}: process=True is for functions at the top level of a module: another process imports it"
            )
        return made

    return decorate if handler is None else decorate(handler)


class _Decorator:
    """The type of ``actor(...)`` called with options."""

    @overload
    def __call__(self, handler: type[T], /) -> ClassActor[T]: ...  # type: ignore[overload-overlap]  # as above
    @overload
    def __call__(self, handler: Callable[P, Awaitable[R]], /) -> Actor[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> Actor[P, R]: ...
    def __call__(self, handler: Any, /) -> Any: ...
