"""Whether a result arrives as what it is if it becomes an argument. It travels as JSON, in the form of its own type."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from .form import Form, Misfit
from .scalars import TEXTS
from .untyped import UNTYPED


def tag_for(result: Form, wanted: Form) -> str | None:
    """Returns the name that a result needs to travel with to arrive as a parameter, None for no name.

    Raises:
        Misfit: it would arrive as another type.
    """
    if result is wanted or result is UNTYPED:
        return None
    if result.members:
        _check_members(result, wanted)
        return None
    if not wanted.members:
        _check(result, wanted)
        return None
    member = _find(result, wanted.members)
    if member is None:
        if result.transparent:
            return None  # what arrives says what it is, and is refused if it does not fit
        raise _misfit(result, wanted)
    return member.name if member.name in wanted.tagged else None


def check_many(results: Sequence[Form], wanted: Form) -> str | None:
    """Does the same for a list of results."""
    if wanted.members:
        for member in wanted.members:
            if member.kind is list:
                check_many(results, member)
                return member.name if member.name in wanted.tagged else None
        return None
    for number, result in enumerate(results):
        fixed = wanted.kind is tuple and len(wanted.items) == len(results)
        item = UNTYPED if wanted is UNTYPED or not wanted.items else wanted.items[number if fixed else -1]
        if tag_for(result, item) is not None:
            raise _misfit(result, item)
    return None


def _check_members(result: Form, wanted: Form) -> None:
    """Checks that the values of a union say what they are as the parameter expects it."""
    if result.transparent and not wanted.tagged:
        return
    for member in result.members:
        if member.kind is type(None):
            continue
        other = _find(member, wanted.members or [wanted])
        if other is None and member.transparent and not result.tagged:
            continue
        if other is None or (member.name in result.tagged) != (other.name in wanted.tagged):
            raise _misfit(result, wanted)


def _check(result: Form, wanted: Form) -> None:
    if not _alike(result, wanted):
        raise _misfit(result, wanted)


def _find(result: Form, members: Sequence[Form]) -> Form | None:
    same = [each for each in members if each.name == result.name and each.kind is result.kind]
    return next(iter([*same, *(each for each in members if each is not UNTYPED and _alike(result, each))]), None)


def _alike(result: Form, wanted: Form) -> bool:
    """Whether values of one type, which is no union, arrive as values of another one, or as a wider type."""
    if result.name == wanted.name and result.kind is wanted.kind:
        return True
    if result.transparent:
        return wanted is UNTYPED or result.kind is wanted.kind or not wanted.transparent
    if result.items:
        if wanted is UNTYPED:
            return result.kind in (list, tuple, dict) and all(_fits(each, UNTYPED) for each in result.items)
        widened = result.kind is wanted.kind or (result.kind is tuple and wanted.kind is list)
        others = [*wanted.items] * (len(result.items) if len(wanted.items) == 1 else 1)
        return widened and all(map(_fits, result.items, others))
    if not inspect.isclass(wanted.kind) or not inspect.isclass(result.kind) or wanted is UNTYPED:
        return False
    return result.kind is wanted.kind or (issubclass(result.kind, wanted.kind) and result.kind not in TEXTS)


def _fits(result: Form, wanted: Form) -> bool:
    try:
        return tag_for(result, wanted) is None
    except Misfit:
        return False


def _misfit(result: Form, wanted: Form) -> Misfit:
    return Misfit(f"a result of the type {result.name} would not arrive as {wanted.name}; annotate both alike")
