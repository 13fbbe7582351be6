"""A form: how the values of one type become JSON and come back unchanged. What does not fit is a `Misfit`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final

import attrs

from fairactor._model.placeholder import Placeholder
from fairactor._util.checks import shown

Hook = Callable[[Any], Any]

NULL: Final = "null"
BOOL: Final = "bool"
INT: Final = "int"
FLOAT: Final = "float"
STRING: Final = "string"
ARRAY: Final = "array"
OBJECT: Final = "object"
ANY_KIND: Final = frozenset({NULL, BOOL, INT, FLOAT, STRING, ARRAY, OBJECT})
"""The kinds of JSON values."""

NO_KINDS: Final[frozenset[type]] = frozenset()

_LONGEST: Final = 200  # characters of a path

KIND_OF: Final[dict[type, str]] = {
    type(None): NULL, bool: BOOL, int: INT, float: FLOAT, str: STRING, list: ARRAY, dict: OBJECT,
}  # fmt: skip
OF_JSON: Final = frozenset(KIND_OF)
"""The classes of JSON values."""


class Misfit(Exception):
    """A value does not fit its type. ``path`` leads from the argument to the value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def at(self, step: str) -> Misfit:
        """Adds a step at the beginning of the path."""
        path = step + self.path
        self.path = path if len(path) <= _LONGEST else f"{path[: _LONGEST // 2]}…{path[-_LONGEST // 2 + 1 :]}"
        return self


@attrs.define(eq=False)
class Form:
    """How the values of one type become JSON, and how they come back.

    It can change, because a recursive type contains itself: it is made first, and completed afterwards.
    """

    name: str
    """The type, for messages and tags."""
    to_json: Hook
    """Checks a value, and converts it to JSON types. Raises `Misfit`."""
    from_json: Hook
    """Checks a JSON value, and converts it to the type. Raises `Misfit`."""
    kinds: frozenset[str] = ANY_KIND
    """The kinds of JSON values that ``to_json`` returns."""
    kind: Any = None
    """The class of the values."""
    sent_as_is: frozenset[type] = NO_KINDS
    """Classes whose exact instances ``to_json`` would return unchanged."""
    read_as_is: frozenset[type] = NO_KINDS
    """Classes whose exact instances ``from_json`` would return unchanged."""
    transparent: bool = False
    """Whether values are the same in Python and in JSON."""
    members: Sequence[Form] = ()
    """The types of a union."""
    tagged: frozenset[str] = frozenset()
    """The names of the members whose values travel with that name."""
    items: Sequence[Form] = ()
    """The types of the items of a collection; of a dict those of its keys and values."""


def unknown(_: Any) -> Any:
    """Stands for the hooks of a form that is not complete yet."""
    raise AssertionError("the form is not complete")  # pragma: no cover - forms are used when they are complete


def expected(name: str, value: Any) -> Misfit:
    """Returns the misfit of a value that is not of a type."""
    if isinstance(value, Placeholder):
        return Misfit(value.way_out)
    if value is None or value is True or value is False:
        return Misfit(f"expected {name}, got {value}")
    return Misfit(f"expected {name}, got {type(value).__name__} {shown(value)}")


def converted(values: Iterable[Any], hook: Hook) -> list[Any]:
    """Applies a hook to each value; a misfit gets the index of its value as a step of the path."""
    found: list[Any] = []
    append = found.append
    try:
        for value in values:
            append(hook(value))
    except Misfit as misfit:
        raise misfit.at(f"[{len(found)}]") from None
    return found


def converted_pairs(pairs: Collection[tuple[Any, Any]], of_key: Hook, of_value: Hook) -> tuple[list[Any], list[Any]]:
    """Applies hooks to the keys and the values of a mapping; a misfit gets the key as a step of the path."""
    keys: list[Any] = []
    values: list[Any] = []
    try:
        for key, value in pairs:
            keys.append(of_key(key))
            values.append(of_value(value))
    except Misfit as misfit:
        key = shown(next(islice(pairs, len(values), None))[0])
        raise misfit.at(f".key({key})" if len(keys) == len(values) else f"[{key}]") from None
    return keys, values
