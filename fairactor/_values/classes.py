"""The forms of classes with fields: attrs, dataclasses, msgspec, named tuples, typed dicts, and models of pydantic."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final, get_origin, get_type_hints

import attrs
import msgspec

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

from .form import OBJECT, Form, Misfit, expected
from .hints import fields_of, without_qualifiers

FormOf = Callable[[Any], Form]
_OBJECT: Final = frozenset({OBJECT})
_UNSET: Final = object()  # an attribute that an instance does not have


@attrs.frozen
class Field:
    """A field of a class."""

    name: str
    """The name of the attribute."""
    key: str
    """Its key in JSON."""
    parameter: str
    """The name of its parameter in ``__init__``."""
    required: bool
    init: bool = True
    """Whether ``__init__`` takes it."""
    none: bool = False
    """Whether its default is None, so None fits whatever the annotation says."""
    type: Any = Any
    """The type, if there is no annotation."""


def fields_in(cls: type) -> Sequence[Field] | None:
    """Returns the fields of a class; None if it is not of a known kind."""
    if attrs.has(cls):
        return [
            Field(
                each.name, each.name, each.alias or each.name, required=each.default is attrs.NOTHING,
                init=each.init, none=each.default is None, type=Any if each.type is None else each.type,
            )
            for each in attrs.fields(cls)
        ]  # fmt: skip
    if dataclasses.is_dataclass(cls):
        return [
            Field(
                each.name, each.name, each.name, init=each.init, none=each.default is None,
                required=each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
            )
            for each in dataclasses.fields(cls)
        ]  # fmt: skip
    if issubclass(cls, msgspec.Struct):
        return [
            Field(each.name, each.encode_name, each.name, required=each.required, none=each.default is None)
            for each in msgspec.structs.fields(cls)
        ]
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        defaults: Mapping[str, Any] = getattr(cls, "_field_defaults", {})
        return [
            Field(each, each, each, required=each not in defaults, none=defaults.get(each, 0) is None)
            for each in getattr(cls, "_fields", ())
        ]
    return None


def class_form(form: Form, hint: Any, form_of: FormOf) -> None:
    """Completes the form of a class with fields.

    Raises:
        ConfigurationError: the class cannot be made of its fields.
    """
    cls = get_origin(hint) or hint
    fields = fields_in(cls)
    assert fields is not None  # noqa: S101 - the caller has looked
    types = fields_of(hint)
    parts = []
    for field in fields:
        annotation = without_qualifiers(types.get(field.name, field.type))
        try:
            part = form_of(annotation | None if field.none and annotation is not Any else annotation)
        except ConfigurationError as error:
            if not field.init:
                continue  # the class makes it itself
            raise ConfigurationError(f"{field.name}: {error}") from error
        except TypeError:  # the annotation does not know `|`
            part = form_of(annotation)
        parts.append((field, part))
    _check_makeable(cls, fields)
    form.kinds, form.kind = _OBJECT, cls
    form.to_json = _writer(cls, form.name, parts)
    form.from_json = _reader(cls, form.name, parts)


def _check_makeable(cls: type, fields: Sequence[Field]) -> None:
    known = {field.parameter for field in fields if field.init}
    for parameter in inspect.signature(cls).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and parameter.name not in known:
            raise ConfigurationError(f"{cls.__name__} takes {parameter.name}=, which is not one of its fields")


def _writer(cls: type, name: str, parts: Sequence[tuple[Field, Form]]) -> Callable[[Any], Any]:
    plan = [(field.key, part.sent_as_is, part) for field, part in parts]
    names = [field.name for field, _ in parts]
    fields = [field for field, _ in parts]
    get_all = attrgetter(*names) if len(names) > 1 else partial(_attributes, fields)  # of one name it gives no tuple

    def to_json(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            _check_subclass(cls, name, value)
        found: dict[str, Any] = {}
        key = ""
        try:
            children = get_all(value)
        except AttributeError:
            children = _attributes(fields, value)
        try:
            for (key, as_is, part), child in zip(plan, children, strict=True):
                if type(child) in as_is:
                    found[key] = child
                elif child is not _UNSET:
                    found[key] = part.to_json(child)
        except Misfit as misfit:
            raise misfit.at(f".{next(field.name for field in fields if field.key == key)}") from None
        return found

    return to_json


def _attributes(fields: Sequence[Field], value: Any) -> list[Any]:
    """Returns the attributes of an instance, in place of those that are not set a mark."""
    children = [getattr(value, field.name, _UNSET) for field in fields]
    for field, child in zip(fields, children, strict=True):
        if child is _UNSET and field.required:
            raise Misfit("it is not set").at(f".{field.name}")
    return children


def _check_subclass(cls: type, name: str, value: Any) -> None:
    if not isinstance(value, cls):
        raise expected(name, value)
    known = {field.name for field in fields_in(cls) or ()}
    further = [field.name for field in fields_in(type(value)) or () if field.name not in known]
    if further:
        raise Misfit(
            f"expected {name}, got {type(value).__name__}, whose field {further[0]} would be lost; annotate "
            f"the handler with {type(value).__name__}, too"
        )


def _reader(cls: type, name: str, parts: Sequence[tuple[Field, Form]]) -> Callable[[Any], Any]:
    keys = [field.key for field, _ in parts]
    in_order = issubclass(cls, tuple | msgspec.Struct)  # earlier versions wrote them as arrays
    plan = [(field, field.key, field.parameter, part.read_as_is, part) for field, part in parts if field.init]
    later = [(field.name, field.key, part) for field, part in parts if not field.init]

    def from_json(value: Any) -> Any:
        if type(value) is list and in_order:
            value = dict(zip(keys, value, strict=False))
        if type(value) is not dict:
            raise expected(name, value)
        arguments = {}
        for field, key, parameter, as_is, part in plan:
            if key in value:
                child = value[key]
                arguments[parameter] = child if type(child) in as_is else _read(field.name, part, child)
            elif field.required:
                raise Misfit(f"the field {field.name} is missing")
        attributes = [(each, _read(each, part, value[key])) for each, key, part in later if key in value]
        try:
            found = cls(**arguments)
            for attribute, child in attributes:
                object.__setattr__(found, attribute, child)
        except Exception as error:
            raise Misfit(f"{name} does not accept it: {type(error).__name__}: {error}") from error
        return found

    return from_json


def _read(name: str, part: Form, child: Any) -> Any:
    try:
        return part.from_json(child)
    except Misfit as misfit:
        raise misfit.at(f".{name}") from None


def typed_dict_form(form: Form, hint: Any, form_of: FormOf) -> None:  # noqa: C901 - three functions
    """Completes the form of a ``TypedDict``."""
    required = _required_keys(get_origin(hint) or hint)
    parts = {key: form_of(without_qualifiers(annotation)) for key, annotation in fields_of(hint).items()}

    def convert(value: Mapping[Any, Any], hook: str) -> dict[str, Any]:
        if missing := required.difference(value):
            raise Misfit(f"expected {form.name}, and the key {min(missing)!r} is missing")
        found = {}
        for key, part in parts.items():
            if key in value:
                try:
                    found[key] = getattr(part, hook)(value[key])
                except Misfit as misfit:
                    raise misfit.at(f"[{key!r}]") from None
        return found

    def to_json(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise expected(form.name, value)
        found = convert(value, "to_json")
        if len(found) < len(value):
            unknown = next(key for key in value if key not in parts)
            raise Misfit(f"expected {form.name}, which has no key {shown(unknown)}")
        return found

    def from_json(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(form.name, value)
        return convert(value, "from_json")  # keys that a newer version added are passed over

    form.kinds, form.kind = _OBJECT, dict
    form.to_json, form.from_json = to_json, from_json


def _required_keys(cls: Any) -> set[str]:
    """Returns the keys that a ``TypedDict`` must have. Python overlooks marks in annotations that are strings."""
    required = set(cls.__required_keys__)
    for key, annotation in get_type_hints(cls, include_extras=True).items():
        mark = getattr(get_origin(annotation), "_name", None)
        if mark == "NotRequired":
            required.discard(key)
        elif mark == "Required":
            required.add(key)
    return required


def is_pydantic_model(cls: Any) -> bool:
    """Whether a class is a model of pydantic. It does not import pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and inspect.isclass(cls) and issubclass(cls, pydantic.BaseModel)


def pydantic_form(cls: Any) -> Form:
    """Returns the form of a model of pydantic, which pydantic itself writes and reads."""
    name = cls.__name__
    by_name = {"by_alias": False, "by_name": True}

    def read(data: bytes) -> Any:
        return cls.model_validate_json(data, **by_name)

    def to_json(value: Any) -> Any:
        if not isinstance(value, cls):
            raise expected(name, value)
        if type(value) is not cls and (further := set(type(value).model_fields) - set(cls.model_fields)):
            raise Misfit(f"expected {name}, got {type(value).__name__}, whose field {min(further)} would be lost")
        try:
            written = value.model_dump_json(round_trip=True, by_alias=False, warnings="error").encode()
            there = read(written)
            same = _alike(dict(there), dict(value)) and _alike(there.__pydantic_private__, value.__pydantic_private__)
            data = msgspec.json.decode(written)
        except Exception as error:
            raise Misfit(f"pydantic cannot write and read {name} again: {_one_line(error)}") from error
        if not same:
            raise Misfit(f"{name} changes on its way through pydantic's JSON, as secrets and private fields do")
        return data

    def from_json(value: Any) -> Any:
        try:
            return read(msgspec.json.encode(value))
        except Exception as error:
            raise Misfit(f"{name} does not accept it: {_one_line(error)}") from error

    is_root = bool(getattr(cls, "__pydantic_root_model__", False))
    form = Form(name, to_json, from_json, kind=cls)
    if not is_root:
        form.kinds = _OBJECT
    return form


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are equal. Python says of moments in the hour that clocks repeat that they are not."""
    if type(one) is not type(other):
        return bool(one == other)
    if isinstance(one, dt.datetime):
        return bool(one == other) or bool(one.tzinfo and other.tzinfo and one.timestamp() == other.timestamp())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other) or (is_pydantic_model(type(one)) and _alike(dict(one), dict(other)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
