"""What OpenTelemetry metrics cost: no-op tasks over 1,000 tenants, drained by one process, with and without an SDK.

All tasks are sent first. Then a runtime with 100 workers that keeps no results drains them: once without an SDK for
metrics, and once with one that collects them in memory. Compare a release with the one before it without an SDK, too.

- throughput: tasks / (from the first start of a handler until the server has every outcome).
- process time: processor time of this process, per task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.metrics import _internal as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from .bench import Bench
from .drain import Drained, drain_runtime
from .figures import Figure, Goal, at_least


async def run(bench: Bench, *, tasks: int = 20_000, tenants: int = 1_000, workers: int = 100) -> list[Figure]:
    with_sdk: list[Drained] = []
    without: list[Drained] = []
    for _ in bench.each_round():
        await bench.clean()
        without.append(await drain_runtime(bench, tasks, tenants, workers))
        await bench.clean()
        with _sdk():
            with_sdk.append(await drain_runtime(bench, tasks, tenants, workers))

    def figure(name: str, unit: str, value: Callable[[Drained], float], goal: Goal | None = None) -> Figure:
        return Figure(name, unit, [*map(value, with_sdk)], [*map(value, without)], "no SDK", goal)

    return [
        figure("throughput with an SDK", "tasks/s", lambda drained: tasks / drained.seconds, at_least(0.7)),
        figure("process time with an SDK", "µs/task", lambda drained: drained.process / tasks),
    ]


@contextmanager
def _sdk() -> Iterator[None]:
    """Installs an SDK for the block, although OpenTelemetry allows setting it only once per process."""
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    before = api._METER_PROVIDER  # noqa: SLF001 - there is no other way to take it away again
    api._METER_PROVIDER = provider  # noqa: SLF001 - as above
    try:
        yield
    finally:
        api._METER_PROVIDER = before  # noqa: SLF001 - as above
        provider.shutdown()
