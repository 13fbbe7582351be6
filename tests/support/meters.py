"""Metrics that an OpenTelemetry SDK has received, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.metrics import _internal as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric


class Reader(InMemoryMetricReader):
    """Collects the metrics of fairactor."""

    def metrics(self) -> dict[str, Metric]:
        """Returns all metrics that have values."""
        data = self.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[Any]:
        """Returns the values of a metric, one for each combination of attributes."""
        metric = self.metrics().get(name)
        return list(metric.data.data_points) if metric else []

    def values(self, name: str, *attributes: str) -> dict[Any, Any]:
        """Returns the sums, last values or counts of a metric, by the values of some of its attributes."""
        found: dict[Any, Any] = {}
        for point in self.points(name):
            given = tuple((point.attributes or {}).get(attribute) for attribute in attributes)
            key = given[0] if len(given) == 1 else given
            found[key] = found.get(key, 0) + (point.count if isinstance(point, HistogramDataPoint) else point.value)
        return found


@contextmanager
def measuring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Installs an SDK for one test, although OpenTelemetry allows setting it only once per process."""
    reader = Reader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    monkeypatch.setattr(api, "_METER_PROVIDER", provider)
    yield reader
    provider.shutdown()
