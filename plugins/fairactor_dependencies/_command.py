"""The command ``fairactor runs``: shows a run of a graph as a tree, cancels and retries it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fairactor.commands import (
    OK,
    PROBLEM,
    Connection,
    Group,
    Output,
    Text,
    connection_options,
    output_options,
    shown_duration,
    state_style,
    visible,
    watch_options,
)

from ._found import FoundRun, FoundStep, find_run
from ._mapped import JOIN, SPREAD

if TYPE_CHECKING:
    from fairactor import Runtime

_MOST_OF_ERROR: Final = 200  # characters
_RUN: Final = click.argument("run", metavar="RUN")
_TENANT: Final = click.option("--tenant", metavar="NAME", help="The tenant of the run, which makes it quick to find.")


@click.group(cls=Group)
def runs() -> None:
    """Show a run of a graph as a tree with states, cancel it, and retry it.

    RUN is the id of the run (`Run.id`), or that of one of its tasks.
    """


@runs.command()
@_RUN
@_TENANT
@connection_options
@watch_options
def show(run: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Show a run as a tree; the exit code is 1 if a step has failed."""
    code = OK

    async def follow(runtime: Runtime) -> None:
        async def look() -> Sequence[Text]:
            nonlocal code
            found = await find_run(runtime, run, tenant)
            code = PROBLEM if any(step.state.value == "failed" for step in found.steps.values()) else OK
            if output.json:
                output.write(_record(found, step) for step in found.steps.values())
                return ()
            return [*_tree(found)]

        await output.follow(look)

    connection.run(follow)
    return code


@runs.command()
@_RUN
@_TENANT
@connection_options
@output_options
def cancel(run: str, tenant: str | None, connection: Connection, output: Output) -> None:
    """Cancel all steps of a run that have not ended."""

    async def change(runtime: Runtime) -> None:
        found = await find_run(runtime, run, tenant)
        number = await found.cancel()
        output.say(f"{number} tasks of run {found.id} canceled", record={"run": found.id, "canceled": number})

    connection.run(change)


@runs.command()
@_RUN
@_TENANT
@connection_options
@output_options
def retry(run: str, tenant: str | None, connection: Connection, output: Output) -> None:
    """Send the failed and the canceled steps again, with all that stand behind them.

    The messages are made of what the server has kept: retry_on= no longer applies, and steps that have finished, or
    each(), cannot run again. The service that has the graph can do that, with `await run.retry()`.
    """

    async def change(runtime: Runtime) -> None:
        found = await find_run(runtime, run, tenant)
        again = await found.retry()
        before = {step.id for step in found.steps.values()}
        new = [step for step in again.steps.values() if step.id not in before]
        if output.json:
            output.write(_record(again, step) for step in new)
        else:
            output.say(f"{len(new)} steps of run {found.id} sent again" if new else "no step has failed")

    connection.run(change)


def _record(run: FoundRun, step: FoundStep) -> dict[str, Any]:
    info = step.details.info
    return {
        "run": run.id,
        "step": step.name,
        "id": info.id,
        "tenant": info.tenant,
        "actor": info.actor,
        "state": "skipped" if step.skipped else info.state,
        "after": step.parents,
        "attempt": info.attempt,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "error": info.error,
        "items": step.items,
    }


def _tree(run: FoundRun) -> Iterator[Text]:
    """Yields the lines of a tree. A step with several parents stands below the last of them."""
    places = {name: number for number, name in enumerate(run.steps)}
    below: dict[str | None, list[FoundStep]] = {}
    for step in run.steps.values():
        last = max(step.parents, key=places.__getitem__, default=None)
        below.setdefault(last, []).append(step)
    yield Text(f"run {run.id}", "bold")
    yield from _branches(below, None, "")


def _branches(below: dict[str | None, list[FoundStep]], name: str | None, indent: str) -> Iterator[Text]:
    steps = below.pop(name, [])
    for number, step in enumerate(steps, 1):
        is_last = number == len(steps)
        line = f"{indent}{'└─' if is_last else '├─'} {_described(step)}"
        yield Text(line, "dim" if step.skipped else state_style(step.state))
        yield from _branches(below, step.name, indent + ("   " if is_last else "│  "))


def _described(step: FoundStep) -> str:
    info = step.details.info
    parts = [visible(step.name), "skipped" if step.skipped else info.state.value]
    if info.started_at is not None and info.ended_at is not None:
        parts.append(shown_duration((info.ended_at - info.started_at).total_seconds()))
    if info.actor not in (step.name, SPREAD, JOIN):
        parts.append(f"({visible(info.actor)})")
    if len(step.parents) > 1:
        parts.append(f"after {', '.join(map(visible, step.parents))}")
    if step.items:
        parts.append("items: " + ", ".join(f"{many} {state}" for state, many in step.items.items()))
    if info.error is not None and not step.skipped:
        parts.append(visible(f"{info.error.type}: {info.error.message}", longest=_MOST_OF_ERROR))
    elif step.details.held_by:
        parts.append(visible(step.details.held_by, longest=_MOST_OF_ERROR))
    return "  ".join(parts)
