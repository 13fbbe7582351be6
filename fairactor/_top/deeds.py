"""What the capital keys do: what an action would change, and the change itself."""

from __future__ import annotations

from typing import Final

from fairactor._model.states import TaskState
from fairactor.errors import FairactorError
from fairactor.runtime import Runtime

from .model import Act, Deed, Question, View
from .text import fit, number, visible

_NAME: Final = 60  # cells of a name in a question


class NothingToDo(FairactorError):
    """The action would change nothing."""


async def ask(runtime: Runtime, deed: Deed) -> Question:
    """Asks the server what an action is about, and makes the question from it.

    Raises:
        NothingToDo: the action would change nothing.
        FairactorError: as the methods of `Runtime`.
    """
    match deed.kind:
        case View.TENANTS:
            text = await _about_tenant(runtime, deed)
        case View.LIMITS:
            text = await _about_limit(runtime, deed)
        case _:
            text = await _about_task(runtime, deed)
    return Question(deed, text)


async def _about_tenant(runtime: Runtime, deed: Deed) -> str:
    counts = await runtime.tenant(deed.name).stats()
    name, go_on = _short(deed.name), f"{number(counts.started)} that run go on"
    waiting = counts.queued + counts.scheduled + counts.deferred
    if deed.act is Act.PAUSE:
        return f"Pause {name}? {number(waiting)} waiting tasks will not start; {go_on}."
    if deed.act is Act.RESUME:
        return f"Resume {name}? {number(counts.queued)} queued tasks may start."
    if not waiting:
        raise NothingToDo(f"{name} has no waiting tasks")
    parts = f"{number(counts.queued)} queued, {number(counts.scheduled)} scheduled, {number(counts.deferred)} deferred"
    return f"CANCEL {number(waiting)} waiting tasks of {name} ({parts}) for good? {go_on}."


async def _about_limit(runtime: Runtime, deed: Deed) -> str:
    usage = await runtime.limit(deed.name).usage()
    name = _short(deed.name)
    if deed.act is Act.PAUSE:
        return f"Pause the limit {name} for all tenants? {number(usage.running)} tasks that run go on."
    return f"Resume the limit {name}? {number(usage.waiting)} tenants wait for it."


async def _about_task(runtime: Runtime, deed: Deed) -> str:
    info = await runtime.handle(deed.name, deed.tenant).info()
    what = f"{_short(info.actor)} of {_short(info.tenant)} ({_short(deed.name)})"
    if deed.act is Act.CANCEL:
        if info.state.settled:
            raise NothingToDo(f"this task has ended: it is {info.state}")
        return f"CANCEL 1 task for good, {what}? It is {info.state}."
    if info.state is not TaskState.FAILED:
        raise NothingToDo(f"only a task that has failed can be sent again; this one is {info.state}")
    why = f" with {_short(info.error.type)}" if info.error else ""
    return f"Send 1 dead letter again, {what}? It failed{why} after {info.attempt} attempts."


async def perform(runtime: Runtime, deed: Deed) -> str:
    """Does it; returns what has happened.

    Raises:
        FairactorError: as the methods of `Runtime`.
    """
    match deed.kind:
        case View.TENANTS:
            return await _change_tenant(runtime, deed)
        case View.LIMITS:
            return await _change_limit(runtime, deed)
        case _:
            return await _change_task(runtime, deed)


async def _change_tenant(runtime: Runtime, deed: Deed) -> str:
    tenant, name = runtime.tenant(deed.name), _short(deed.name)
    if deed.act is Act.PURGE:
        return f"canceled {number(await tenant.purge())} tasks of {name}"
    await (tenant.pause() if deed.act is Act.PAUSE else tenant.resume())
    return f"{deed.act}d {name}"


async def _change_limit(runtime: Runtime, deed: Deed) -> str:
    limit = runtime.limit(deed.name)
    await (limit.pause() if deed.act is Act.PAUSE else limit.resume())
    return f"{deed.act}d the limit {_short(deed.name)}"


async def _change_task(runtime: Runtime, deed: Deed) -> str:
    handle, name = runtime.handle(deed.name, deed.tenant), _short(deed.name)
    if deed.act is Act.REDRIVE:
        await handle.redrive()
        return f"sent task {name} again"
    before = await handle.cancel()
    return f"task {name} had ended: {before}" if before.settled else f"canceled task {name}, which was {before}"


def _short(name: str) -> str:
    return fit(visible(name), _NAME).rstrip()
