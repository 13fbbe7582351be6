"""Sending what waits for others: what each task of a batch is to wait for, as the plugin's Lua takes it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, get_args

import anyio
import attrs

from fairactor import Handle, Message
from fairactor.errors import ConfigurationError, ServerError
from fairactor.plugins import BATCH, Addressed, Host, Option, ProceedSend, TriggerRule, check_one_of, whole_ms

from ._errors import GraphError, RunNotSent, UnknownParent
from ._results import OF_ALL, OF_ALL_BUT_FIRST, OF_FIRST, ResultOf

NAME: Final = "fairactor_dependencies"
RULES: Final[tuple[str, ...]] = get_args(TriggerRule)

_HERE: Final = 65535  # where a parent is, as ends.lua has it: on the shard of the task,
_TOLD: Final = 65534  # or on another one, where it is told of the task when it is sent
_GATE_TIME: Final = 300.0
"""Seconds that sending a run may take; then it is taken for dead who sends it."""
_GIVE_UP: Final = 1.0


def _parents(value: Any) -> list[str]:
    if isinstance(value, str | Handle) or not isinstance(value, Iterable):
        raise ConfigurationError(f"depends_on={value!r}: give a list of handles or ids, as in depends_on=[handle]")
    ids = [each.id if isinstance(each, Handle) else each for each in value]
    for each in ids:
        if not isinstance(each, str) or not each:
            raise ConfigurationError(f"depends_on= got {each!r}: give handles or ids of tasks")
    return list(dict.fromkeys(ids))


def _rule(value: Any) -> str:
    return check_one_of("trigger_rule", value, RULES)


Option("depends_on", plugin=NAME, convert=_parents)
Option("trigger_rule", plugin=NAME, convert=_rule)
Option("dependencies", plugin=NAME, script=True)  # what this module makes of these


@attrs.define
class _Sending:
    """A message of the batch."""

    tenant: str
    message: Message[Any]
    shard: int
    parents: list[str]
    waits: dict[str, Any] = attrs.Factory(dict)
    """What sent.lua reads; what is left out is nothing."""

    def addressed(self) -> Addressed:
        """With what it waits for, for the script."""
        return self.tenant, self.message.rewritten(script_options={NAME: {"dependencies": self.waits}})


async def send(host: Host, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
    """Sends messages some of which wait for others, of these or of what was sent before. All are sent, or none runs.

    Raises:
        GraphError: one comes before what it waits for, or two that are waited for have one id.
        UnknownParent: one waits for a task that is not there.
        RunNotSent: it took too long.
    """
    batch = [
        _Sending(
            tenant, _with_id(message), host.shard_of(tenant), message.task_options.plugin_options.get("depends_on", [])
        )
        for tenant, message in messages
    ]
    of_batch = _places(batch)
    elsewhere = {parent for each in batch for parent in each.parents if parent not in of_batch}
    homes = await _locate(host, elsewhere) | await _sent_before(host, batch, of_batch)
    for each in batch:
        _wire(each, batch, of_batch, homes, whole_ms(host.settings.canceled_ttl))
    shards = Counter(each.shard for each in batch)
    calls = sum(-(-many // BATCH) for many in shards.values())
    if calls == 1 or not any(parent in of_batch for each in batch for parent in each.parents):
        return await proceed([each.addressed() for each in batch])
    return await _send_behind_gate(host, batch, of_batch, proceed)


async def _send_behind_gate(
    host: Host, batch: Sequence[_Sending], of_batch: dict[str, int], proceed: ProceedSend
) -> list[Handle[Any]]:
    """Sends what takes several calls: what could begin waits until all of it is there."""
    gate = os.urandom(12).hex()
    _shut_in(batch, of_batch, gate, whole_ms(host.settings.canceled_ttl))
    shards = dict.fromkeys(each.shard for each in batch)
    first, *others = shards
    await host.call(f"{NAME}/gate", first, gate, whole_ms(_GATE_TIME), *others)
    try:
        handles = await proceed([each.addressed() for each in batch])
        ended = await host.call(f"{NAME}/open", first, gate, "F")
    except BaseException:
        with anyio.move_on_after(_GIVE_UP, shield=True), suppress(ServerError):
            await host.call(f"{NAME}/open", first, gate, "C")
        raise
    if ended != b"F":
        raise RunNotSent(
            f"it took more than {_GATE_TIME:g} s to send {len(batch)} tasks, so they are all canceled: send fewer at "
            "once, or look at what holds up this process or the server"
        )
    return handles


def _shut_in(batch: Sequence[_Sending], of_batch: dict[str, int], gate: str, keep: int) -> None:
    """Has those wait for the gate that could begin before all is there."""
    for each in batch:
        if not all(parent in of_batch for parent in each.parents) or not each.parents:
            each.waits["gate"] = gate
            each.waits.setdefault("keep", keep)


def _with_id(message: Message[Any]) -> Message[Any]:
    return message if message.task_options.id else message.rewritten(id=os.urandom(12).hex())


def _places(batch: Sequence[_Sending]) -> dict[str, int]:
    """Where the messages of the batch stand that others of it may wait for, by their ids.

    Raises:
        GraphError: what is waited for is not there just once, or comes later; or a key may stand for it.
    """
    places: dict[str, int] = {}
    asked = {parent for each in batch for parent in each.parents}
    to_come = {each.message.task_options.id for each in batch}
    for number, each in enumerate(batch):
        task_id = each.message.task_options.id or ""
        if any(parent not in places and parent in to_come for parent in each.parents):
            raise GraphError(
                f"{task_id!r} is sent before what it waits for: they go round in a circle, or put it behind"
            )
        if task_id in asked and task_id in places:
            raise GraphError(f"two messages have the id {task_id!r}: give each one of its own; nothing was sent")
        if task_id in asked and each.message.task_options.key is not None:
            raise GraphError(
                f"{task_id!r} has key=, so another task may stand for it: nothing of its batch can wait for it"
            )
        places[task_id] = number
    return places


async def _locate(host: Host, ids: Iterable[str]) -> dict[str, int]:
    """The shards of tasks that were sent before.

    Raises:
        UnknownParent: one is not there.
    """
    asked = list(ids)
    if not asked:
        return {}
    homes: dict[str, int] = {}
    for shard in range(host.shard_count):
        homes |= await _found(host, shard, asked)
    if unknown := [task_id for task_id in asked if task_id not in homes]:
        raise UnknownParent(
            f"there is no task {unknown[0]!r} to depend on: it was never sent, or its record has expired (result_ttl=, "
            "failed_ttl=, canceled_ttl=); nothing was sent"
        )
    return homes


async def _sent_before(host: Host, batch: Sequence[_Sending], of_batch: dict[str, int]) -> dict[str, int]:
    """The shards of those of the batch that are there already, and for which some on other shards wait.

    Such a one is not accepted again, and so it would not be told of these.
    """
    asked: dict[int, set[str]] = {}
    for each in batch:
        for parent in each.parents:
            if parent in of_batch and (shard := batch[of_batch[parent]].shard) != each.shard:
                asked.setdefault(shard, set()).add(parent)
    homes: dict[str, int] = {}
    for shard, ids in asked.items():
        homes |= await _found(host, shard, ids)
    return homes


async def _found(host: Host, shard: int, ids: Iterable[str]) -> dict[str, int]:
    """Those of some tasks that are on a shard, with its number."""
    missing = {task_id.decode() for task_id in await host.call(f"{NAME}/unknown", shard, *ids)}
    return {task_id: shard for task_id in ids if task_id not in missing}


def _wire(
    each: _Sending, batch: Sequence[_Sending], of_batch: dict[str, int], homes: dict[str, int], keep: int
) -> None:
    """Says what a message waits for, and those on other shards for which it waits; ``homes``: what was there before."""
    options = each.message.task_options
    if not each.parents:
        _check_arguments(each)
        return
    wants = _fill_in(each)
    shards = []
    for place, parent in enumerate(each.parents, 1):
        shard = batch[of_batch[parent]].shard if parent in of_batch else homes[parent]
        if shard == each.shard:
            shards.append(_HERE)
        elif parent not in homes:
            shards.append(_TOLD)
            feeds = batch[of_batch[parent]].waits.setdefault("feeds", [])
            feeds.append([each.shard, place, int(place in wants), options.id])
        else:
            shards.append(shard)
    each.waits |= {"parents": each.parents, "keep": keep, "shard": each.shard}
    if set(shards) != {_HERE}:
        each.waits["shards"] = shards
    if rule := options.plugin_options.get("trigger_rule"):
        each.waits["rule"] = rule


def _check_arguments(each: _Sending) -> None:
    for argument in (*each.message.args, *each.message.kwargs.values()):
        if isinstance(argument, ResultOf):
            raise GraphError(f"{each.message.actor.name}(): {argument!r} is of no task before it: it has none")


def _fill_in(each: _Sending) -> set[int]:
    """Gives what stands for results in the arguments its tokens; returns the places of the parents whose they are."""
    message, wants, token = each.message, set[int](), os.urandom(12).hex()

    def filled(argument: Any) -> Any:
        if not isinstance(argument, ResultOf):
            return argument
        which, places = _which(argument, each)
        wants.update(places)
        return ResultOf(argument.of, f"{token}:{which}")

    if any(isinstance(argument, ResultOf) for argument in (*message.args, *message.kwargs.values())):
        args = [filled(argument) for argument in message.args]
        kwargs = {name: filled(argument) for name, argument in message.kwargs.items()}
        each.message = message.rewritten(args=args, kwargs=kwargs)
        each.waits["token"] = token
        each.waits["wants"] = sorted(wants)
    return wants


def _which(argument: ResultOf, each: _Sending) -> tuple[str, Iterable[int]]:
    """How Lua names what an argument stands for, and the places of those parents."""
    if argument.of in (OF_ALL, OF_ALL_BUT_FIRST):
        first = 1 if argument.of == OF_ALL else 2
        return argument.of, range(first, len(each.parents) + 1)
    if argument.of is OF_FIRST:
        return OF_FIRST, [1]
    if argument.of not in each.parents:
        raise GraphError(
            f"{each.message.actor.name}(): {argument!r} is no task before it: name it in depends_on=, or send both in "
            "one graph"
        )
    place = each.parents.index(argument.of) + 1
    return str(place), [place]
