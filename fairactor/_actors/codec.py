"""The codec of a handler: binds arguments, and converts them and the result between Python and JSON types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Unpack, get_args, get_origin, get_type_hints
from zlib import crc32

from fairactor._model.placeholder import Placeholder
from fairactor._values.hints import is_of_builtins
from fairactor.errors import ConfigurationError, InvalidPayload, PayloadTooLarge

if TYPE_CHECKING:
    import msgspec

    from fairactor._values.form import Form

_RESULT = "return"


def check_result_size(actor: str, encoded: bytes, limit: float) -> None:
    """Checks that an encoded result is not too large.

    Raises:
        PayloadTooLarge: it is.
    """
    if len(encoded) > limit:
        raise PayloadTooLarge(
            f"{actor}() result: {len(encoded)} bytes, the limit is {limit:.0f} (max_payload=); store it elsewhere and "
            "return a reference"
        )


class Codec:
    """Binds, encodes and decodes the calls of one handler.

    The annotations may name types that are defined later: it converts nothing before it is first used.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, method: bool = False) -> None:
        self._name = name
        self._function = function
        signature = self._signature = self._read_signature(function, method=method)
        parameters = list(signature.parameters.values())
        self._positional = [p.name for p in parameters if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self._plain = all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
        required = {p.name for p in parameters if p.default is p.empty}
        self._needed = [required.difference(self._positional[:given]) for given in range(len(self._positional) + 1)]
        """The required parameters that are left after so many arguments by position."""
        self._counts = {given for given, needed in enumerate(self._needed) if self._plain and not needed}
        """The numbers of arguments by position that are enough."""
        self._by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._var_positional = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self._var_keyword = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
        self._further: set[str] = set()  # the names in `**named: Unpack[Options]`
        self._forms: dict[str, Form] | None = None
        self._in_order: list[Form] = []
        self._sent_as_is: list[frozenset[type]] = []
        self._read_as_is: list[frozenset[type]] = []
        self._result: Form
        self._untyped: Form
        self._module: Any  # `conversion`, once it is imported

    @property
    def signature(self) -> str:
        """A short text that differs if the parameters, or their annotations, do."""
        parameters = [
            (p.name, p.kind.value, p.default is not p.empty, str(p.annotation))
            for p in self._signature.parameters.values()
        ]
        return f"{crc32(repr(parameters).encode()):08x}"

    def _read_signature(self, function: Callable[..., Any], *, method: bool) -> inspect.Signature:
        """Returns the signature of a call."""
        signature = inspect.signature(function)
        if not method:
            return signature
        return signature.replace(parameters=list(signature.parameters.values())[1:])  # without self

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Checks that arguments fit the signature. They stay as they were given: by position or by name.

        Raises:
            TypeError: they do not fit the handler's signature.
        """
        if not self._fits(args, kwargs):
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._name}(): {error}; it takes {self._signature}") from None
        return args, kwargs

    def _fits(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether arguments fit a handler without ``*args`` and the like. `inspect.Signature.bind` is slow."""
        given = len(args)
        if not kwargs:
            return given in self._counts
        if not self._plain or given > len(self._positional):
            return False
        names = kwargs.keys()
        return names <= self._by_name and self._needed[given] <= names and names.isdisjoint(self._positional[:given])

    def arguments_to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Checks arguments, and converts them to values that msgspec can encode.

        Raises:
            NotSerializable: an argument does not fit its annotation, or has no JSON form; the message has the path to
                the value.
        """
        if self._forms is None:
            self.look_up()
        if kwargs or len(args) > len(self._in_order):
            return self._convert_all(self._to_json, args, kwargs)
        converted = list(args)
        as_is = self._sent_as_is
        for index, value in enumerate(args):
            if type(value) not in as_is[index]:
                converted[index] = self._to_json(self._in_order[index], self._positional[index], value)
        return converted, {}

    def arguments_from_json(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Converts arguments to the types of the handler's annotations; may change ``args`` in place.

        Raises:
            InvalidPayload: an argument does not fit the handler; the message says which one, and why.
        """
        if self._forms is None:
            self.look_up()
        if not kwargs and len(args) in self._counts:
            as_is = self._read_as_is
            for index, value in enumerate(args):
                if type(value) not in as_is[index]:
                    args[index] = self._from_json(self._in_order[index], self._positional[index], value)
            return args, kwargs
        try:
            self.bind(tuple(args), kwargs)
        except TypeError as error:
            raise InvalidPayload(str(error)) from None
        return self._convert_all(self._from_json, args, kwargs)

    def as_sent(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Returns arguments as the handler would receive them if they were sent; raises as if they were."""
        packed = self.arguments_to_json(args, kwargs)
        self._module.check_encodable(self._name, self.named(*packed))
        return self.arguments_from_json(*self._module.decode_json(self._module.encode_plain(self._name, packed)))

    def result_to_json(self, value: Any) -> bytes:
        """Checks a result, and encodes it as JSON.

        Raises:
            NotSerializable: it does not fit the annotation, or has no JSON form; the message has the path to the value.
        """
        if self._forms is None:
            self.look_up()
        if type(value) not in self._result.sent_as_is:
            value = self._to_json(self._result, _RESULT, value)
        elif value is None:
            return b"null"
        encoded: bytes = self._module.encode_plain(self._what(_RESULT), value)
        return encoded

    def result_from_json(self, data: bytes | msgspec.Raw) -> Any:
        """Decodes a result to the type of the handler's annotation.

        Raises:
            InvalidPayload: it does not fit the annotation, or cannot be decoded.
        """
        if self._forms is None:
            self.look_up()
        value = self._module.decode_json(data)
        return value if type(value) in self._result.read_as_is else self._from_json(self._result, _RESULT, value)

    def tag_for(self, results: Sequence[Codec], parameter: int | str, *, many: bool = False) -> str | None:
        """Returns the name of the type that a result of another actor needs to travel with, as an argument of this one.

        Args:
            results: the codecs of the actors that return it.
            parameter: the number of the argument, or its name.
            many: whether the argument is the list of their results.

        Raises:
            ConfigurationError: it would arrive as another type.
        """
        for codec in (self, *results):
            codec.look_up()
        found = [codec._result for codec in results]  # noqa: SLF001 - of the same class
        if isinstance(parameter, str):
            name, form = parameter, self._form_by_name(parameter)
        else:
            name = self._positional[parameter] if parameter < len(self._positional) else self._var_positional
            form = self._form_of(name)
        try:
            tag: str | None = self._module.check_many(found, form) if many else self._module.tag_for(found[0], form)
        except self._module.Misfit as misfit:
            raise ConfigurationError(f"{self._what(name)}: {misfit.reason}") from None
        return tag

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments by the names of their parameters."""
        named = dict(zip(self._positional, args, strict=False))
        if len(args) > len(self._positional):
            named[self._var_positional] = args[len(self._positional) :]
        if others := {name: value for name, value in kwargs.items() if name not in self._by_name}:
            named[self._var_keyword] = others
        return named | {name: value for name, value in kwargs.items() if name in self._by_name}

    def check_annotations(self) -> None:
        """Checks the annotations as far as their names are defined by now; `look_up` checks the others.

        Raises:
            ConfigurationError: values of a type cannot be converted from JSON, or a union is ambiguous.
        """
        try:
            found = self._hints()
        except Exception:  # noqa: BLE001 - an annotation may be any expression
            return
        hints = {name: hint for name, hint in self._of_call(found).items() if not is_of_builtins(hint)}
        if not hints:
            return
        from . import conversion  # slow to import

        self._module = conversion
        for name, hint in hints.items():
            try:
                self._find_form(name, hint)
            except ConfigurationError as error:
                if isinstance(error.__cause__, ConfigurationError):  # otherwise a field names a later class
                    raise

    def _hints(self) -> dict[str, Any]:
        hints = get_type_hints(self._function, include_extras=True)
        if get_origin(hints.get(self._var_keyword)) is Unpack:  # `**named: Unpack[Options]`
            further = get_type_hints(*get_args(hints.pop(self._var_keyword)))
            self._further = set(further)
            hints |= further
        return hints

    def _of_call(self, hints: dict[str, Any]) -> dict[str, Any]:
        """Returns the annotations of a single call, of those of the handler."""
        return hints

    def look_up(self) -> None:
        """Resolves the annotations and finds the forms of their values, once.

        Raises:
            ConfigurationError: an annotation cannot be resolved, or its type cannot be converted from JSON.
        """
        if self._forms is not None:
            return
        from . import conversion  # slow to import

        self._module = conversion
        try:
            hints = self._hints()
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): an annotation cannot be resolved: {error}; define or import its type at the top "
                "level of the module, not under TYPE_CHECKING"
            ) from error
        forms = {name: self._find_form(name, hint) for name, hint in self._of_call(hints).items()}
        self._untyped = conversion.UNTYPED
        self._result = forms.get(_RESULT, self._untyped)
        self._in_order = [forms.get(name, self._untyped) for name in self._positional]
        self._sent_as_is = [form.sent_as_is for form in self._in_order]
        self._read_as_is = [form.read_as_is for form in self._in_order]
        self._forms = forms

    def _find_form(self, name: str, hint: Any) -> Form:
        parameter = self._signature.parameters.get(name)
        try:
            if parameter is not None and parameter.default is None:  # it stands for `… | None`
                hint = hint | None
        except TypeError:
            pass  # a string, say, that is no type
        try:
            form: Form = self._module.form_of(hint)
        except Exception as error:
            raise ConfigurationError(
                f"{self._name}(): cannot convert {name}: {hint!r} from JSON ({error}); use another annotation, or "
                "register hooks on fairactor.serialization.converter before the actor is defined"
            ) from error
        return form

    def _convert_all(
        self, convert: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        parameters = chain(self._positional, repeat(self._var_positional))
        first_of_rest = len(self._positional)
        return (
            [
                convert(
                    self._form_of(name), name if number < first_of_rest else f"{name}[{number - first_of_rest}]", value
                )
                for number, (name, value) in enumerate(zip(parameters, args, strict=False))
            ],
            {name: convert(self._form_by_name(name), name, value) for name, value in kwargs.items()},
        )

    def _to_json(self, form: Form, name: str, value: Any) -> Any:
        """Converts a value to JSON types; ``name`` is that of its parameter, or says that it is the result."""
        if isinstance(value, Placeholder):
            return value
        try:
            return form.to_json(value)
        except Exception as error:  # noqa: BLE001 - the value's own code may raise anything
            raise self._module.not_serializable(self._what(name), value, error) from None

    def _from_json(self, form: Form, name: str, value: Any) -> Any:
        """Converts a value from JSON types; ``name`` as in `_to_json`."""
        if isinstance(value, Placeholder):
            return value
        try:
            return form.from_json(value)
        except self._module.Misfit as misfit:
            raise InvalidPayload(f"{self._what(name)}{misfit.path}: {misfit.reason}") from misfit
        except Exception as error:
            raise InvalidPayload(f"{self._what(name)}: {error}") from error

    def _what(self, name: str) -> str:
        return f"{self._name}() result" if name == _RESULT else f"{self._name}(): {name}"

    def _form_of(self, parameter: str) -> Form:
        return (self._forms or {}).get(parameter, self._untyped)

    def _form_by_name(self, name: str) -> Form:
        """Returns the form of an argument that was passed by name."""
        forms = self._forms or {}
        if name in self._by_name:
            return forms.get(name, self._untyped)
        return forms.get(name if name in self._further else self._var_keyword, self._untyped)
