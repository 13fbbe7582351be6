"""Runs that are found again on the server, without the code of their graph: for operators."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from fairactor import Message, TaskState
from fairactor.errors import ConfigurationError, TaskNotFound

from ._mapped import JOIN, SPREAD, Attempt, Mapped
from ._options import Parents
from ._placeholders import ResultOf, Selection

if TYPE_CHECKING:
    from fairactor import Runtime
    from fairactor.views import TaskDetails

_AT_ONCE: Final = 20
"""How many tasks are read at the same time."""
_PAGE: Final = 1_000
_REPEATED: Final = re.compile(r"(.+)~([0-9]{1,6})", re.DOTALL)
"""The name of a step in a later attempt at the run."""
_ITEM: Final = re.compile(r"(.+)/[0-9]+", re.DOTALL)
_TOKEN: Final = re.compile(r"[0-9a-f]{24}:([0-9]+|all|rest|1to[0-9]+)")
"""What stands in the arguments for the result of a parent, see `_batch`."""
_SKIPPED: Final = "TaskSkipped"
_OPTIONS: Final = ("timeout", "max_retries", "backoff", "backoff_cap", "result_ttl", "expires")
_OF_PLUGINS: Final = ("xcom_run", "trigger_rule", "xcom", "xcom_ttl")


@attrs.frozen
class FoundStep:
    """A step of a run that was found again."""

    name: str
    details: TaskDetails = attrs.field(repr=False)
    parents: Sequence[str]
    """The names of the steps before it."""
    items: Mapping[str, int] = attrs.field(factory=dict)
    """Of a step that joins the results of an ``each()``: how many of the items' tasks are in each state."""

    @property
    def id(self) -> str:
        """The id of its task."""
        return self.details.info.id

    @property
    def state(self) -> TaskState:
        """The state of its task."""
        return self.details.info.state

    @property
    def skipped(self) -> bool:
        """Whether it was canceled because it had nothing to do."""
        error = self.details.info.error
        return self.state is TaskState.CANCELED and error is not None and error.type == _SKIPPED


@attrs.frozen
class FoundRun:
    """A run that was found again, as it was then. `find_run` returns one."""

    id: str
    steps: Mapping[str, FoundStep]
    """Its steps by name, parents first: those whose records have not expired, each in the latest attempt."""
    _runtime: Runtime = attrs.field(repr=False)

    async def cancel(self) -> int:
        """Cancels all steps and items that have not ended, and lets no more items in; returns how many tasks."""
        runtime = self._runtime
        steps = [*self.steps.values()][::-1]
        states = await runtime.cancel_many(runtime.handle(step.id, step.details.info.tenant) for step in steps)
        canceled = sum(state is not None and not state.settled for state in states)
        for mapped in _maps_of(self.steps.values()):
            await mapped.stop(runtime.host)
            found = await mapped.items(runtime.host)
            live = [item for item in found.values() if item.state is not None and not item.state.settled]
            states = await runtime.cancel_many(runtime.handle(item.id, item.tenant) for item in reversed(live))
            canceled += sum(state is not None and not state.settled for state in states)
        return canceled

    async def retry(self) -> FoundRun:
        """Sends the failed and the canceled steps again, with all that stand behind them, as `Run.retry` does.

        The messages are made of what the server has kept, so ``retry_on=`` and ``no_retry_on=`` no longer apply.

        Raises:
            ConfigurationError: a step has not ended; or a step that has finished, or an ``each()``, would have to run
                again, whose arguments are not kept. `Run.retry` of the service that has the graph can do that.
            What `Runtime.send_many` raises.
        """
        repeated = self._to_repeat()
        if not repeated:
            return self
        attempt = 1 + max(_attempt_of(step.id) for step in self.steps.values())
        ids = {
            name: f"{self.id}:{name}~{attempt}" if name in repeated else step.id for name, step in self.steps.items()
        }
        await self._runtime.send_many(
            (step.details.info.tenant, self._message(step, ids))
            for name, step in self.steps.items()
            if name in repeated
        )
        return await find_run(self._runtime, self.id)

    def _to_repeat(self) -> set[str]:
        repeated: set[str] = set()
        for name, step in self.steps.items():
            if not step.state.settled:
                raise ConfigurationError(
                    f"step {name!r} of run {self.id} is {step.state.value}: wait, or cancel the run"
                )
            failed = step.state is not TaskState.FINISHED and not step.skipped
            if failed or not repeated.isdisjoint(step.parents):
                repeated.add(name)
        for name in repeated:
            step = self.steps[name]
            if step.state is TaskState.FINISHED or step.details.info.actor in {SPREAD, JOIN}:
                raise ConfigurationError(
                    f"step {name!r} of run {self.id} would have to run again, and its arguments are not kept: only the "
                    "service that has the graph can do that, with `await run.retry()`"
                )
        return repeated

    def _message(self, step: FoundStep, ids: Mapping[str, str]) -> Message[Any]:
        """Makes the message of a step again, of what the server has kept."""
        details = step.details
        info, options = details.info, details.options
        of_id = {self.steps[name].id: new for name, new in ids.items()}
        parents = Parents([of_id.get(parent, parent) for parent in details.after], silent=_silent_of(details))
        args = [_placeholder(value, parents) for value in info.args]
        kwargs = {name: _placeholder(value, parents) for name, value in info.kwargs.items()}
        given: Any = {name: options[name] for name in _OPTIONS if name in options}
        message = Message.for_actor(info.actor, *args, **kwargs)
        message = message.options(queue=info.queue, priority=info.priority, limits=details.limits or None, **given)
        of_plugins: dict[str, Any] = {name: options[name] for name in _OF_PLUGINS if name in options}
        if parents:
            of_plugins["depends_on"] = parents
        return message.rewritten(id=ids[step.name], plugin_options=of_plugins)


async def find_run(runtime: Runtime, run_id: str, tenant: str | None = None) -> FoundRun:
    """Finds a run again by its id, with those of its steps whose records have not expired.

    Args:
        runtime: a runtime of the namespace.
        run_id: `Run.id`, or the id of one of its tasks.
        tenant: the tenant of the run; without it, all tenants are searched, which may take long.

    Raises:
        TaskNotFound: there is no such run, or all its records have expired.
    """
    run_id, first = await _first_of(runtime, run_id, tenant)
    found: dict[str, TaskDetails] = {}
    wanted = set(first)
    while wanted:
        some = sorted(wanted)[:_AT_ONCE]
        wanted -= {*some}
        for details in await asyncio.gather(*(_read(runtime, task_id) for task_id in some)):
            if details is None:
                continue
            found[details.info.id] = details
            related = {*details.after, *(child.id for child in details.children)}
            wanted |= {each for each in related if each.startswith(f"{run_id}:")} - found.keys()
        wanted -= found.keys()
    if not found:
        raise TaskNotFound(
            f"there is no run {run_id!r}, or the records of its tasks have expired"
            + ("" if tenant is None else f"; it was looked for among the tasks of tenant {tenant!r}")
        )
    steps = _in_order(_steps_of(run_id, found))
    return FoundRun(run_id, {step.name: await _with_items(runtime, step, steps) for step in steps}, runtime)


async def _first_of(runtime: Runtime, given: str, tenant: str | None) -> tuple[str, list[str]]:
    """Returns the id of a run, and tasks of it."""
    details = await _read(runtime, given, tenant)
    run_id, found = given, list[str]()
    if details is not None:
        run_id, separator, _ = given.rpartition(":")
        if not separator:
            raise TaskNotFound(f"task {given!r} is not a step of a run")
        found, tenant = [given], details.info.tenant
    after: str | None = None
    while True:
        page = await runtime.tasks(tenant=tenant, text=f"{run_id}:", limit=_PAGE, after=after)
        found += [info.id for info in page.tasks if info.id.startswith(f"{run_id}:") and not _ITEM.fullmatch(info.id)]
        after = page.after
        if after is None:
            return run_id, found


async def _read(runtime: Runtime, task_id: str, tenant: str | None = None) -> TaskDetails | None:
    try:
        return await runtime.task(task_id, tenant)
    except TaskNotFound:
        return None


def _name_of(run_id: str, task_id: str) -> str:
    name = task_id[len(run_id) + 1 :]
    repeated = _REPEATED.fullmatch(name)
    return repeated[1] if repeated else name


def _attempt_of(task_id: str) -> int:
    repeated = _REPEATED.fullmatch(task_id)
    return int(repeated[2]) if repeated else 1


def _steps_of(run_id: str, found: Mapping[str, TaskDetails]) -> list[FoundStep]:
    latest: dict[str, str] = {}
    for task_id in sorted(found, key=_attempt_of):
        latest[_name_of(run_id, task_id)] = task_id
    steps = []
    for name, task_id in latest.items():
        parents = dict.fromkeys(
            _name_of(run_id, parent) for parent in found[task_id].after if parent.startswith(f"{run_id}:")
        )
        steps.append(FoundStep(name, found[task_id], [parent for parent in parents if parent in latest]))
    return steps


def _in_order(steps: Sequence[FoundStep]) -> list[FoundStep]:
    """Returns steps so that parents come first, and otherwise in the order in which they were sent."""
    left = sorted(steps, key=lambda step: (step.details.info.enqueued_at, step.name))
    ordered: list[FoundStep] = []
    names: set[str] = set()
    while left:
        ready = next((step for step in left if names.issuperset(step.parents)), left[0])  # a damaged one has a cycle
        left.remove(ready)
        ordered.append(ready)
        names.add(ready.name)
    return ordered


def _maps_of(steps: Iterable[FoundStep]) -> Iterator[Mapped]:
    """Yields each ``each()`` of a run."""
    by_name = {step.name: step for step in steps}
    for step in by_name.values():
        spread = next((by_name[name] for name in step.parents if by_name[name].details.info.actor == SPREAD), None)
        if step.details.info.actor == JOIN and spread is not None:
            nothing: Any = None  # items are found by the ids alone
            yield Mapped(step.name, nothing, nothing, step.details.info.tenant, [Attempt(spread.id, step.id)])


async def _with_items(runtime: Runtime, step: FoundStep, steps: Sequence[FoundStep]) -> FoundStep:
    if step.details.info.actor != JOIN:
        return step
    for mapped in _maps_of(steps):
        if mapped.name == step.name:
            items = (await mapped.items(runtime.host)).values()
            counts = Counter("expired" if item.state is None else item.state.value for item in items)
            return attrs.evolve(step, items=counts)
    return step


def _silent_of(details: TaskDetails) -> int:
    """Returns how many of the parents do not give their results: see `Parents.silent`."""
    for value in (*details.info.args, *details.info.kwargs.values()):
        suffix = _suffix_of(value)
        if suffix.startswith("1to"):
            return len(details.after) - int(suffix[3:])
    return 0


def _suffix_of(value: Any) -> str:
    token = value.get("$value") if isinstance(value, dict) else value
    match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    return match[1] if match else ""


def _placeholder(value: Any, parents: Sequence[str]) -> Any:
    """Returns what a stored argument stands for: itself, or the result of a parent."""
    suffix = _suffix_of(value)
    if not suffix:
        return value
    tag = value["$type"] if isinstance(value, dict) else None
    if suffix == Selection.ALL.value or suffix.startswith("1to"):
        return ResultOf(Selection.ALL, tag=tag)
    if suffix == Selection.ALL_BUT_FIRST.value:
        return ResultOf(Selection.ALL_BUT_FIRST, tag=tag)
    number = int(suffix)
    return ResultOf(parents[number - 1], tag=tag) if 0 < number <= len(parents) else value
