"""The forms of unions: the type of a value is kept.

Where members have different kinds of JSON values, the kind tells them apart. Where it does not, as in
``datetime | str``, a value that JSON lacks travels with the name of its type: ``{"$type": …, "$value": …}``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fairactor._model.placeholder import TYPE, VALUE
from fairactor.errors import ConfigurationError

from .form import KIND_OF, NO_KINDS, NULL, OBJECT, Form, Misfit, expected
from .scalars import SCALARS


def optional_form(form: Form) -> Form:
    """Returns the form of a type or None; the type's own values are never null."""

    def to_json(value: Any) -> Any:
        return None if value is None else form.to_json(value)

    def from_json(value: Any) -> Any:
        return None if value is None else form.from_json(value)

    none = frozenset({type(None)})
    return Form(
        f"{form.name} | None", to_json, from_json, form.kinds | {NULL}, form.kind, form.sent_as_is | none,
        form.read_as_is | none, transparent=form.transparent, members=[form, SCALARS[type(None)]],
    )  # fmt: skip


def union_form(name: str, members: Sequence[Form]) -> Form:
    """Returns the form of a union.

    Raises:
        ConfigurationError: two members have the same name, so it could not tell their values apart.
    """
    return _Union(name, members).form


class _Union:
    def __init__(self, name: str, members: Sequence[Form]) -> None:
        self._name = name
        self._members = members
        self._tagged = {id(member) for member in members if _needs_tag(member, members)}
        self._by_tag = {member.name: member for member in members}
        self._plain = [member for member in members if id(member) not in self._tagged]
        self._order: dict[type, list[Form]] = {}
        if self._tagged:
            twice = [each for each, many in Counter(member.name for member in members).items() if many > 1]
            if twice:
                raise ConfigurationError(f"two types of the union {name} are named {twice[0]}, so it is ambiguous")
        kinds = frozenset().union(*(member.kinds for member in self._plain), {OBJECT} if self._tagged else ())
        transparent = all(member.transparent for member in members)
        sent_as_is, read_as_is = (
            NO_KINDS.union(*as_is) - {dict} if self._tagged else NO_KINDS.union(*as_is)
            for as_is in ([each.sent_as_is for each in self._plain], [each.read_as_is for each in self._plain])
        )
        self.form = Form(
            name, self._to_json, self._from_json, kinds, None, sent_as_is, read_as_is, transparent=transparent,
            members=members, tagged=self._with_names(),
        )  # fmt: skip

    def _with_names(self) -> frozenset[str]:
        """Returns the names of the members whose values travel with the name."""
        return frozenset(
            each.name for each in self._members if id(each) in self._tagged or (self._tagged and OBJECT in each.kinds)
        )

    def _to_json(self, value: Any) -> Any:
        member, packed = self._choose(value)
        if id(member) in self._tagged or (self._tagged and type(packed) is dict):
            return {TYPE: member.name, VALUE: packed}
        return packed

    def _choose(self, value: Any) -> tuple[Form, Any]:
        """Returns the member that a value belongs to, and its JSON form."""
        kind = type(value)
        order = self._order.get(kind)
        if order is None:
            order = self._order[kind] = _by_distance(self._members, kind)
        exact = [member for member in order if member.kind is kind]
        first: tuple[Form, Any] | None = None
        inner: Misfit | None = None
        for number, member in enumerate(order):
            if number == len(exact) and first is not None:
                return first
            try:
                packed = member.to_json(value)
            except Misfit as misfit:
                inner = inner or (misfit if len(exact) == 1 and member is exact[0] else None)
                continue
            if (number == 0 and len(exact) == 1) or _same(member.from_json(packed), value):
                return member, packed
            first = first or (member, packed)
        if first is not None:
            return first
        raise inner or expected(self._name, value)

    def _from_json(self, value: Any) -> Any:
        kind = KIND_OF.get(type(value))
        if self._tagged and kind == OBJECT and value.keys() == {TYPE, VALUE}:
            member = self._by_tag.get(value[TYPE])
            if member is None:
                raise Misfit(f"expected {self._name}, got a value of the type {value[TYPE]}")
            if value[VALUE] is None and NULL in self.form.kinds and NULL not in member.kinds:
                return None  # in place of the result of a step that did not finish
            return member.from_json(value[VALUE])
        misfit: Misfit | None = None
        tried = [each for each in self._plain if kind in each.kinds and not (self._tagged and kind == OBJECT)]
        for member in tried:
            try:
                return member.from_json(value)
            except Misfit as error:
                misfit = misfit or error
        return self._guess(value, [each for each in self._members if each not in tried], misfit)

    def _guess(self, value: Any, members: Sequence[Form], misfit: Misfit | None) -> Any:
        """Reads a value that was sent when the annotation was another one. It must fit exactly one of the types."""
        found = []
        for member in members:
            with suppress(Misfit):
                found.append(member.from_json(value))
        if len(found) == 1:
            return found[0]
        if found:
            raise Misfit(f"expected {self._name}, got a value that fits several of these types, and does not say which")
        raise misfit or expected(self._name, value)


def _needs_tag(member: Form, members: Sequence[Form]) -> bool:
    """Whether the kind of its JSON values does not tell a member from the others."""
    if member.transparent:
        return False
    return any(member.kinds & other.kinds for other in members if other is not member)


def _by_distance(members: Sequence[Form], kind: type) -> list[Form]:
    """Sorts the members: those whose class is that of a value come first, then its base classes, then the others."""
    bases = kind.__mro__
    return sorted(members, key=lambda member: bases.index(member.kind) if member.kind in bases else len(bases))


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and their parts of the same types."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(_same(*pair) for pair in zip(one.items(), other.items(), strict=True))
    if isinstance(one, list | tuple):
        return all(map(_same, one, other))
    if isinstance(one, set | frozenset):
        return Counter(map(type, one)) == Counter(map(type, other))
    fields = getattr(one, "__dict__", None)
    return fields is None or _same(fields, other.__dict__)
