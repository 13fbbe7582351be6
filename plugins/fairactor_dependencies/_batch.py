"""What each message of a batch waits for, as the plugin's scripts read it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from fairactor import Message
from fairactor.plugins import Addressed

from ._errors import GraphError, unknown_parent
from ._mapped import JOIN
from ._options import HERE, NAME, NOTIFIES, Parents, ScriptInput
from ._placeholders import ResultOf, Selection, map_arguments, results_in

PARENTS_AT_ONCE: Final = 400
"""The most parents of all messages with which a batch is sent at once."""
_RESULTS_AT_ONCE: Final = 10
"""The most parents that may have ended, and whose results, which may be large, the messages take."""


class Awaited(NamedTuple):
    """A parent that a message is to wait for, as fill.lua reads it."""

    task: str
    place: int
    """Its place among the parents, from 1."""
    parent: str
    wants: int
    shard: int
    tenant: str


@attrs.define
class BatchItem:
    """A message of the batch, and what it waits for."""

    tenant: str
    message: Message[Any]
    shard: int
    parents: Parents
    script_input: ScriptInput = attrs.Factory(ScriptInput)
    follow: bool = False
    """Whether its parents follow in calls of their own, because they are many."""
    awaited: list[Awaited] = attrs.Factory(list)
    """These parents."""

    @property
    def id(self) -> str:
        """The id of its task."""
        return self.message.task_options.id or ""

    def owner_of(self, parent: str) -> str:
        """Returns the tenant whose task a parent has to be, '' for any.

        A handle that was made with a tenant stands for a task of this tenant, an id alone for that of any.
        """
        return self.parents.tenants.get(parent) or ""

    @property
    def is_apart(self) -> bool:
        """Whether it only travels with the batch: none of it can wait for one that may replace a task."""
        return bool(self.message.task_options.replace) and not self.parents

    def addressed(self) -> Addressed:
        """The message with what the script reads, and its tenant."""
        if self.is_apart:
            return self.tenant, self.message
        return self.tenant, self.message.rewritten(script_options={NAME: {"dependencies": self.script_input}})


def make_batch(messages: Iterable[tuple[str, int, Message[Any]]]) -> list[BatchItem]:
    """Makes a batch of (tenant, its shard, message); messages without an id get one, unless they replace others."""
    return [
        BatchItem(
            tenant,
            message if _has_id(message) else message.rewritten(id=os.urandom(12).hex()),
            shard,
            message.task_options.plugin_options.get("depends_on", Parents()),
        )
        for tenant, shard, message in messages
    ]


def _has_id(message: Message[Any]) -> bool:
    """Whether the message has an id, or gets one with the task that it replaces."""
    return bool(message.task_options.id or message.task_options.replace)


def index_by_id(batch: Sequence[BatchItem]) -> dict[str, int]:
    """Returns the index of each message by its id.

    Raises:
        GraphError: a parent comes after its child or twice, or has a key, so that another task may stand for it.
        UnknownParent: the handle of a parent has another tenant than the message with that id.
    """
    indexes: dict[str, int] = {}
    awaited = {parent for item in batch for parent in item.parents}
    ids = {item.message.task_options.id for item in batch}
    for index, item in enumerate(batch):
        if any(parent not in indexes and parent in ids for parent in item.parents):
            raise GraphError(
                f"{item.id!r} comes before a message that it depends on: send parents first, and make no cycle"
            )
        if item.id in awaited and item.id in indexes:
            raise GraphError(f"two messages have the id {item.id!r}: give each message another id; nothing was sent")
        if item.id in awaited and item.message.task_options.key is not None:
            raise GraphError(
                f"{item.id!r} has key=, so another task may stand for it: no message of the same batch can depend on it"
            )
        for parent in item.parents:
            if parent in indexes and item.parents.tenants.get(parent) not in (None, batch[indexes[parent]].tenant):
                raise unknown_parent(parent)
        indexes[item.id] = index
    return indexes


def divide(batch: Iterable[BatchItem], indexes: Mapping[str, int]) -> None:
    """Decides which messages are sent without their parents, so that no script gets too many of these.

    Args:
        batch: the messages.
        indexes: where in the batch each id is.
    """
    if sum(len(item.parents) for item in batch) > PARENTS_AT_ONCE:
        for item in batch:
            item.follow = len(item.parents) > 1
    taking = [item for item in batch if item.parents and results_in(item.message)]
    ended = {item.id: many for item in taking if (many := sum(parent not in indexes for parent in item.parents))}
    if sum(ended.values()) > _RESULTS_AT_ONCE:
        for item in taking:
            item.follow = item.follow or item.id in ended


def resolve_parents(
    item: BatchItem, batch: Sequence[BatchItem], indexes: Mapping[str, int], shards: Mapping[str, int], keep: int
) -> None:
    """Writes down what a message waits for, and in its parents on other shards that they have to notify it.

    Args:
        item: the message.
        batch: all messages.
        indexes: where in the batch each id is.
        shards: the shards of the tasks that were sent before, maybe in an earlier attempt to send the batch.
        keep: how long to keep the record of a canceled task, in ms.

    Raises:
        GraphError: an argument stands for the result of a task that is not a parent.
    """
    if not item.parents:
        unknown = results_in(item.message)
        if unknown and not all(result.token for result in unknown):
            raise GraphError(
                f"{item.message.actor.name}(): {unknown[0]!r} stands for the result of a parent, and the message has "
                "none: name it in depends_on=, or send both in one graph"
            )
        return
    wants = _insert_tokens(item)
    parent_shards: list[int] = []
    tenants: list[str] = []
    for index, parent in enumerate(item.parents, 1):
        shard = shards[parent] if parent in shards else batch[indexes[parent]].shard
        tenants.append(batch[indexes[parent]].tenant if parent in indexes else item.owner_of(parent))
        if shard == item.shard:
            parent_shards.append(HERE)
        elif parent not in shards and not item.follow:
            parent_shards.append(NOTIFIES)
            feeds = batch[indexes[parent]].script_input.setdefault("feeds", [])
            feeds.append((item.shard, index, int(index in wants), item.id))
        else:
            parent_shards.append(shard)
    item.script_input |= {"keep": keep, "shard": item.shard}
    if item.follow:
        found = zip(item.parents, parent_shards, tenants, strict=True)
        item.awaited = [
            Awaited(item.id, index, parent, int(index in wants), shard, tenant)
            for index, (parent, shard, tenant) in enumerate(found, 1)
        ]
        item.script_input["many"] = len(item.parents)
        item.script_input.pop("wants", None)
    else:
        item.script_input |= {"parents": list(item.parents), "tenants": tenants}
        if set(parent_shards) != {HERE}:
            item.script_input["shards"] = parent_shards
    rule = item.message.task_options.plugin_options.get("trigger_rule")
    if item.message.actor.name == JOIN:
        item.script_input["rule"] = f"each:{rule or 'all_success'}"
    elif rule:
        item.script_input["rule"] = rule


def hold_behind_gate(batch: Sequence[BatchItem], indexes: Mapping[str, int], gate: str, keep: int) -> None:
    """Makes the messages wait for the gate that could otherwise run before the whole batch is on the server.

    Those wait, too, that have a parent on another shard: if that is never sent, nobody else would end them.
    """
    for item in batch:
        waits_anyway = item.parents and all(
            parent in indexes and batch[indexes[parent]].shard == item.shard for parent in item.parents
        )
        if item.follow or (not waits_anyway and not item.is_apart):
            item.script_input["gate"] = gate
            item.script_input.setdefault("keep", keep)


def _insert_tokens(item: BatchItem) -> set[int]:
    """Gives the placeholders in the arguments their tokens; returns the indexes of the parents whose results they take.

    Raises:
        GraphError: one stands for the result of a task that is not a parent.
    """
    wants = set[int]()
    if not results_in(item.message):
        return wants
    token = os.urandom(12).hex()
    places = {parent: index for index, parent in enumerate(item.parents, 1)}

    def with_token(argument: Any) -> Any:
        if not isinstance(argument, ResultOf):
            return argument
        suffix, indexes = _select(argument, item, places)
        wants.update(indexes)
        return ResultOf(argument.of, f"{token}:{suffix}", argument.tag)

    args, kwargs = map_arguments(item.message, with_token)
    item.message = item.message.rewritten(args=args, kwargs=kwargs)
    item.script_input["token"] = token
    item.script_input["wants"] = sorted(wants)
    return wants


def _only_parent(item: BatchItem, places: Mapping[str, int]) -> int:
    """Returns the index of the parent that `result` stands for: the one that the message does not name.

    Raises:
        GraphError: there is none, or there are several.
    """
    giving = item.parents[: len(item.parents) - item.parents.silent]
    named = {result.of for result in results_in(item.message) if isinstance(result.of, str)}
    found = [parent for parent in giving if parent not in named] or giving
    if len(found) != 1:
        raise GraphError(
            f"{item.message.actor.name}(): result() stands for the result of the one step before, and there are "
            f"{len(found)}: take results(), which is a list, or result_of(step)"
        )
    return places[found[0]]


def _select(placeholder: ResultOf, item: BatchItem, places: Mapping[str, int]) -> tuple[str, Iterable[int]]:
    """Returns what a placeholder's token ends with, and the indexes of the parents whose results it takes."""
    match placeholder.of:
        case Selection.ALL:
            giving = len(item.parents) - item.parents.silent
            return f"1to{giving}" if item.parents.silent else Selection.ALL.value, range(1, giving + 1)
        case Selection.ALL_BUT_FIRST:
            return Selection.ALL_BUT_FIRST.value, range(2, len(item.parents) + 1)
        case Selection.ONLY:
            index = _only_parent(item, places)
            return str(index), [index]
        case str(parent) if parent in places:
            return str(places[parent]), [places[parent]]
        case _:
            raise GraphError(
                f"{item.message.actor.name}(): {placeholder!r} is not the result of a parent: name the task in "
                "depends_on=, or send both in one graph"
            )
