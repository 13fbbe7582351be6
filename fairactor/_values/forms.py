"""Finds the form of each type: hooks that the user has registered, then our own forms, then those of cattrs."""

from __future__ import annotations

import collections
import enum
import inspect
import threading
import typing
from collections import abc
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, Final, Literal, get_args, get_origin

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

from . import containers
from .choices import enum_form, literal_form
from .classes import class_form, fields_in, is_pydantic_model, pydantic_form, typed_dict_form
from .converter import converter
from .form import ANY_KIND, NULL, Form, Misfit, converted, converted_pairs, unknown
from .hints import UNIONS, unwrapped
from .scalars import SCALARS, TEXTS, scalar_base, subclass_form
from .unions import optional_form, union_form
from .untyped import UNTYPED, check_untyped

_found: Final[dict[Any, Form]] = {}
"""The forms by type. Recursive types find themselves here."""
_looking: Final = threading.RLock()
converter.changed = _found.clear

_UNTYPED: Final = (Any, object, inspect.Parameter.empty)
_LISTS: Final = (list, abc.MutableSequence)
_LISTS_OR_TUPLES: Final = (abc.Sequence, abc.Iterable, abc.Collection, abc.Reversible, abc.Container)
_DICTS: Final = (dict, abc.Mapping, abc.MutableMapping)


def form_of(hint: Any) -> Form:
    """Returns the form of values with an annotation.

    Raises:
        ConfigurationError: such values cannot be converted, or a union is ambiguous.
    """
    with _looking:
        try:
            return _form_of(hint)
        except Exception:
            _found.clear()  # some forms may be incomplete
            raise


def _form_of(hint: Any) -> Form:
    hint = type(None) if hint is None else hint
    try:
        known = _found.get(hint)
    except TypeError:  # metadata that cannot be hashed
        return _make(hint)
    if known is None:
        known = _make(hint)
        _found[hint] = known
    return known


def _make(hint: Any) -> Form:  # noqa: PLR0911 - one for each kind
    if converter.has_hook(hint):
        return _of_cattrs(hint)
    inner = unwrapped(hint)
    if inner is not hint:
        return _of_alias(hint, inner)
    if any(hint is each for each in _UNTYPED):
        return UNTYPED
    if hint in (typing.NoReturn, typing.Never):
        return SCALARS[type(None)]
    if inspect.isclass(hint) and hint in SCALARS | TEXTS:
        return (SCALARS | TEXTS)[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return _of_union(hint, arguments)
    if origin is Literal:
        return literal_form(name_of(hint), arguments)
    return _of_collection(hint, origin or hint, arguments) or _of_class(hint, origin or hint) or _of_cattrs(hint)


def _of_alias(hint: Any, inner: Any) -> Form:
    shell = Form(name_of(hint), unknown, unknown)
    try:
        _found[hint] = shell  # `type Json = dict[str, Json] | …`
    except TypeError:
        return _form_of(inner)
    form = _form_of(inner)
    for each in attrs.fields(Form)[1:]:  # all but the name
        setattr(shell, each.name, getattr(form, each.name))
    return form


def _of_union(hint: Any, arguments: tuple[Any, ...]) -> Form:
    forms = [_form_of(each) for each in _flattened(arguments)]
    of_none = SCALARS[type(None)]
    others = [form for form in forms if form is not of_none]
    if len(others) == 1 and len(forms) > 1 and (NULL not in others[0].kinds or others[0] is UNTYPED):
        return UNTYPED if others[0] is UNTYPED else optional_form(others[0])
    return union_form(name_of(hint), forms)


def _flattened(arguments: tuple[Any, ...]) -> list[Any]:
    """Returns the members of a union, and of the unions among them, once each.

    Aliases are replaced by what they stand for, so it does not matter in which order recursive ones are looked up.
    """
    found: list[Any] = []
    for each in arguments:
        inner = each
        while not converter.has_hook(inner) and (further := unwrapped(inner)) is not inner:
            inner = further
        is_union = get_origin(inner) in UNIONS and not converter.has_hook(inner)
        found += [form for form in (_flattened(get_args(inner)) if is_union else [inner]) if form not in found]
    return found


def _of_collection(hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Form | None:  # noqa: PLR0911 - likewise
    name = name_of(hint)
    first = arguments[0] if arguments else Any
    if origin is tuple:
        return _of_tuple(name, arguments)
    if origin in _LISTS:
        return containers.items_form(name, list, _form_of(first), list, containers.is_sequence)
    if origin in _LISTS_OR_TUPLES:
        item = _form_of(first)
        as_list = containers.items_form(f"list[{item.name}]", list, item, list, containers.is_sequence)
        return union_form(name, [as_list, containers.items_form(f"tuple[{item.name}, ...]", tuple, item, tuple)])
    if origin is collections.deque:
        return containers.items_form(name, origin, _form_of(first), origin, containers.is_unbounded)
    if origin in (set, frozenset):
        return containers.items_form(name, origin, _form_of(first), origin)
    if origin in (abc.Set, abc.MutableSet):
        make = set if origin is abc.MutableSet else frozenset
        return containers.items_form(name, make, _form_of(first), make, containers.is_set)
    return _of_mapping(name, origin, arguments)


def _of_tuple(name: str, arguments: tuple[Any, ...]) -> Form:
    if not arguments and name not in ("tuple[()]", "Tuple[()]"):
        return containers.items_form(name, tuple, UNTYPED, tuple)
    if len(arguments) == 2 and arguments[1] is ...:  # noqa: PLR2004 - tuple[int, ...]
        return containers.items_form(name, tuple, _form_of(arguments[0]), tuple)
    return containers.tuple_form(name, [_form_of(each) for each in arguments if each != ()])


def _of_mapping(name: str, origin: Any, arguments: tuple[Any, ...]) -> Form | None:
    if origin is collections.Counter:
        key = _form_of(arguments[0] if arguments else Any)
        return containers.mapping_form(name, origin, key, SCALARS[int], origin)
    if origin not in (*_DICTS, collections.OrderedDict, collections.defaultdict):
        return None
    key, item = (_form_of(each) for each in arguments or (Any, Any))
    if origin in _DICTS:
        return containers.mapping_form(name, dict, key, item, None)
    if origin is collections.OrderedDict:
        return containers.mapping_form(name, origin, key, item, origin, origin)
    of_missing = get_origin(arguments[1]) or arguments[1] if arguments else None
    factory = of_missing if callable(of_missing) else None

    def make(value: dict[Any, Any]) -> Any:
        return collections.defaultdict(factory, value)

    return containers.mapping_form(name, origin, key, item, make, origin)


def _of_class(hint: Any, cls: Any) -> Form | None:
    if not inspect.isclass(cls):
        return None
    if issubclass(cls, enum.Enum):
        return enum_form(cls)
    if is_pydantic_model(cls):
        return pydantic_form(cls)
    complete: Callable[[Form, Any, Callable[[Any], Form]], None] | None = None
    if typing.is_typeddict(cls) or hasattr(cls, "__required_keys__"):
        complete = typed_dict_form
    elif fields_in(cls) is not None:
        complete = class_form
    if complete is not None:
        form = _found[hint] = Form(name_of(hint), unknown, unknown, frozenset({"object"}), cls)
        complete(form, hint, _form_of)
        return form
    base = scalar_base(cls)
    return None if base is None else subclass_form(cls, base)


def _of_cattrs(hint: Any) -> Form:
    """Returns the form of a type for which hooks were registered, or that only cattrs knows."""
    name = name_of(hint)
    try:
        structure = converter.get_structure_hook(hint)
        unstructure = converter.get_unstructure_hook(hint)
    except Exception as error:
        raise ConfigurationError(f"{name} cannot be converted from JSON ({' '.join(str(error).split())})") from error

    def to_json(value: Any) -> Any:
        try:
            found = unstructure(value)
        except Exception as error:
            raise Misfit(f"expected {name}, got {shown(value)} ({type(error).__name__}: {error})") from error
        if found is None and value is not None:
            raise Misfit(f"expected {name}, and the hook for it returned None")
        return found

    def from_json(value: Any) -> Any:
        try:
            return structure(value, hint)
        except Exception as error:
            raise Misfit(f"expected {name}, got {shown(value)} ({type(error).__name__}: {error})") from error

    return Form(name, to_json, from_json, ANY_KIND - {NULL}, hint if inspect.isclass(hint) else None)


def name_of(hint: Any) -> str:
    """Returns a type as users write it, without its module."""
    if hint is None or hint is type(None):
        return "None"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return " | ".join(map(name_of, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    name = str(getattr(origin or hint, "__name__", None) or str(hint).removeprefix("typing."))
    if not arguments or origin is typing.Annotated:
        return name_of(hint.__origin__) if origin is typing.Annotated else name
    return f"{name}[{', '.join('...' if each is ... else name_of(each) for each in arguments)}]"


def to_json_by_class(value: Any) -> Any:
    """Converts a value to JSON types by its own class, where there is no annotation.

    Raises:
        Misfit: it has no JSON form.
    """
    kind = type(value)
    if kind in SCALARS:
        return check_untyped(value)
    if kind in (list, tuple, set, frozenset):
        return converted(value, to_json_by_class)
    if isinstance(value, Mapping) and not converter.has_hook(kind):
        written = form_of(GenericAlias(dict, (_class_of_keys(value), Any))).to_json(dict.fromkeys(value))
        _, children = converted_pairs(value.items(), lambda key: key, to_json_by_class)
        pairs = zip(written if type(written) is dict else (key for key, _ in written), children, strict=True)
        return dict(pairs) if type(written) is dict else list(pairs)
    try:
        form = form_of(kind)
    except ConfigurationError as error:
        advice = "register a hook for it on fairactor.serialization.converter"
        raise Misfit(f"{shown(value)} is a {kind.__name__}, which has no JSON form ({error}); {advice}") from error
    return form.to_json(value)


def _class_of_keys(value: Mapping[Any, Any]) -> Any:
    kinds = {type(key) for key in value}
    return kinds.pop() if len(kinds) == 1 else Any
