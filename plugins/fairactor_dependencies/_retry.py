"""Which steps of a run are sent again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from fairactor import TaskState
from fairactor.errors import ConfigurationError, TaskNotFound

from ._mapped import Mapped
from ._plan import Step
from ._states import SKIPPED


def check_ended(run: str, states: Mapping[str, TaskState | None]) -> None:
    """Checks that the steps of a run have ended, and that it is known how.

    Raises:
        TaskNotFound: the record of a step has expired.
        ConfigurationError: a step has not ended.
    """
    for name, state in states.items():
        if state is None:
            raise TaskNotFound(f"step {name!r} of run {run} cannot be sent again: its record has expired")
        if not state.settled:
            raise ConfigurationError(
                f"step {name!r} of run {run} is {state.value}: await run.wait() or run.cancel() first"
            )


def steps_to_repeat(
    order: Sequence[Step],
    parents: Mapping[Step, Collection[Step]],
    letters: Mapping[Step, bytes],
    maps: Iterable[Mapped],
    failed_maps: Collection[Mapped],
) -> set[Step]:
    """Returns the steps that failed or were canceled, and all that come after them.

    A skipped step has done what it had to do. The two steps of an ``each()`` are repeated together; the items that have
    finished are not.

    Args:
        order: the steps, parents first.
        parents: the parents of each step.
        letters: how each step ended.
        maps: each ``each()`` of the run.
        failed_maps: those with items that have not finished.
    """
    spreads = {mapped.join: mapped.spread for mapped in maps}
    repeated = {step for step in order if letters[step] not in (b"F", SKIPPED)}
    for mapped in failed_maps:
        repeated |= {mapped.spread, mapped.join}
    before = -1
    while before < len(repeated):
        before = len(repeated)
        for step in order:
            if step not in repeated and not repeated.isdisjoint(parents[step]):
                repeated.add(step)
        repeated |= {spreads[step] for step in repeated if step in spreads}
    return repeated
