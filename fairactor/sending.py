"""Sending: messages become items, go through the mailboxes of their shards, and come back as handles."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from .context import running_task
from .envelope import seal
from .errors import Deadlock, MailboxFull, ServerError
from .handle import Handle
from .inbox import Inbox, Outcome
from .keys import shard_of
from .mailbox import BATCH, Mailbox
from .message import Message
from .middleware import Plugins
from .plugins import Addressed
from .policy import Policy
from .registry import Registry
from .settings import Settings
from .shard import Shard
from .tracking import Tracker
from .wire import Item

R = TypeVar("R")
_Sent = tuple[Message[Any], int, Item]  # and the number of its shard

_GIVE_BACK: Final = 1.0
"""Seconds in which room is given back that was not used; it comes back by itself after a minute."""


class Sender:
    """The sending half of a runtime."""

    def __init__(
        self,
        name: str,
        shards: Sequence[Shard],
        inbox: Inbox,
        tracker: Tracker,
        registry: Registry,
        settings: Settings,
        plugins: Plugins,
        *,
        sdk: bool,
    ) -> None:
        self.mailboxes = [Mailbox(shard, name) for shard in shards]
        self._shards = shards
        self._inbox = inbox
        self._tracker = tracker
        self._registry = registry
        self._settings = settings
        self._plugins = plugins
        self._sdk = sdk

    async def send(self, tenant: str, message: Message[R]) -> Handle[R]:
        """See `Runtime.send`."""
        if self._plugins.wraps_send(message):
            (handle,) = await self._plugins.send([(tenant, message)], self._proceed)
            return handle
        return await self._send_one(tenant, message)

    async def send_many(self, messages: Iterable[Addressed]) -> list[Handle[Any]]:
        """See `Runtime.send_many`."""
        messages = list(messages)
        if any(self._plugins.wraps_send(message) for _, message in messages):
            return await self._plugins.send(messages, self._proceed)
        return await self._send_all(messages)

    async def ask(self, tenant: str, message: Message[R], wait: float | None) -> R:
        """See `Runtime.ask`."""
        task = running_task()
        if task is not None and task.tenant == tenant:
            await self._check_deadlock(tenant)
        asked: dict[Handle[Any], asyncio.Future[Outcome]] = {}

        async def proceed(messages: Sequence[Addressed]) -> list[Handle[Any]]:
            return (
                [await self._send_asking(*messages[0], asked)] if len(messages) == 1 else await self._proceed(messages)
            )

        try:
            handle: Handle[R]
            (handle,) = await self._plugins.send([(tenant, message)], proceed)
        except BaseException:
            for outcome in asked.values():
                outcome.cancel()
            raise
        if handle not in asked:
            return await handle.result(wait)
        return handle.unfold(*await self._tracker.wait(asked[handle], handle.id, wait))

    async def _proceed(self, messages: Sequence[Addressed]) -> list[Handle[Any]]:
        """Sends what is left after all that is around sending."""
        return [await self._send_one(*messages[0])] if len(messages) == 1 else await self._send_all(messages)

    async def _send_one(self, tenant: str, message: Message[R]) -> Handle[R]:
        number, item = self.item(tenant, message)
        (task_id,) = await self._post(number, [item], self._replicas(message))
        return self._handle(message, number, item, task_id)

    async def _send_all(self, messages: Iterable[Addressed]) -> list[Handle[Any]]:
        sent: list[_Sent] = []
        batches: list[list[list[Item]]] = [[[]] for _ in self._shards]
        replicas = 0
        for tenant, message in messages:
            number, item = self.item(tenant, message)
            if len(batches[number][-1]) == BATCH:
                batches[number].append([])
                await anyio.lowlevel.checkpoint()  # encoding many must not hold up the event loop
            elif batches[number][-1]:
                item = item._replace(flag="+")
            batches[number][-1].append(item)
            sent.append((message, number, item))
            replicas = max(replicas, self._replicas(message))
        posts = [(number, batch) for number, of_shard in enumerate(batches) for batch in of_shard if batch]
        async with self._reservation(posts, sent) as reservation:
            outcomes = await asyncio.gather(
                *(self._post(*post, replicas, reservation) for post in posts), return_exceptions=True
            )
            ids: dict[str, str] = {}
            for (_, batch), outcome in zip(posts, outcomes, strict=True):
                if isinstance(outcome, ServerError):  # of one batch; others may have been accepted
                    raise outcome.about(
                        [item.id for *_, item in sent], maybe_accepted=len(posts) > 1 or outcome.maybe_accepted
                    )
                if isinstance(outcome, BaseException):
                    raise outcome
                ids.update(zip((item.id for item in batch), outcome, strict=True))
        return [self._handle(*each, ids[each[-1].id]) for each in sent]

    async def _send_asking(
        self, tenant: str, message: Message[R], asked: dict[Handle[Any], asyncio.Future[Outcome]]
    ) -> Handle[R]:
        """Sends one and asks for its outcome, both at once."""
        number, item = self.item(tenant, message, watch=True)
        outcome = self._inbox.expect(item.id, self._shards[number], ask=False)
        try:
            (task_id,) = await self._post(number, [item], self._replicas(message))
        except BaseException:
            outcome.cancel()
            raise
        if task_id != item.id:  # it is that of an earlier task
            outcome.cancel()
            return self._handle(message, number, item, task_id)
        self._inbox.sent(item.id, outcome, ask=item.id == message.how.id)
        handle: Handle[R] = self._handle(message, number, item, task_id)
        asked[handle] = outcome
        return handle

    def close(self, error: Exception) -> None:
        """Fails what was not delivered, and what is posted from now on."""
        for mailbox in self.mailboxes:
            mailbox.close(error)

    @asynccontextmanager
    async def _reservation(
        self, posts: Sequence[tuple[int, Sequence[Item]]], sent: Sequence[_Sent]
    ) -> AsyncIterator[str]:
        """Keeps room for all that is sent in several batches; the name of the reservation, '' where one is enough.

        Raises:
            MailboxFull: of one of the tenants; nothing is kept then.
        """
        if len(posts) < 2:  # noqa: PLR2004 - one batch is accepted in one step
            yield ""
            return
        name = os.urandom(8).hex()
        rooms: dict[int, Counter[str]] = {}
        chosen: dict[str, list[str]] = {}
        for message, number, item in sent:
            rooms.setdefault(number, Counter())[item.tenant] += 1
            if message.how.id:
                chosen.setdefault(item.tenant, []).append(item.id)
        try:
            for number, of_shard in rooms.items():
                full = await self._shards[number].reserve(name, of_shard, chosen)
                if full is not None:
                    raise MailboxFull(full)  # noqa: TRY301 - what earlier shards keep is given back
            yield name
        except BaseException:
            with anyio.move_on_after(_GIVE_BACK, shield=True), suppress(ServerError):
                for number, of_shard in rooms.items():
                    await self._shards[number].reserve(name, dict.fromkeys(of_shard, 0))
            raise

    def item(self, tenant: str, message: Message[Any], *, watch: bool = False) -> tuple[int, Item]:
        """A message as it goes to the server, and to which shard."""
        item = seal(tenant, message, watch=watch, max_payload=self._settings.max_payload, sdk=self._sdk)
        if self._registry:
            self._registry.get(message.actor.name)  # raises where it is not registered
        if message.how.of_plugins or message.how.for_scripts:
            self._plugins.check(message.how)
        return shard_of(tenant, len(self._shards)), item

    async def _post(self, number: int, items: Sequence[Item], replicas: int, reservation: str = "") -> Sequence[str]:
        try:
            return await self.mailboxes[number].post(items, replicas=replicas, reservation=reservation)
        except ServerError as error:
            raise error.about([item.id for item in items]) from error

    def _handle(self, message: Message[Any], number: int, item: Item, task_id: str) -> Handle[Any]:
        """A handle of what was sent, or of the task that stands for it: that may be another actor's."""
        own = task_id == item.id
        codec = message.actor.codec if own else None
        handle: Handle[Any] = Handle(
            self._tracker, task_id, item.tenant, codec, self._shards[number], duplicate=not own
        )
        if self._plugins.observers.sent is not None:
            self._plugins.observers.sent(handle, message)
        return handle

    def _replicas(self, message: Message[Any]) -> int:
        """How many replicas have to confirm that a message was sent."""
        durability = message.how.durability or self._settings.durability
        return self._settings.replicas if durability == "replicated" else 0

    async def _check_deadlock(self, tenant: str) -> None:
        if Policy.read(*await self._tracker.shard(tenant).policy(tenant)).concurrency == 1:
            raise Deadlock(
                f"a handler of tenant {tenant!r} asks for a task of the same tenant, which runs one task at a time: it "
                "could never start. Send without waiting, call the handler in place, or raise the tenant's concurrency"
            )
