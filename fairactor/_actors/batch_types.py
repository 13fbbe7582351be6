"""What type checkers know of handlers that take lists: the types of a single call.

Parameters have one list each. A handler may have more than three; checkers refuse it, so that none is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from .actor import Actor
from .retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

# Named one by one, so that checkers take each of them off the type of the results.
_Outcomes = Sequence[R | Retry | Exception | BaseException]
_Returns = Coroutine[Any, Any, _Outcomes[R]] | _Outcomes[R]
_ReturnsNone = Coroutine[Any, Any, None] | None


class BatchMethod(Generic[P, R_co]):
    """The type of a method with ``@actor(batch=…)``: an actor on the class, and the method itself on an instance."""

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Actor[P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        raise NotImplementedError  # only a type


class BatchDecorator(Protocol):
    """The decorator that ``actor(batch=…)`` returns. A parameter that takes no list is that of the instance."""

    @overload
    def __call__(self, handler: Callable[[list[A]], _ReturnsNone], /) -> Actor[[A], None]: ...
    @overload
    def __call__(self, handler: Callable[[list[A]], _Returns[R]], /) -> Actor[[A], R]: ...
    @overload
    def __call__(self, handler: Callable[[list[A], list[B]], _ReturnsNone], /) -> Actor[[A, B], None]: ...
    @overload
    def __call__(self, handler: Callable[[list[A], list[B]], _Returns[R]], /) -> Actor[[A, B], R]: ...
    @overload
    def __call__(self, handler: Callable[[list[A], list[B], list[C]], _ReturnsNone], /) -> Actor[[A, B, C], None]: ...
    @overload
    def __call__(self, handler: Callable[[list[A], list[B], list[C]], _Returns[R]], /) -> Actor[[A, B, C], R]: ...
    @overload
    def __call__(self, handler: Callable[[S, list[A]], _ReturnsNone], /) -> BatchMethod[[A], None]: ...
    @overload
    def __call__(self, handler: Callable[[S, list[A]], _Returns[R]], /) -> BatchMethod[[A], R]: ...
    @overload
    def __call__(self, handler: Callable[[S, list[A], list[B]], _ReturnsNone], /) -> BatchMethod[[A, B], None]: ...
    @overload
    def __call__(self, handler: Callable[[S, list[A], list[B]], _Returns[R]], /) -> BatchMethod[[A, B], R]: ...
    @overload
    def __call__(
        self, handler: Callable[[S, list[A], list[B], list[C]], _ReturnsNone], /
    ) -> BatchMethod[[A, B, C], None]: ...
    @overload
    def __call__(
        self, handler: Callable[[S, list[A], list[B], list[C]], _Returns[R]], /
    ) -> BatchMethod[[A, B, C], R]: ...
