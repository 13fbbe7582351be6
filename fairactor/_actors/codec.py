"""The codec of a handler: it binds arguments, and converts them and the result between Python and JSON types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, get_type_hints

from fairactor._model.placeholder import Placeholder
from fairactor.errors import ConfigurationError, InvalidPayload

if TYPE_CHECKING:
    import msgspec

    from .conversion import Slot


class Codec:
    """Binds, encodes and decodes the calls of one handler.

    It resolves the annotations at its first use, so these may name types that are defined later.
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
        self._var_positional = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self._var_keyword = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
        self._slots: dict[str, Slot] | None = None
        self._in_order: list[Slot] = []
        self._untyped: Slot
        self._conversion: Any

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Binds arguments to the signature; makes them positional wherever that is possible.

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
        """Converts arguments to values that msgspec can encode.

        Raises:
            NotSerializable: one has no JSON form; the message has the path to it.
        """
        self.look_up()
        if len(args) <= len(self._in_order) and not kwargs:
            converted = list(args)
            for index, value in enumerate(args):
                if self._in_order[index].to_json is not None:
                    converted[index] = self._to_json(self._positional[index], value)
            return converted, {}
        return self._convert_all(self._to_json, args, kwargs)

    def arguments_from_json(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Converts arguments to the types that the handler's annotations ask for; it may change ``args`` in place.

        Raises:
            InvalidPayload: they no longer fit the handler; the message says which, and why.
        """
        self.look_up()
        if self._plain and not kwargs and self._required <= len(args) <= len(self._positional):
            for index, value in enumerate(args):
                slot = self._in_order[index]
                if slot.from_json is not None and type(value) is not slot.plain:
                    args[index] = self._from_json(self._positional[index], value)
            return args, kwargs
        try:
            self.bind(tuple(args), kwargs)
        except TypeError as error:
            raise InvalidPayload(str(error)) from None
        return self._convert_all(self._from_json, args, kwargs)

    def result_to_json(self, value: Any) -> bytes:
        """Encodes a result as JSON.

        Raises:
            NotSerializable: it has no JSON form; the message has the path to the value.
        """
        if value is None:
            return b"null"
        self.look_up()
        encoded: bytes = self._conversion.encode_json(f"{self._name}() result", self._to_json("return", value))
        return encoded

    def result_from_json(self, data: bytes | msgspec.Raw) -> Any:
        """Decodes a result to the type that the handler's annotation promises.

        Raises:
            InvalidPayload: it does not fit.
        """
        self.look_up()
        return self._from_json("return", self._conversion.decode_json(data))

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments by the names of their parameters."""
        named = dict(zip(self._positional, args, strict=False))
        if len(args) > len(self._positional):
            named[self._var_positional] = args[len(self._positional) :]
        if others := {name: value for name, value in kwargs.items() if name not in self._by_name}:
            named[self._var_keyword] = others
        return named | {name: value for name, value in kwargs.items() if name in self._by_name}

    def look_up(self) -> None:
        """Resolves the annotations and finds their conversion hooks, once.

        Raises:
            ConfigurationError: an annotation cannot be resolved, or names a type that cannot be made from JSON.
        """
        if self._slots is not None:
            return
        from . import conversion  # slow to import

        self._conversion = conversion
        try:
            hints = get_type_hints(self._function, include_extras=True)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): an annotation cannot be resolved: {error}; define or import what it names at the "
                "top level of its module, not under TYPE_CHECKING"
            ) from error
        slots = {name: self._slot(name, hint) for name, hint in hints.items()}
        self._untyped = conversion.UNTYPED
        self._in_order = [slots.get(name, self._untyped) for name in self._positional]
        self._slots = slots

    def _slot(self, name: str, hint: Any) -> Slot:
        try:
            slot: Slot = self._conversion.slot_of(hint)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): cannot convert {name}: {hint!r} from JSON ({error}); use another annotation, or "
                "register hooks on fairactor.serialization.converter"
            ) from error
        return slot

    def _convert_all(
        self, convert: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        parameters = chain(self._positional, repeat(self._var_positional))
        return (
            [convert(name, value) for name, value in zip(parameters, args, strict=False)],
            {
                name: convert(name if name in self._by_name else self._var_keyword, value, name)
                for name, value in kwargs.items()
            },
        )

    def _to_json(self, parameter: str, value: Any, name: str = "") -> Any:
        """Converts a value to JSON types; ``name`` is the argument's name if it differs from the parameter's."""
        hook = self._slot_for(parameter).to_json
        if hook is None or isinstance(value, Placeholder):
            return value
        try:
            return hook(value)
        except Exception as error:  # noqa: BLE001 - a hook may raise anything
            name = name or parameter
            what = f"{self._name}() result" if name == "return" else f"{self._name}() argument [{name!r}]"
            raise self._conversion.not_serializable(what, value, error) from None

    def _from_json(self, parameter: str, value: Any, name: str = "") -> Any:
        """Converts a value from JSON types; ``name`` as in `_to_json`."""
        slot = self._slot_for(parameter)
        if slot.from_json is None or type(value) is slot.plain or isinstance(value, Placeholder):
            return value
        try:
            return slot.from_json(value)
        except Exception as error:
            misfit = self._conversion.describe_misfit(name or parameter, value, error)
            raise InvalidPayload(f"{self._name}(): {misfit}") from error

    def _slot_for(self, parameter: str) -> Slot:
        return (self._slots or {}).get(parameter, self._untyped)
