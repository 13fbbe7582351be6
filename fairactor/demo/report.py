"""What there is to tell about a run, for people and for machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import attrs

from fairactor import FairactorError

from .fairness import Service, compared, jain_index, replay_fifo, service_while_all_had_work
from .sources import Source
from .survey import Survey
from .workload import Progress


class AllFailed(FairactorError):
    """No task has a result."""


@attrs.frozen
class Served:
    """How somebody was served; times are seconds after all tasks were queued."""

    first: float
    """How long the first task waited."""
    median: float
    """How long the median task waited."""
    ended: float
    """When the last task ended."""
    throughput: float
    """Tasks a second, until then."""


@attrs.frozen
class Contents:
    """What is in the files."""

    lines: int
    functions: int
    classes: int
    bytes: int
    errors: int
    """Files that cannot be read or parsed."""


@attrs.frozen
class TenantReport:
    """One tenant: as fairactor served it, and as one FIFO would have."""

    tenant: str
    tasks: int
    left_out: int
    contents: Contents
    fair: Served
    fifo: Served


@attrs.frozen
class Report:
    """The whole run."""

    tenants: Sequence[TenantReport]
    """The largest first, which is the order in which they were sent."""
    processes: int
    tasks: int
    left_out: int
    failed: int
    contents: Contents
    fair: Served
    fifo: Served
    compared: int
    """How many tenants Jain's index is about."""
    least: int
    """How many tasks each of these has, at least."""
    jain: float
    """Jain's index over the tasks of each that were served until the first of these tenants ran out."""
    fifo_jain: float

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it. Times are seconds, to the microsecond."""
        overall = attrs.asdict(self, filter=lambda field, _: field.name != "tenants")
        tenants = [attrs.asdict(tenant) for tenant in self.tenants]
        document: dict[str, Any] = _rounded({"overall": overall, "tenants": tenants})
        return document


def make_report(progress: Progress) -> Report:
    """The report of a run that has ended.

    Raises:
        AllFailed: there is nothing to report.
    """
    sources = [progress.sources[place] for place in progress.places]
    done = [(source, found) for source, found in zip(sources, progress.surveys, strict=True) if found]
    if not done:
        raise AllFailed(f"all {progress.failed} tasks failed; the log above says why")
    queued = progress.queued_at or 0.0
    fair = [Service(source.tenant, found.began - queued, found.ended - queued) for source, found in done]
    fifo = replay_fifo(fair, progress.processes)
    least = compared(len(source.files) for source in progress.sources)
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
    for (source, found), as_it_was, as_fifo in zip(done, fair, fifo, strict=True):
        parts[source.tenant].append((found, as_it_was, as_fifo))
    return [
        TenantReport(
            tenant=source.tenant,
            tasks=len(part),
            left_out=source.left_out,
            contents=_contents([found for found, _, _ in part]),
            fair=_served([as_it_was for _, as_it_was, _ in part]),
            fifo=_served([as_fifo for _, _, as_fifo in part]),
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
