"""The decorator ``@actor``, which makes functions and methods actors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from fairactor._model.route import MOST_VERSIONS
from fairactor._util.checks import check_route_name, check_whole_number, shown
from fairactor.errors import ConfigurationError

from .actor import DEFAULTS, HOOKS, ActorMethod, AsyncActor, ClassDefaults, PlainActor, methods_of
from .batch import Batching, read_batching
from .batch_types import BatchDecorator
from .options import ActorOptions, Options, parse_options
from .plugin_options import OptionValue

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class ActorDecorator(Protocol):
    """The decorator that ``actor(...)`` with options returns."""

    # The first overlaps the third, because a class is callable too. The second is a special case of the third.
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
    *values: OptionValue,
    batch: int,
    batch_wait: float | timedelta = ...,
    name: str | None = None,
    version: int | None = None,
    **options: Unpack[ActorOptions],
) -> BatchDecorator: ...
@overload
def actor(
    *values: OptionValue,
    name: str | None = None,
    process: bool = False,
    version: int | None = None,
    **options: Unpack[ActorOptions],
) -> ActorDecorator: ...


def actor(
    *given: Any,
    name: str | None = None,
    process: bool = False,
    version: int | None = None,
    batch: int | None = None,
    batch_wait: float | timedelta | None = None,
    **options: Any,
) -> Any:
    """Makes a function or a method an actor. It can be used with or without arguments.

    An async function runs in the event loop, a plain one in a thread. On a class, the decorator sets a name and default
    options for the methods with ``@actor``. If the class has none, it makes all public methods actors.

    Args:
        given: the function, method or class. Or options of plugins that do not ship with fairactor, see
            `fairactor.plugins.Option`.
        name: the name under which messages refer to the actor. By default it is the name of the function, or of the
            class and the method as in ``Cart.add``. It does not include the module, so code can move to another module
            while tasks wait.
        process: run the function in a worker process, because it keeps a CPU busy. Another process must be able to
            import it, and ``if __name__ == "__main__"`` must guard the program's start, as for `multiprocessing`.
        version: the version of the handler's signature, 1 by default. Raise it when senders pass what the handler of
            the release before would refuse. Messages of a version are run by handlers of it and of later ones.
        batch: run the handler once for up to this many tasks of a tenant, 1,000 at most. It takes a list for each
            argument, and returns a list with the result of each task, or an exception in place of one.
        batch_wait: the seconds (or a timedelta) that a batch waits for more tasks after its first one; 0.05 by default.
        options: default options for the messages, see `Options`.

    Raises:
        ConfigurationError: an option is unknown or invalid, the handler cannot be an actor, or an annotation is
            ambiguous or of a type whose values cannot be sent. Names that are not defined yet are checked when a
            runtime is entered.
    """
    if "id" in options:
        raise ConfigurationError("id= belongs to a single message: give it with message.options(id=…)")
    if version is not None:
        check_whole_number("version", version, 1, MOST_VERSIONS)
    handlers = [each for each in given if not isinstance(each, OptionValue)]
    if not handlers:
        defaults = parse_options(options, given)
        batching = read_batching(name or "@actor", batch, batch_wait, process=process)
        return lambda handler: _decorate(handler, name, defaults, process=process, version=version, batching=batching)
    if len(given) > 1:
        raise ConfigurationError(f"@actor takes one handler, but got {len(given)} values")
    return _decorate(handlers[0], None, Options(), process=False, version=None, batching=None)


def _decorate(
    handler: Any,
    name: str | None,
    options: Options,
    *,
    process: bool,
    version: int | None,
    batching: Batching | None,
) -> Any:
    if not callable(handler):
        raise ConfigurationError(f"@actor cannot make an actor of {shown(handler)}: give a function or a class")
    if name is not None:
        check_route_name("actor name", name)
    if inspect.isclass(handler):
        if batching is not None:
            raise ConfigurationError(
                f"{name or handler.__name__}: batch= is for functions and methods, not for classes"
            )
        return _decorate_class(handler, name, options, process=process, version=version)
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
        return ActorMethod(handler, name, options, version, batching)
    kind = AsyncActor if inspect.iscoroutinefunction(handler) else PlainActor
    checked = name or check_route_name("actor name", own_name)  # type: ignore[arg-type]  # the check refuses None
    made: Any = kind(handler, checked, options, process=process, version=version or 1, batching=batching)
    made.codec.check_annotations()
    return made


def _check_returns(handler: Callable[..., Any], name: str | None) -> None:
    if inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise ConfigurationError(f"{name}: a generator has no single result; return a list instead")


def _decorate_class(
    cls: type[Any], name: str | None, options: Options, *, process: bool, version: int | None
) -> type[Any]:
    name = name or cls.__name__
    if process:
        raise ConfigurationError(f"{name}: process=True is for functions; a class keeps its state in this process")
    setattr(cls, DEFAULTS, ClassDefaults(name, options, version or 1))
    if not methods_of(cls):
        for method, value in inspect.getmembers_static(cls, inspect.isfunction):
            if not method.startswith("_") and method not in HOOKS:
                _check_returns(value, f"{name}.{method}")
                marked: ActorMethod[..., Any] = ActorMethod(value, None, Options())
                marked.__set_name__(cls, method)
                setattr(cls, method, marked)
    if not methods_of(cls):
        raise ConfigurationError(f"{name} has no public methods, so it cannot receive messages: give it one")
    return cls
