"""Runs: graphs that were sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import attrs

from fairactor import Handle, Message, TaskCanceled, TaskFailed, TaskState
from fairactor.errors import ConfigurationError, TaskNotFound
from fairactor.plugins import Host, Run

from ._errors import GraphError
from ._plan import Plan, Step, plan_of
from ._results import IdOf, ResultOf

_AT_ONCE = 100  # tasks that are asked about or canceled at the same time


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

        async def wait(place: int) -> None:
            found[place] = await last[place].result(None)

        try:
            with anyio.fail_after(timeout):
                if len(last) == 1:
                    return await last[0].result(None)
                await _all(wait, range(len(last)), len(last))
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
                await _all(wait, self.handles.values(), len(self.handles))
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has not ended after {timeout:g} s; it goes on") from None
        return await self.states()

    async def states(self) -> dict[str, TaskState | None]:
        """See `Run`."""
        states: dict[str, TaskState | None] = {}

        async def look(name: str) -> None:
            try:
                states[name] = await self.handles[name].state()
            except TaskNotFound:
                states[name] = None

        await _all(look, self.handles, _AT_ONCE)
        return {name: states[name] for name in self.handles}

    async def cancel(self) -> None:
        """See `Run`."""

        async def cancel(handle: Handle[Any]) -> None:
            with suppress(TaskNotFound):  # it has ended, long ago
                await handle.cancel()

        await _all(cancel, reversed(list(self.handles.values())), _AT_ONCE)

    async def retry(self) -> Run:
        """See `Run`."""
        states = await self.states()
        for name, state in states.items():
            if state is None:
                raise TaskNotFound(f"step {name!r} of run {self.id} cannot be sent again: its record has expired")
            if not state.settled:
                raise ConfigurationError(
                    f"step {name!r} of run {self.id} is {state.value}: await run.wait(), or cancel() it"
                )
        kept = {step for step, name in self._names.items() if states[name] is TaskState.FINISHED}
        for step in self._names:  # what was spread out is repeated as a whole
            for argument in step.args:
                if isinstance(argument, IdOf) and argument.of not in kept:
                    kept.discard(step)
        if len(kept) == len(self._names):
            return self
        return await _send(self._host, attrs.evolve(self, attempt=self.attempt + 1), kept)

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
    run = SentRun(os.urandom(8).hex(), tenant, {}, host, plan, _names(order))
    return await _send(host, run, frozenset())


async def _send(host: Host, run: SentRun, kept: Iterable[Step]) -> Run:
    """Sends the steps of a run, except those that are kept from its last attempt."""
    plan, names = run._plan, run._names  # noqa: SLF001 - of this module
    order, parents = plan.in_order()
    again = f"~{run.attempt}" if run.attempt > 1 else ""
    ids = {step: run.handles[name].id for step, name in names.items() if step in kept}
    ids |= {step: f"{run.id}:{name}{again}" for step, name in names.items() if step not in kept}
    sent = [step for step in order if step not in kept]
    with_run = {"xcom_run": run.id} if "fairactor_xcom" in host.plugins else {}
    messages = [(plan.steps.get(step) or run.tenant, _message(step, ids, parents[step], with_run)) for step in sent]
    handles = dict(zip(sent, await host.runtime.send_many(messages), strict=True))
    of_all = {names[step]: handles[step] if step in handles else run.handles[names[step]] for step in order}
    return attrs.evolve(run, handles=of_all)


def _message(step: Step, ids: Mapping[Step, str], parents: Sequence[Step], with_run: Mapping[str, Any]) -> Message[Any]:
    """A step as it is sent."""
    own = step.task_options.plugin_options

    def with_ids(argument: Any) -> Any:
        if isinstance(argument, IdOf):
            return ids[argument.of]
        if isinstance(argument, ResultOf) and not isinstance(argument.of, str):
            return ResultOf(ids[plan_of(argument.of).sinks[0]])
        return argument

    options = {} if "xcom_run" in own else dict(with_run)
    if parents:
        options["depends_on"] = [*own.get("depends_on", ()), *(ids[first] for first in parents)]
    args = [with_ids(argument) for argument in step.args]
    kwargs = {name: with_ids(argument) for name, argument in step.kwargs.items()}
    return step.rewritten(args=args, kwargs=kwargs, id=ids[step], plugin_options=options)


def _names(order: Sequence[Step]) -> dict[Step, str]:
    """A name for each step, no two alike.

    Raises:
        GraphError: two have one id.
    """
    taken: dict[str, Step] = {}
    for step in order:
        if step.task_options.id is not None and taken.setdefault(step.task_options.id, step) is not step:
            raise GraphError(
                f"two steps have the id {step.task_options.id!r}: give each one of its own; nothing was sent"
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


async def _all(do: Any, what: Iterable[Any], at_once: int) -> None:
    """Does it for all of them, so many at a time; raises the first error as it is."""
    limiter = anyio.Semaphore(max(at_once, 1))
    errors: list[Exception] = []

    async def one(each: Any) -> None:
        async with limiter:
            try:
                await do(each)
            except Exception as error:  # noqa: BLE001 - raised below, alone
                errors.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for each in what:
            group.start_soon(one, each)
    if errors:
        raise errors[0]
