"""Arguments and results between Python and JSON, by the annotations of a handler.

cattrs knows the types, msgspec the JSON. Nothing is pickled, and nothing is imported by a name found in a payload.
"""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, get_type_hints

import attrs
import msgspec
from cattrs.errors import BaseValidationError
from cattrs.preconf.msgspec import make_converter
from cattrs.v import transform_error

from .errors import ConfigurationError, InvalidPayload, NotSerializable
from .later import Later
from .record import encode

Hook = Callable[[Any], Any]

converter: Final = make_converter(forbid_extra_keys=False)
"""The cattrs converter of all actors; register hooks on it for types of your own."""

_AS_THEY_ARE: Final = frozenset({type(None), Any, inspect.Parameter.empty, object, dict, list})


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    return value


converter.register_unstructure_hook(float, _finite)
for _type in (uuid.UUID, decimal.Decimal, dt.timedelta, dt.time):  # msgspec knows them, cattrs does not
    converter.register_structure_hook(_type, lambda value, to: msgspec.convert(value, to, strict=False))

_DEEPEST: Final = 100  # how far into a value the path to what cannot be encoded is looked for


@attrs.frozen
class _Slot:
    """How the values of one parameter are turned; a hook that is None leaves them as they are."""

    to_json: Hook | None
    from_json: Hook | None
    plain: type | None = None
    """A type of JSON itself: values of exactly this type need no hook."""


class Codec:
    """Binds, encodes and decodes the calls of one handler.

    Hooks are looked up once, at the first use: then every annotation can be resolved, also those written ahead.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, method: bool = False) -> None:
        self._name = name
        self._function = function
        signature = inspect.signature(function)
        if method:  # without self
            signature = signature.replace(parameters=list(signature.parameters.values())[1:])
        self._signature = signature
        parameters = list(signature.parameters.values())
        self._positional = [p.name for p in parameters if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self._required = sum(p.default is p.empty for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD)
        self._plain = all(p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
        self._by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self._others = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
        self._slots: dict[str, _Slot] | None = None
        self._in_order: list[_Slot] = []

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments, positional wherever that is possible.

        Raises:
            TypeError: they do not fit the handler's signature.
        """
        if self._plain and not kwargs and self._required <= len(args) <= len(self._positional):
            return args, kwargs
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}; it takes {self._signature}") from None
        return bound.args, bound.kwargs

    def arguments_to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as msgspec can encode them.

        Raises:
            NotSerializable: one has no JSON form; the message has the path to it.
        """
        self.look_up()
        if len(args) <= len(self._in_order) and not kwargs:
            turned = list(args)
            for index, value in enumerate(args):
                if self._in_order[index].to_json is not None:
                    turned[index] = self._turn(self._positional[index], value, to_json=True)
            return turned, {}
        return self._turn_all(args, kwargs, to_json=True)

    def arguments_from_json(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the handler's annotations want them; ``args`` may be changed in place.

        Raises:
            InvalidPayload: they do not fit the handler any more; the message says which and why.
        """
        self.look_up()
        if self._plain and not kwargs and self._required <= len(args) <= len(self._positional):
            for index, value in enumerate(args):
                slot = self._in_order[index]
                if slot.from_json is not None and type(value) is not slot.plain:
                    args[index] = self._turn(self._positional[index], value, to_json=False)
            return args, kwargs
        try:
            self.bind(tuple(args), kwargs)
        except TypeError as error:
            raise InvalidPayload(str(error)) from None
        return self._turn_all(args, kwargs, to_json=False)

    def result_to_json(self, value: Any) -> bytes:
        """The JSON of a result.

        Raises:
            NotSerializable: it has none; the message has the path to the value.
        """
        if value is None:
            return b"null"
        self.look_up()
        return dump(f"{self._name}() result", self._turn("return", value, to_json=True))

    def result_from_json(self, data: bytes | msgspec.Raw) -> Any:
        """A result as the handler's annotation wants it.

        Raises:
            InvalidPayload: it does not fit.
        """
        self.look_up()
        return self._turn("return", msgspec.json.decode(data), to_json=False)

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by the names of their parameters."""
        named = dict(zip(self._positional, args, strict=False))
        if len(args) > len(self._positional):
            named[self._rest] = args[len(self._positional) :]
        if others := {name: value for name, value in kwargs.items() if name not in self._by_name}:
            named[self._others] = others
        return named | {name: value for name, value in kwargs.items() if name in self._by_name}

    def look_up(self) -> None:
        """Looks the hooks up, once.

        Raises:
            ConfigurationError: an annotation cannot be resolved, or is of a type that nothing can make out of JSON.
        """
        if self._slots is None:
            try:
                hints = get_type_hints(self._function, include_extras=True)
            except Exception as error:
                raise ConfigurationError(
                    f"{self._name}(): an annotation cannot be resolved: {error}; define or import what it names at the "
                    "top level of its module, not under TYPE_CHECKING"
                ) from error
            slots = {name: self._slot(name, hint) for name, hint in hints.items()}
            self._in_order = [slots.get(name, _UNTYPED) for name in self._positional]
            self._slots = slots

    def _slot(self, name: str, hint: Any) -> _Slot:
        try:
            return _slot(hint)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): nothing knows how to make {name}: {hint!r} out of JSON ({error}); annotate it "
                "otherwise, or register hooks on fairactor.codec.converter"
            ) from error

    def _turn_all(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, to_json: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        parameters = chain(self._positional, repeat(self._rest))
        by_name = self._by_name
        return (
            [self._turn(name, value, to_json=to_json) for name, value in zip(parameters, args, strict=False)],
            {
                name: self._turn(name if name in by_name else self._others, value, to_json=to_json, name=name)
                for name, value in kwargs.items()
            },
        )

    def _turn(self, parameter: str, value: Any, *, to_json: bool, name: str = "") -> Any:
        """Turns a value by the hooks of a parameter; ``name`` is that of the argument, where it is another."""
        slot = (self._slots or {}).get(parameter, _UNTYPED)
        name = name or parameter
        hook = slot.to_json if to_json else slot.from_json
        if hook is None or (type(value) is slot.plain and not to_json):
            return value
        if isinstance(value, Later):
            return value
        try:
            return hook(value)
        except BaseValidationError as error:
            raise InvalidPayload(f"{self._name}(): {name}: {'; '.join(transform_error(error))}") from error
        except Exception as error:
            if to_json:
                what = f"{self._name}() result" if name == "return" else f"{self._name}() argument [{name!r}]"
                raise _without_form(what, value, error) from None
            raise InvalidPayload(f"{self._name}(): {name}={value!r:.80}: {error}") from error


def _slot(hint: Any) -> _Slot:
    if _untyped(hint):
        return _UNTYPED
    from_json = converter.get_structure_hook(hint)
    if hint in (int, str, float, bool):
        to_json = converter.unstructure if hint is float else None  # of these, only a float may have no JSON form
        return _Slot(to_json, lambda value: from_json(value, hint), plain=hint)
    return _Slot(converter.get_unstructure_hook(hint), lambda value: from_json(value, hint))


def _untyped(hint: Any) -> bool:
    try:
        return hint in _AS_THEY_ARE
    except TypeError:  # not hashable
        return False


_UNTYPED: Final = _Slot(converter.unstructure, None)


def dump(what: str, value: Any) -> bytes:
    """The JSON of a value.

    Raises:
        NotSerializable: it has none; the message names ``what`` and the path to the value.
    """
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _without_form(what, value, error) from None


def _without_form(what: str, value: Any, error: Exception) -> NotSerializable:
    path, culprit = _culprit(value)
    return NotSerializable(
        f"{what}{path} is a {type(culprit).__name__}, {culprit!r:.80}, which has no JSON form ({error}); annotate the "
        "handler with a type that cattrs knows, or register a hook on fairactor.codec.converter"
    )


def _culprit(value: Any, depth: int = 0) -> tuple[str, Any]:
    """The path to the innermost part that cannot be encoded, and that part."""
    children: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(f"[{key!r}]", child) for key, child in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        children = [(f"[{index}]", child) for index, child in enumerate(value)]
    for step, child in children:
        try:
            encode(converter.unstructure(child))
        except Exception:  # noqa: BLE001 - whatever it is, it is the one looked for
            if depth > _DEEPEST:
                break
            path, culprit = _culprit(child, depth + 1)
            return step + path, culprit
    return "", value
