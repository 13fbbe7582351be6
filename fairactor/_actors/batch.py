"""Batches: handlers that take a list for each argument, and run once for many calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, MutableSequence, Reversible, Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, get_args, get_origin

import attrs

from fairactor._util.checks import check_seconds, check_whole_number, shown, to_seconds
from fairactor._values.hints import UNIONS
from fairactor.errors import ConfigurationError

from .codec import Codec
from .retry import UnstorableResult

MOST: Final = 1000
"""The largest batch."""
WAIT: Final = 0.05
"""The seconds for which a batch is gathered, by default."""

_RESULT: Final = "its result"
_TAKES_LISTS: Final = (list, MutableSequence, Sequence, Reversible, Collection, Iterable)

Invoke = Callable[[Sequence[Any], Mapping[str, Any]], Any]


def _check_size(_: object, __: object, size: int) -> None:
    check_whole_number("batch", size, 1, MOST)


def _check_wait(_: object, __: object, wait: float) -> None:
    check_seconds("batch_wait", wait)


@attrs.frozen
class Batching:
    """How the calls of an actor are gathered.

    Raises:
        ConfigurationError: a value is invalid.
    """

    size: int = attrs.field(validator=_check_size)
    """The most calls in a batch."""
    wait: float = attrs.field(default=WAIT, validator=_check_wait)
    """The seconds after its first call that a batch waits for more."""


def read_batching(name: str, batch: int | None, wait: float | timedelta | None, *, process: bool) -> Batching | None:
    """Makes the batching of an actor from what its decorator was given; None for single calls.

    Raises:
        ConfigurationError: a value is invalid, or the actor runs in a process.
    """
    if batch is None:
        if wait is not None:
            raise ConfigurationError(
                f"{name}: batch_wait= is for actors with batch=, which says how many calls to gather"
            )
        return None
    if process:
        raise ConfigurationError(
            f"{name}: batch= does not work with process=True, because a process that dies would take all tasks of its "
            "batch with it: write it as a plain function, which runs in a thread, or call a process from it"
        )
    seconds = to_seconds(wait)
    return Batching(batch) if seconds is None else Batching(batch, seconds)


class BatchCodec(Codec):
    """Binds, encodes and decodes single calls of a handler that takes lists.

    Raises:
        ConfigurationError: the handler has a parameter that cannot take a list of what its calls pass.
    """

    def _read_signature(self, function: Callable[..., Any], *, method: bool) -> inspect.Signature:
        signature = super()._read_signature(function, method=method)
        parameters = list(signature.parameters.values())
        if not parameters:
            raise ConfigurationError(
                f"{self._name}(): a batch needs a parameter, which gets a list with an entry for each call"
            )
        for parameter in parameters:
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                raise ConfigurationError(
                    f"{self._name}(): {parameter}: a batch gets its lists by position, so *, ** and what follows them "
                    "cannot be used"
                )
            if parameter.default is not parameter.empty:
                raise ConfigurationError(
                    f"{self._name}(): {parameter.name} has a default, but a batch always gets a list for it: send an "
                    "object whose class has defaults instead"
                )
        return signature.replace(parameters=[each.replace(kind=each.POSITIONAL_ONLY) for each in parameters])

    def _of_call(self, hints: dict[str, Any]) -> dict[str, Any]:
        return {name: self._of_one(name, hint) for name, hint in hints.items()}

    def _of_one(self, name: str, hint: Any) -> Any:
        """Returns the annotation for a single call."""
        if name == "return":  # an exception may stand in place of a result
            return None if hint in (None, type(None)) else _without_exceptions(self._element(_RESULT, hint))
        return self._element(name, hint)

    def _element(self, name: str, hint: Any) -> Any:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        if hint in (Any, object, *_TAKES_LISTS):
            return Any
        args = get_args(hint)
        if get_origin(hint) is tuple and args[1:] == (...,) and name == _RESULT:
            return args[0]
        if get_origin(hint) not in _TAKES_LISTS or len(args) != 1:
            raise ConfigurationError(
                f"{self._name}(): {name} is annotated {shown(hint)}, but a batch has a list here, with an entry for "
                "each call: write list[…]"
            )
        return args[0]


def _without_exceptions(hint: Any) -> Any:
    """Returns the type of results without the exceptions that may stand in place of one."""
    kinds = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    left = [kind for kind in kinds if not (isinstance(kind, type) and issubclass(kind, BaseException))]
    if len(left) == len(kinds):
        return hint
    return reduce(or_, left) if left else None


def outcomes_of(name: str, result: Any, count: int) -> Sequence[Any]:
    """Returns what a handler has returned for each of its calls: a result or an exception.

    Raises:
        UnstorableResult: it did not return a list with an entry for each call.
    """
    if result is None:
        return [None] * count
    if not isinstance(result, Sequence) or isinstance(result, str | bytes | bytearray):
        found = shown(result)
    elif len(result) != count:
        found = f"{len(result)} outcomes"
    else:
        return result
    raise UnstorableResult(
        TypeError(
            f"{name}() returned {found} for a batch of {count}: return a list with one entry for each call, in order"
        )
    )


async def run_alone(name: str, invoke: Invoke, args: Sequence[Any]) -> Any:
    """Runs a handler with lists of one call, and returns its result or raises its exception."""
    try:
        [outcome] = outcomes_of(name, await invoke([[value] for value in args], {}), 1)
    except UnstorableResult as refused:
        raise refused.reason from None
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
