"""The report of a run, for the display and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import attrs

from fairactor import FairactorError

from .fairness import Service, jain_index, least_to_compare, replay_fifo, service_while_all_had_work
from .sources import Source
from .survey import Survey
from .workload import Progress


class AllFailed(FairactorError):
    """All tasks failed, so there is nothing to report."""


@attrs.frozen
class Served:
    """The waiting times of one tenant, or of all. Times are seconds since all tasks were queued."""

    first: float
    """How long the first task waited."""
    median: float
    """How long the median task waited."""
    ended: float
    """When the last task ended."""
    throughput: float
    """Tasks per second, until then."""


@attrs.frozen
class Contents:
    """The contents of the files."""

    lines: int
    functions: int
    classes: int
    bytes: int
    errors: int
    """How many files cannot be read or parsed."""


@attrs.frozen
class TenantReport:
    """One tenant: how fairactor served it, and how one FIFO queue would have."""

    tenant: str
    tasks: int
    left_out: int
    contents: Contents
    fair: Served
    fifo: Served


@attrs.frozen
class Report:
    """A whole run."""

    tenants: Sequence[TenantReport]
    """The largest first, in the order in which their tasks were sent."""
    processes: int
    tasks: int
    left_out: int
    failed: int
    contents: Contents
    fair: Served
    fifo: Served
    compared: int
    """How many tenants Jain's index compares."""
    least: int
    """The least number of tasks of a compared tenant."""
    jain: float
    """Jain's index of the numbers of tasks that began while all compared tenants had tasks waiting."""
    fifo_jain: float
    """The same index for one FIFO queue."""

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON types. Times are seconds, rounded to microseconds."""
        overall = attrs.asdict(self, filter=lambda field, _: field.name != "tenants")
        tenants = [attrs.asdict(tenant) for tenant in self.tenants]
        document: dict[str, Any] = _rounded({"overall": overall, "tenants": tenants})
        return document


def make_report(progress: Progress) -> Report:
    """Makes the report of a run that has ended.

    Raises:
        AllFailed: all tasks failed.
    """
    sources = [progress.sources[place] for place in progress.places]
    done = [(source, found) for source, found in zip(sources, progress.surveys, strict=True) if found]
    if not done:
        raise AllFailed(f"all {progress.failed} tasks failed; the log above shows the errors")
    queued = progress.queued_at or 0.0
    fair = [Service(source.tenant, found.began - queued, found.ended - queued) for source, found in done]
    fifo = replay_fifo(fair, progress.processes)
    least = least_to_compare(len(source.files) for source in progress.sources)
    shares = service_while_all_had_work(fair, least)
    return Report(
        tenants=_tenants(progress.sources, done, fair, fifo),
        processes=progress.processes,
        tasks=len(done),
        left_out=sum(source.left_out for source in progress.sources),
        failed=progress.failed,
        contents=_contents([found for _, found in done]),
        fair=_served(fair),
        fifo=_served(fifo),
        compared=len(shares),
        least=least,
        jain=jain_index(shares.values()),
        fifo_jain=jain_index(service_while_all_had_work(fifo, least).values()),
    )


def _tenants(
    sources: Sequence[Source],
    done: Sequence[tuple[Source, Survey]],
    fair: Sequence[Service],
    fifo: Sequence[Service],
) -> list[TenantReport]:
    parts: defaultdict[str, list[tuple[Survey, Service, Service]]] = defaultdict(list)
    for (source, found), measured, replayed in zip(done, fair, fifo, strict=True):
        parts[source.tenant].append((found, measured, replayed))
    return [
        TenantReport(
            tenant=source.tenant,
            tasks=len(part),
            left_out=source.left_out,
            contents=_contents([found for found, _, _ in part]),
            fair=_served([measured for _, measured, _ in part]),
            fifo=_served([replayed for _, _, replayed in part]),
        )
        for source in sources
        if (part := parts.get(source.tenant))
    ]


def _served(services: Sequence[Service]) -> Served:
    waits = [service.began for service in services]
    ended = max(service.ended for service in services)
    return Served(min(waits), median(waits), ended, len(waits) / ended)


def _contents(surveys: Sequence[Survey]) -> Contents:
    return Contents(
        lines=sum(found.lines for found in surveys),
        functions=sum(found.functions for found in surveys),
        classes=sum(found.classes for found in surveys),
        bytes=sum(found.bytes for found in surveys),
        errors=sum(found.errors for found in surveys),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
