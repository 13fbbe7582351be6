"""The options ``depends_on=`` and ``trigger_rule=``, and the one that tells scripts what a task waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypedDict, get_args

from fairactor import Handle
from fairactor.errors import ConfigurationError
from fairactor.plugins import Option, TriggerRule, check_one_of, shown

NAME: Final = "fairactor_dependencies"
RULES: Final[tuple[str, ...]] = get_args(TriggerRule)

HERE: Final = 65535
"""In place of a parent's shard: it is the task's own."""
NOTIFIES: Final = 65534
"""In place of a parent's shard: it is another one, which learns of the task when it accepts the parent."""


class Parents(list[str]):
    """The ids of a task's parents, in which they travel, and the tenants of those that were given as handles."""

    def __init__(
        self, ids: Iterable[str] = (), tenants: Mapping[str, str | None] = MappingProxyType({}), silent: int = 0
    ) -> None:
        super().__init__(ids)
        self.tenants = dict(tenants)
        """id -> its tenant, or None for a handle that was made from an id alone: the task of any tenant."""
        self.silent = silent
        """How many of the parents, the last ones, only have to end: an empty group stands in between."""


class ScriptInput(TypedDict, total=False):
    """What a task waits for, as sent.lua reads it. What is missing is empty."""

    parents: list[str]
    tenants: list[str]
    """The tenant of each parent, or '' for any."""
    shards: list[int]
    """The shard of each parent, `HERE`, or `NOTIFIES`. Missing if all are here."""
    rule: str
    """The trigger rule."""
    keep: int
    """How long to keep the record if the task is canceled, in ms."""
    token: str
    """What the placeholders in the arguments begin with."""
    wants: list[int]
    """The indexes, from 1, of the parents whose results the arguments take."""
    gate: str
    """The gate that has to open before the task may run."""
    many: int
    """How many parents it has, if they follow in calls of fill.lua."""
    shard: int
    """The task's own shard."""
    home: int
    """Likewise, where the server has to accept it: its parents and children were told of that shard."""
    feeds: list[tuple[int, int, int, str]]
    """The tasks of other shards that wait for this one: (shard, this one's index among the task's parents, whether it
    wants the result, id)."""
    item: tuple[str, int]
    """The task that joins the results of an ``each()``, and which item this is, from 1."""


def _to_ids(value: Iterable[Handle[Any] | str]) -> Parents:
    if isinstance(value, str | Handle) or not isinstance(value, Iterable):
        raise ConfigurationError(f"depends_on={shown(value)}: give a list of handles or ids, as in depends_on=[handle]")
    given = list(value)
    ids = [parent.id if isinstance(parent, Handle) else parent for parent in given]
    for parent in ids:
        if not isinstance(parent, str) or not parent:
            raise ConfigurationError(f"depends_on= got {shown(parent)}: give handles or ids of tasks")
    tenants = {parent.id: parent.tenant for parent in reversed(given) if isinstance(parent, Handle)}
    return Parents(dict.fromkeys(ids), tenants)


def _check_rule(value: TriggerRule) -> str:
    return check_one_of("trigger_rule", value, RULES)


Option[Iterable[Handle[Any] | str]]("depends_on", plugin=NAME, convert=_to_ids, names_tasks=True)
Option[TriggerRule]("trigger_rule", plugin=NAME, convert=_check_rule)
Option[ScriptInput]("dependencies", plugin=NAME, script=True)
