"""The codec of a handler: binds arguments, and converts them and the result between Python and JSON types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, get_type_hints

from fairactor._model.placeholder import Placeholder
from fairactor.errors import ConfigurationError, InvalidPayload

if TYPE_CHECKING:
    import msgspec

    from .conversion import Conversion


class Codec:
    """Binds, encodes and decodes the calls of one handler.

    It resolves the annotations when it is first used, so these may name types that are defined later.
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
        self._by_parameter: dict[str, Conversion] | None = None
        self._in_order: list[Conversion] = []
        self._untyped: Conversion
        self._module: Any  # `conversion`, once it is imported

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Binds arguments to the signature, and makes them positional where possible.

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
            NotSerializable: an argument cannot be encoded as JSON; the message has the path to the value.
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
        """Converts arguments to the types of the handler's annotations; may change ``args`` in place.

        Raises:
            InvalidPayload: an argument does not fit the handler; the message says which one, and why.
        """
        self.look_up()
        if self._plain and not kwargs and self._required <= len(args) <= len(self._positional):
            for index, value in enumerate(args):
                conversion = self._in_order[index]
                if conversion.from_json is not None and type(value) is not conversion.plain:
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
            NotSerializable: it cannot be encoded as JSON; the message has the path to the value.
        """
        if value is None:
            return b"null"
        self.look_up()
        encoded: bytes = self._module.encode_json(f"{self._name}() result", self._to_json("return", value))
        return encoded

    def result_from_json(self, data: bytes | msgspec.Raw) -> Any:
        """Decodes a result to the type of the handler's annotation.

        Raises:
            InvalidPayload: it does not fit the annotation, or cannot be decoded.
        """
        self.look_up()
        return self._from_json("return", self._module.decode_json(data))

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
            ConfigurationError: an annotation cannot be resolved, or its type cannot be converted from JSON.
        """
        if self._by_parameter is not None:
            return
        from . import conversion  # slow to import

        self._module = conversion
        try:
            hints = get_type_hints(self._function, include_extras=True)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): an annotation cannot be resolved: {error}; define or import its type at the top "
                "level of the module, not under TYPE_CHECKING"
            ) from error
        by_parameter = {name: self._conversion_of(name, hint) for name, hint in hints.items()}
        self._untyped = conversion.UNTYPED
        self._in_order = [by_parameter.get(name, self._untyped) for name in self._positional]
        self._by_parameter = by_parameter

    def _conversion_of(self, name: str, hint: Any) -> Conversion:
        try:
            found: Conversion = self._module.conversion_for(hint)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): cannot convert {name}: {hint!r} from JSON ({error}); use another annotation, or "
                "register hooks on fairactor.serialization.converter"
            ) from error
        return found

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
        hook = self._conversion_for(parameter).to_json
        if hook is None or isinstance(value, Placeholder):
            return value
        try:
            return hook(value)
        except Exception as error:  # noqa: BLE001 - a hook may raise anything
            name = name or parameter
            what = f"{self._name}() result" if name == "return" else f"{self._name}() argument [{name!r}]"
            raise self._module.not_serializable(what, value, error) from None

    def _from_json(self, parameter: str, value: Any, name: str = "") -> Any:
        """Converts a value from JSON types; ``name`` as in `_to_json`."""
        conversion = self._conversion_for(parameter)
        if conversion.from_json is None or type(value) is conversion.plain or isinstance(value, Placeholder):
            return value
        try:
            return conversion.from_json(value)
        except Exception as error:
            misfit = self._module.describe_misfit(name or parameter, value, error)
            raise InvalidPayload(f"{self._name}(): {misfit}") from error

    def _conversion_for(self, parameter: str) -> Conversion:
        return (self._by_parameter or {}).get(parameter, self._untyped)
