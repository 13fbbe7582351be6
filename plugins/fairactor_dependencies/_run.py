"""Runs: graphs that were sent."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import attrs

from fairactor import Handle, TaskCanceled, TaskFailed, TaskSkipped, TaskState
from fairactor.errors import InvalidPayload, TaskNotFound
from fairactor.plugins import Addressed, Host, Run

from ._errors import GraphError
from ._late import load
from ._mapped import JOIN, Attempt, Item, Mapped, maps_in
from ._mermaid import summary
from ._plan import Plan, Step
from ._retry import check_ended, steps_to_repeat
from ._states import SKIPPED, read_letters, state_of
from ._steps import Context, message_of

T = TypeVar("T")

_CONCURRENCY: Final = 100
"""How many tasks are read at the same time."""
_AWAITED_AT_ONCE: Final = 1_000
"""How many tasks `SentRun.wait` follows at the same time."""


@attrs.frozen(eq=False)
class SentRun(Run):
    """See `Run`."""

    id: str
    tenant: str
    handles: Mapping[str, Handle[Any]]
    _host: Host = attrs.field(repr=False)
    _plan: Plan = attrs.field(repr=False)
    _names: dict[Step, str] = attrs.field(repr=False)
    attempt: int = 1
    _past: Mapping[Step, Sequence[Attempt]] = attrs.field(factory=dict, repr=False)
    """The earlier attempts of each joining step whose items are still the same."""

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as that of a handle
        """See `Run`."""
        try:
            with anyio.fail_after(timeout):
                return await self._result()
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has no result after {timeout:g} s; it goes on") from None

    async def _result(self) -> Any:
        found: dict[Step, Any] = {}

        async def wait(step: Step) -> None:
            with suppress(TaskSkipped):
                value = await self.handles[self._names[step]].result(None)
                found[step] = await load(self._host, value) if step.actor.name == JOIN else value

        last, silent = self._plan.sinks, self._plan.closed
        await _for_each(wait, (*last, *silent), len(last) + len(silent))
        if found.keys() >= {*last, *silent}:
            return found[last[0]] if len(last) == 1 else [found[step] for step in last]
        last = await self._last_that_ran()
        await _for_each(wait, [step for step in last if step not in found], _CONCURRENCY)
        results = [found[step] for step in last if step in found and step not in silent]
        return results[0] if len(results) == 1 else results

    async def _last_that_ran(self) -> tuple[Step, ...]:
        """Returns the steps that were not skipped, and after which only skipped ones come."""
        letters = await self._letters()
        order, parents = self._plan.in_order()
        skipped = {step for step in order if letters.get(step) == SKIPPED}
        skipped |= {mapped.spread for mapped in self._maps() if mapped.join in skipped}
        followed = {parent for step in order if step not in skipped for parent in parents[step]}
        return tuple(step for step in order if step not in skipped and step not in followed)

    async def wait(self, timeout: float | None = None) -> dict[str, TaskState | None]:  # noqa: ASYNC109 - likewise
        """See `Run`."""
        try:
            with anyio.fail_after(timeout):
                await _for_each(_wait_for, self.handles.values(), _AWAITED_AT_ONCE)
                while live := [item for _, item in await self._items() if item.state and not item.state.settled]:
                    await _wait_for(self._host.runtime.handle(live[-1].id, live[-1].tenant))
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has not ended after {timeout:g} s; it goes on") from None
        return await self.states()

    async def states(self) -> dict[str, TaskState | None]:
        """See `Run`."""
        letters = await self._letters()
        states = {name: state_of(letters.get(step)) for step, name in self._names.items()}
        return {name: states[name] for name in self.handles} | {name: item.state for name, item in await self._items()}

    async def items(self) -> dict[str, Handle[Any]]:
        """See `Run`."""
        return {name: self._host.runtime.handle(item.id, item.tenant) for name, item in await self._items()}

    async def cancel(self) -> None:
        """See `Run`."""
        await self._host.runtime.cancel_many(reversed(list(self.handles.values())))
        for mapped in self._maps():
            await mapped.stop(self._host)
        live = [item for _, item in await self._items() if item.state and not item.state.settled]
        await self._host.runtime.cancel_many(self._host.runtime.handle(item.id, item.tenant) for item in reversed(live))

    async def retry(self) -> Run:
        """See `Run`."""
        check_ended(self.id, await self.states())
        order, parents = self._plan.in_order()
        maps = self._maps()
        failed = [mapped for mapped in maps if not await self._all_finished(mapped)]
        repeated = steps_to_repeat(order, parents, await self._letters(), maps, failed)
        if not repeated:
            return self
        past = {mapped.join: mapped.attempts for mapped in maps if repeated.isdisjoint(parents[mapped.spread])}
        again = attrs.evolve(self, attempt=self.attempt + 1, past=past)
        messages, sent = again.prepare([step for step in order if step not in repeated])
        return sent(await self._host.runtime.send_many(messages))

    async def _all_finished(self, mapped: Mapped) -> bool:
        return all(item.state is TaskState.FINISHED for item in (await mapped.items(self._host)).values())

    async def _letters(self) -> dict[Step, bytes]:
        """Returns how the steps stand; those whose records have expired are left out."""
        handles = {step: self.handles[name] for step, name in self._names.items()}
        letters = await read_letters(self._host, [(handle.id, handle.tenant) for handle in handles.values()])
        return {step: letters[handle.id] for step, handle in handles.items() if handle.id in letters}

    def _maps(self) -> list[Mapped]:
        return maps_in(self._names, self.handles, self._past)

    async def _items(self) -> list[tuple[str, Item]]:
        """Returns the names and the tasks of all items."""
        return [
            (mapped.item_name(number), item)
            for mapped in self._maps()
            for number, item in (await mapped.items(self._host)).items()
        ]

    def prepare(self, kept: Collection[Step]) -> tuple[list[Addressed], Callable[[Sequence[Handle[Any]]], Run]]:
        """Returns the messages of all steps except those that are kept from the last attempt, and a function.

        The function makes the run with the handles of these messages.
        """
        order, parents = self._plan.in_order()
        suffix = f"~{self.attempt}" if self.attempt > 1 else ""
        names, kept = self._names, set(kept)
        ids = {
            step: self.handles[name].id if step in kept else f"{self.id}:{name}{suffix}" for step, name in names.items()
        }
        new = [step for step in order if step not in kept]
        tenants = {ids[step]: self.handles[names[step]].tenant for step in kept}
        context = Context(
            ids,
            {"xcom_run": self.id} if "fairactor_xcom" in self._host.plugins else {},
            tenants,
            {join: [attempt.join for attempt in attempts] for join, attempts in self._past.items()},
        )
        silent = self._plan.without_results()
        messages = [
            (self._plan.steps.get(step) or self.tenant, message_of(step, parents[step], silent.get(step, 0), context))
            for step in new
        ]

        def sent(handles: Sequence[Handle[Any]]) -> Run:
            of_new = dict(zip(new, handles, strict=True))
            found = {names[step]: of_new[step] if step in of_new else self.handles[names[step]] for step in order}
            return attrs.evolve(self, handles=found)

        return messages, sent

    async def to_mermaid(self) -> str:
        """See `Run`."""
        letters = await self._letters()
        order, _ = self._plan.in_order()
        groups = [
            (order.index(mapped.spread), order.index(mapped.join), summary(mapped.name, found))
            for mapped in self._maps()
            if (found := [item.state for item in (await mapped.items(self._host)).values()])
        ]
        skipped = {step for step, letter in letters.items() if letter == SKIPPED}
        return self._plan.to_mermaid({step: state_of(letters.get(step)) for step in order}, skipped, groups)


def prepare_run(
    host: Host, tenant: str, plan: Plan, run_id: str | None = None
) -> tuple[list[Addressed], Callable[[Sequence[Handle[Any]]], Run]]:
    """Returns the messages of a new run of a graph, and a function that makes the run with their handles.

    Raises:
        GraphError: the graph has a cycle, is empty, or two of its steps have one id.
    """
    order, _ = plan.in_order()
    if not order:
        raise GraphError("the graph is empty: give it steps")
    return SentRun(run_id or os.urandom(8).hex(), tenant, {}, host, plan, _names(order)).prepare(())


def _names(order: Sequence[Step]) -> dict[Step, str]:
    """Gives each step a name of its own.

    Raises:
        GraphError: two steps have one id.
    """
    taken: dict[str, Step] = {}
    for step in order:
        if step.task_options.id is not None and taken.setdefault(step.task_options.id, step) is not step:
            raise GraphError(
                f"two steps have the id {step.task_options.id!r}: give each step another id; nothing was sent"
            )
    names = {step: name for name, step in taken.items()}
    numbers: dict[str, int] = {}
    for step in order:
        while step not in names:
            number = numbers[step.actor.name] = numbers.get(step.actor.name, 0) + 1
            name = step.actor.name if number == 1 else f"{step.actor.name}.{number}"
            if taken.setdefault(name, step) is step:
                names[step] = name
    return names


async def _wait_for(handle: Handle[Any]) -> None:
    with suppress(TaskFailed, TaskCanceled, TaskNotFound, InvalidPayload):
        await handle.result(None)


async def _for_each(function: Callable[[T], Awaitable[None]], values: Iterable[T], limit: int) -> None:
    """Calls a function for all values, at most ``limit`` at a time; raises the first error as it is, in no group."""
    errors: list[Exception] = []
    left = list(values)
    each = iter(left)  # shared, so that there are no more tasks of the event loop than calls at a time

    async def call() -> None:
        for value in each:
            try:
                await function(value)
            except Exception as error:  # noqa: BLE001 - raised below, alone
                errors.append(error)
                group.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(limit, len(left))):
            group.start_soon(call)
    if errors:
        raise errors[0]
