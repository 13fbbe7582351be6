"""Runs: graphs that were sent."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import attrs

from fairactor import Handle, Message, TaskCanceled, TaskFailed, TaskState
from fairactor.errors import ConfigurationError, TaskNotFound
from fairactor.plugins import Graph, Host, Run

from ._errors import GraphError
from ._options import Parents
from ._placeholders import IdOf, ResultOf, map_arguments
from ._plan import Plan, Step, last_step

T = TypeVar("T")

_CONCURRENCY: Final = 100
"""How many tasks are read or canceled at the same time."""


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

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as that of a handle
        """See `Run`."""
        last = [self.handles[self._names[step]] for step in self._plan.sinks]
        found: list[Any] = [None] * len(last)

        async def wait(index: int) -> None:
            found[index] = await last[index].result(None)

        try:
            with anyio.fail_after(timeout):
                if len(last) == 1:
                    return await last[0].result(None)
                await _for_each(wait, range(len(last)), len(last))
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has no result after {timeout:g} s; it goes on") from None
        return found

    async def wait(self, timeout: float | None = None) -> dict[str, TaskState | None]:  # noqa: ASYNC109 - likewise
        """See `Run`."""

        async def wait(handle: Handle[Any]) -> None:
            with suppress(TaskFailed, TaskCanceled, TaskNotFound):
                await handle.result(None)

        try:
            with anyio.fail_after(timeout):
                await _for_each(wait, self.handles.values(), len(self.handles))
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has not ended after {timeout:g} s; it goes on") from None
        return await self.states()

    async def states(self) -> dict[str, TaskState | None]:
        """See `Run`."""
        states: dict[str, TaskState | None] = {}

        async def read(name: str) -> None:
            try:
                states[name] = await self.handles[name].state()
            except TaskNotFound:
                states[name] = None

        await _for_each(read, self.handles, _CONCURRENCY)
        return {name: states[name] for name in self.handles}

    async def cancel(self) -> None:
        """See `Run`."""

        async def cancel(handle: Handle[Any]) -> None:
            with suppress(TaskNotFound):  # it ended long ago
                await handle.cancel()

        await _for_each(cancel, reversed(list(self.handles.values())), _CONCURRENCY)

    async def retry(self) -> Run:
        """See `Run`."""
        states = await self.states()
        for name, state in states.items():
            if state is None:
                raise TaskNotFound(f"step {name!r} of run {self.id} cannot be sent again: its record has expired")
            if not state.settled:
                raise ConfigurationError(
                    f"step {name!r} of run {self.id} is {state.value}: await run.wait() or run.cancel() first"
                )
        kept = {step for step, name in self._names.items() if states[name] is TaskState.FINISHED}
        for step in self._names:  # each() runs again as a whole
            for argument in step.args:
                if isinstance(argument, IdOf) and argument.of not in kept:
                    kept.discard(step)
        if len(kept) == len(self._names):
            return self
        return await attrs.evolve(self, attempt=self.attempt + 1).send_steps(kept)

    async def send_steps(self, kept: Collection[Step]) -> Run:
        """Sends the steps, except those that are kept from the last attempt; returns the run with their handles."""
        order, parents = self._plan.in_order()
        suffix = f"~{self.attempt}" if self.attempt > 1 else ""
        ids = {
            step: self.handles[name].id if step in kept else f"{self.id}:{name}{suffix}"
            for step, name in self._names.items()
        }
        sent = [step for step in order if step not in kept]
        tenants = {ids[step]: self.handles[self._names[step]].tenant for step in kept}
        with_run = {"xcom_run": self.id} if "fairactor_xcom" in self._host.plugins else {}
        messages = [
            (self._plan.steps.get(step) or self.tenant, _message(step, ids, parents[step], with_run, tenants))
            for step in sent
        ]
        new = dict(zip(sent, await self._host.runtime.send_many(messages), strict=True))
        names = self._names
        handles = {names[step]: new[step] if step in new else self.handles[names[step]] for step in order}
        return attrs.evolve(self, handles=handles)

    async def to_mermaid(self) -> str:
        """See `Run`."""
        states = await self.states()
        return self._plan.to_mermaid({step: states[name] for step, name in self._names.items()})


async def send_plan(host: Host, tenant: str, plan: Plan) -> Run:
    """Sends all steps of a graph, or none.

    Raises:
        GraphError: the graph has a cycle, is empty, or two of its steps have one id.
        What `Runtime.send_many` raises.
    """
    order, _ = plan.in_order()
    if not order:
        raise GraphError("the graph is empty: give it steps")
    return await SentRun(os.urandom(8).hex(), tenant, {}, host, plan, _names(order)).send_steps(())


def _message(
    step: Step,
    ids: Mapping[Step, str],
    parents: Sequence[Step],
    with_run: Mapping[str, str],
    tenants: Mapping[str, str | None],
) -> Message[Any]:
    """Returns a step as it is sent: ids replace the steps that its options and arguments name.

    Args:
        step: the step.
        ids: the id of each step.
        parents: the steps that it waits for.
        with_run: the option that shares the run's values.
        tenants: by id the tenants of the steps that were sent before.
    """
    own = step.task_options.plugin_options

    def with_ids(argument: Any) -> Any:
        if isinstance(argument, IdOf):
            return ids[argument.of]
        if isinstance(argument, ResultOf) and isinstance(argument.of, Message | Graph):
            return ResultOf(ids[last_step(argument.of)])
        return argument

    options: dict[str, Any] = {} if "xcom_run" in own else dict(with_run)
    if parents:
        given: Parents = own.get("depends_on", Parents())
        options["depends_on"] = Parents([*given, *(ids[parent] for parent in parents)], {**tenants, **given.tenants})
    args, kwargs = map_arguments(step, with_ids)
    return step.rewritten(args=args, kwargs=kwargs, id=ids[step], plugin_options=options)


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


async def _for_each(function: Callable[[T], Awaitable[None]], values: Iterable[T], limit: int) -> None:
    """Calls a function for all values, at most ``limit`` at a time; raises the first error as it is, in no group."""
    limiter = anyio.Semaphore(max(limit, 1))
    errors: list[Exception] = []

    async def call(value: T) -> None:
        async with limiter:
            try:
                await function(value)
            except Exception as error:  # noqa: BLE001 - raised below, alone
                errors.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for value in values:
            group.start_soon(call, value)
    if errors:
        raise errors[0]
