"""The sender: encodes messages, sends them through the batchers of their shards, and returns handles."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from fairactor._actors.handle import Handle
from fairactor._actors.message import Message
from fairactor._actors.registry import Registry
from fairactor._actors.task import running_task
from fairactor._model.policy import Policy
from fairactor._model.wire import Item
from fairactor._plugin_chain import PluginChain
from fairactor._store.outcomes import Outcomes, Settled
from fairactor._store.script_runner import Elsewhere
from fairactor._store.shards import Shards
from fairactor._util.meters import Meters
from fairactor._util.slices import AT_ONCE, slices
from fairactor._util.spans import NO_SPAN, CreationSpan, Spans
from fairactor.errors import Deadlock, MailboxFull, NotReplicated, ServerError
from fairactor.plugins import Addressed
from fairactor.settings import Settings

from .batcher import Batcher, Poster
from .envelope import encode_message
from .packing import Packing
from .router import Router
from .tracker import Tracker

R = TypeVar("R")
_GIVE_BACK: Final = 1.0
"""Seconds to try to release a reservation. It expires by itself after a minute."""


class Sender:
    """The sending half of a runtime.

    Args:
        shards: the shards of the namespace.
        batchers: a batcher for each shard.
        outcomes: the outcomes for which `ask` waits.
        tracker: follows tasks for the handles.
        registry: the actors of the runtime.
        settings: the settings of the runtime.
        plugins: the plugins of the runtime.
        spans: makes spans; None without an OpenTelemetry SDK.
        meters: records metrics; likewise.
    """

    def __init__(
        self,
        *,
        shards: Shards,
        batchers: Sequence[Batcher],
        outcomes: Outcomes,
        tracker: Tracker,
        registry: Registry,
        settings: Settings,
        plugins: PluginChain,
        spans: Spans | None,
        meters: Meters | None = None,
    ) -> None:
        self._shards = shards
        self._batchers = batchers
        self._router = Router(shards, batchers)
        self._outcomes = outcomes
        self._tracker = tracker
        self._registry = registry
        self._settings = settings
        self._plugins = plugins
        self._spans = spans
        self._meters = meters

    async def send(self, tenant: str, message: Message[R]) -> Handle[R]:
        """See `Runtime.send`."""
        with self._sending(tenant, message) as span:
            if self._plugins.wraps_send(message):
                (handle,) = await self._plugins.send([(tenant, message)], partial(self._proceed, span=span))
            else:
                handle = await self._send_one(tenant, message, span)
            if span is not None and handle.duplicate:
                span.is_duplicate_of(handle.id)
            return handle

    async def send_many(self, messages: Sequence[Addressed]) -> list[Handle[Any]]:
        """See `Runtime.send_many`."""
        with self._sending_many(messages) as span:
            if await self._wraps_any(messages):
                return await self._plugins.send(messages, partial(self._proceed, span=span))
            return await self._send_all(messages, span)

    async def _wraps_any(self, messages: Sequence[Addressed]) -> bool:
        """Whether any plugin wraps the sending of any of the messages."""
        async for part in slices(messages):
            if any(self._plugins.wraps_send(message) for _, message in part):
                return True
        return False

    async def ask(self, tenant: str, message: Message[R], wait: float | None) -> R:
        """See `Runtime.ask`."""
        _check_own_key(tenant, message)
        asked: dict[Handle[Any], asyncio.Future[Settled]] = {}
        try:
            with self._sending(tenant, message) as span:
                handle = await self._send_asking_through_plugins(tenant, message, asked, span)
        except BaseException:
            for outcome in asked.values():
                outcome.cancel()
            raise
        if handle not in asked:
            return await handle.result(wait)
        return handle.unpack(*await self._tracker.wait_anywhere(handle.id, tenant, asked[handle], wait))

    async def encode_all(self, messages: Sequence[Addressed]) -> list[Item]:
        """Encodes messages as the wrappers of the plugins have them sent, and sends nothing."""
        items: list[Item] = []

        async def keep(messages: Sequence[Addressed]) -> list[Handle[Any]]:
            items.extend(self.encode(tenant, message) for tenant, message in messages)
            return [Handle(self._tracker, item.id, item.tenant) for item in items[-len(messages) :]]

        await self._plugins.send(messages, keep)
        return items

    async def _send_asking_through_plugins(
        self,
        tenant: str,
        message: Message[R],
        asked: dict[Handle[Any], asyncio.Future[Settled]],
        span: CreationSpan | None,
    ) -> Handle[R]:
        """Sends one message through the plugins, and asks for the outcomes of those that are sent singly."""
        await self.check_deadlock([tenant])

        async def proceed(messages: Sequence[Addressed]) -> list[Handle[Any]]:
            if len(messages) == 1:
                return [await self._send_asking(*messages[0], asked, span)]
            return await self._proceed(messages, span)

        handle: Handle[R]
        (handle,) = await self._plugins.send([(tenant, message)], proceed)
        if span is not None and handle.duplicate:
            span.is_duplicate_of(handle.id)
        return handle

    def _sending(self, tenant: str, message: Message[Any]) -> AbstractContextManager[CreationSpan | None]:
        """Wraps the sending of a message in a span, and times it, as far as there is an SDK."""
        spans, meters = self._spans, self._meters
        span = NO_SPAN if spans is None else spans.sending(_actor_of(message), tenant, _queue_of(message))
        return span if meters is None else meters.operation(span, "send", "send", _actor_of(message))

    def _sending_many(self, messages: Sequence[Addressed]) -> AbstractContextManager[CreationSpan | None]:
        """Wraps the sending of messages in a span, and times it, as far as there is an SDK."""
        if (self._spans is None and self._meters is None) or not messages:
            return NO_SPAN
        tenants = _the_first_two(tenant for tenant, _ in messages if isinstance(tenant, str))
        actors = _the_first_two(_actor_of(message) for _, message in messages)
        span = NO_SPAN if self._spans is None else self._spans.sending_many(len(messages), actors, tenants)
        if self._meters is None:
            return span
        return self._meters.operation(span, "send", "send", next(iter(actors)) if len(actors) == 1 else "")

    async def _proceed(self, messages: Sequence[Addressed], span: CreationSpan | None) -> list[Handle[Any]]:
        """Sends the messages, after every `wrap_send` has run."""
        if len(messages) == 1:
            return [await self._send_one(*messages[0], span)]
        return await self._send_all(messages, span)

    async def _send_one(self, tenant: str, message: Message[R], span: CreationSpan | None) -> Handle[R]:
        item = self.encode(tenant, message, span=span)
        number = self._shards.number_of(tenant)
        (task_id,) = await self._post_one(number, item, message)
        return self._handle(item.tenant, message, item.id, task_id)

    async def _send_all(self, messages: Sequence[Addressed], span: CreationSpan | None) -> list[Handle[Any]]:
        packing = Packing([batcher.budget for batcher in self._batchers])
        place = self._shards.placement()
        ids: list[str] = []
        numbers: list[int] = []  # of the shards
        replicas = 0
        for tenant, message in messages:
            item = self.encode(tenant, message, span=span)
            number = place(tenant)
            if packing.add(number, item):
                await anyio.lowlevel.checkpoint()  # so encoding many messages does not block the event loop
            ids.append(item.id)
            numbers.append(number)
            replicas = max(replicas, self._replicas(message))
        calls = packing.check()
        with self._counting(message for _, message in messages):
            async with self._reservation(calls, messages, numbers) as reservation:
                of_shard = await asyncio.gather(
                    *(
                        Poster(number, batcher, self._router, replicas, reservation).post_all(batches)
                        for number, (batcher, batches) in enumerate(zip(self._batchers, packing.batches, strict=False))
                    )
                )
                _check_failures([failure for shard in of_shard for failure in shard.failures], ids, several=calls > 1)
        accepted = [iter(shard.ids) for shard in of_shard]
        handles = []
        for count, ((tenant, message), number, sent) in enumerate(zip(messages, numbers, ids, strict=True), 1):
            handles.append(self._handle(tenant, message, sent, next(accepted[number])))
            if count % AT_ONCE == 0:
                await anyio.lowlevel.cancel_shielded_checkpoint()  # the tasks are sent
        return handles

    async def _send_asking(
        self,
        tenant: str,
        message: Message[R],
        asked: dict[Handle[Any], asyncio.Future[Settled]],
        span: CreationSpan | None,
    ) -> Handle[R]:
        """Sends one message and asks for its outcome in the same call."""
        item = self.encode(tenant, message, watch=True, span=span)
        number = self._shards.number_of(tenant)
        outcome = self._outcomes.expect(item.id, self._shards[number], tenant, ask=False)
        try:
            (task_id,) = await self._post_one(number, item, message)
        except BaseException:
            outcome.cancel()
            raise
        if task_id != item.id:  # there is an earlier task with its id or its key
            outcome.cancel()
            return self._handle(item.tenant, message, item.id, task_id)
        if self._shards.number_of(tenant) != number:  # it was sent to the shard to which the tenant has moved
            outcome.cancel()
            return self._handle(item.tenant, message, item.id, task_id)
        self._outcomes.sent(item.id, self._shards[number], outcome, ask=item.id == message.task_options.id)
        handle: Handle[R] = self._handle(item.tenant, message, item.id, task_id)
        asked[handle] = outcome
        return handle

    def close(self, error: Exception) -> None:
        """Raises an error for the messages that were not sent, and for those sent from now on."""
        for batcher in self._batchers:
            batcher.close(error)

    @asynccontextmanager
    async def _reservation(
        self, calls: int, messages: Sequence[Addressed], numbers: Sequence[int]
    ) -> AsyncIterator[str]:
        """Reserves room for messages that take several calls; yields the reservation's name, '' for a single call.

        Args:
            calls: how many calls the messages take.
            messages: the messages.
            numbers: the shard of each message.

        Raises:
            MailboxFull: a mailbox has too little room. Nothing stays reserved.
        """
        if calls < 2:  # noqa: PLR2004 - one batch is accepted in one step
            yield ""
            return
        name = os.urandom(8).hex()
        rooms: dict[int, Counter[str]] = {number: Counter() for number in sorted(set(numbers))}
        chosen: dict[str, list[str]] = {}
        for count, ((tenant, message), number) in enumerate(zip(messages, numbers, strict=True)):
            rooms[number][tenant] += 1
            if message.task_options.id:
                chosen.setdefault(tenant, []).append(message.task_options.id)
            if count % AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()  # as in `_send_all`
        held: dict[int, set[str]] = {number: set() for number in rooms}
        try:
            for number, of_shard in rooms.items():
                full = await self._shards[number].reserve(name, of_shard, chosen, held[number])
                if full is not None:
                    raise MailboxFull(full)  # noqa: TRY301 - the room that is reserved is released below
            yield name if any(held.values()) else ""
        except BaseException:
            with anyio.move_on_after(_GIVE_BACK, shield=True), suppress(ServerError):
                for number, tenants in held.items():
                    await self._shards[number].reserve(name, dict.fromkeys(tenants, 0))
            raise

    def encode(
        self, tenant: str, message: Message[Any], *, watch: bool = False, span: CreationSpan | None = None
    ) -> Item:
        """Encodes a message; raises as `Runtime.send` does before it sends anything.

        Args:
            tenant: the owner of the mailbox.
            message: the message.
            watch: whether the sender waits for the outcome.
            span: the span of the send. If it is that of a batch, the message gets one of its own.
        """
        if span is None:
            return self._encode(tenant, message, watch=watch, span=None)
        with span.creating(_actor_of(message), tenant, _queue_of(message)) as own:
            return self._encode(tenant, message, watch=watch, span=own)

    def _encode(self, tenant: str, message: Message[Any], *, watch: bool, span: CreationSpan | None) -> Item:
        settings = self._settings
        item = encode_message(
            tenant, message, watch=watch, max_payload=settings.max_payload, priority=settings.priority, span=span
        )
        if self._registry:
            self._registry.get(message.actor.name)  # raises if it is not registered
        if message.task_options.plugin_options or message.task_options.script_options:
            self._plugins.check(message.task_options)
        return item

    def _counting(self, messages: Iterable[Message[Any]]) -> AbstractContextManager[None]:
        """Counts messages that the block sends, if there is an SDK."""
        return NO_SPAN if self._meters is None else self._meters.sending(map(_actor_of, messages))

    def _post_one(self, number: int, item: Item, message: Message[Any]) -> Awaitable[Sequence[str]]:
        posted = self._post(number, [item], self._replicas(message))
        return posted if self._meters is None else self._meters.counted(posted, message.actor.name)

    async def _post(self, number: int, items: Sequence[Item], replicas: int) -> Sequence[str]:
        try:
            if not self._router.is_needed(items):
                with suppress(Elsewhere):
                    return await self._batchers[number].post(items, replicas=replicas)
            return await self._router.post(number, items, replicas, "")
        except ServerError as error:
            raise error.about([item.id for item in items]) from error

    def _handle(self, tenant: str, message: Message[Any], sent_id: str, task_id: str) -> Handle[Any]:
        """Returns a handle of the task that was sent, or of the earlier task that has its id or its key."""
        sent = task_id == sent_id
        codec = message.actor.codec if sent else None  # the earlier task may be another actor's
        handle: Handle[Any] = Handle(self._tracker, task_id or sent_id, tenant, codec, duplicate=not sent)
        if self._plugins.observers.sent is not None:
            self._plugins.observers.sent(handle, message)
        return handle

    def _replicas(self, message: Message[Any]) -> int:
        """Returns how many replicas must confirm a message."""
        durability = message.task_options.durability or self._settings.durability
        return self._settings.replicas if durability == "replicated" else 0

    async def check_deadlock(self, tenants: Collection[str]) -> None:
        """Checks that the running handler, if there is one, may wait for tasks of these tenants.

        Raises:
            Deadlock: its own tenant is among them, and runs one task at a time.
        """
        task = running_task()
        tenant = task.tenant if task is not None else ""
        if task is None or tenant not in tenants:
            return
        policy = await self._shards.at_home(tenant, lambda shard: shard.policy(tenant))
        if Policy.read(*policy).concurrency == 1:
            raise Deadlock(
                f"a handler of tenant {tenant!r} asks for a task of the same tenant, which runs one task at a time, so "
                "the task could never start. Send it without waiting, await the message instead, or raise the "
                "tenant's concurrency"
            )


def _check_failures(failures: Sequence[Exception], ids: Sequence[str], *, several: bool) -> None:
    """Raises what failed first, if anything did.

    Args:
        failures: why batches were not accepted.
        ids: the ids of all tasks.
        several: whether there were several batches, so that the others may have been accepted.
    """
    if not failures:
        return
    # `NotReplicated` comes last: it says that all messages were accepted.
    failure = min(failures, key=lambda each: isinstance(each, NotReplicated))
    if isinstance(failure, ServerError):
        raise failure.about(ids, maybe_accepted=several or failure.maybe_accepted)
    raise failure


def _actor_of(message: object) -> str:
    """Returns the name of a message's actor; '' for what is no message, which is refused later."""
    return message.actor.name if isinstance(message, Message) else ""


def _the_first_two(names: Iterable[str]) -> set[str]:
    """Returns the first two different names, or the only one."""
    found: set[str] = set()
    for name in names:
        found.add(name)
        if len(found) == 2:  # noqa: PLR2004 - as said
            break
    return found


def _queue_of(message: object) -> str:
    """Returns the queue that a message names; '' if it names none."""
    return (message.task_options.queue or "") if isinstance(message, Message) else ""


def _check_own_key(tenant: str, message: Message[Any]) -> None:
    """Raises Deadlock if a handler asks for the run that follows its own."""
    task = running_task()
    options = message.task_options
    if task is None or not options.replace or (tenant, options.key) != (task.tenant, task.options.get("key")):
        return
    raise Deadlock(
        f"task {task.id!r} asks for a task with its own key and replace=True, which starts only when this one has "
        "ended: use send() instead of ask()"
    )
