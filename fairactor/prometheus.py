"""Serves the metrics of a process to Prometheus. It needs ``pip install 'fairactor[prometheus]'``.

Call `start` before you enter a runtime, or use `serve` around it:

    async with serve(9464), Runtime(actors=[bill]) as runtime:
        await runtime.run()
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import anyio
import anyio.to_thread

from ._util.checks import check_whole_number, shown
from ._util.meters import installed_provider
from .errors import ConfigurationError

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

__all__ = ["DEFAULT_PORT", "MetricsServer", "serve", "start"]

DEFAULT_PORT: Final = 9464
"""The port that OpenTelemetry gives its exporters for Prometheus."""
_MOST: Final = 65_535

_PREPARING: Final = Lock()
_PREPARED: Final[WeakSet[Any]] = WeakSet()  # providers with a reader for Prometheus


class MetricsServer:
    """Serves ``/metrics`` from a thread, until it is stopped or the process ends."""

    def __init__(self, host: str, server: WSGIServer, thread: Thread) -> None:
        self.host: Final = host
        """The address at which it listens."""
        self.port: Final[int] = server.server_port
        """The port at which it listens."""
        self._server = server
        self._thread = thread

    def stop(self) -> None:
        """Stops serving, and waits until it has."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start(port: int = DEFAULT_PORT, host: str = "0.0.0.0") -> MetricsServer:  # noqa: S104 - Prometheus runs elsewhere
    """Starts to serve the metrics of this process. Runtimes that are entered from now on have metrics.

    It serves what is in the default registry of ``prometheus_client``: the metrics of fairactor, those that you have
    made with OpenTelemetry or ``prometheus_client``, and those of the process. If no meter provider is set, it sets
    one. To one that is set, it adds a reader.

    Args:
        port: the port; 0 for a free one, see `MetricsServer.port`. Each process needs one of its own.
        host: the address to listen at, by default all of the machine.

    Raises:
        ConfigurationError: the port cannot be used, ``fairactor[prometheus]`` is not installed, or a meter provider is
            set to which no reader can be added.
    """
    check_whole_number("port", port, 0, _MOST)
    if not isinstance(host, str):
        raise ConfigurationError(f"host={shown(host)}: give an address, such as '127.0.0.1'")
    try:
        import prometheus_client
    except ImportError:
        raise ConfigurationError(_missing("prometheus-client")) from None
    _prepare()
    try:
        server, thread = prometheus_client.start_http_server(port, host)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"port {port} of {host} cannot be used ({error}): give another port= or host=, or port=0 for any"
        ) from error
    return MetricsServer(host, server, thread)


@asynccontextmanager
async def serve(port: int = DEFAULT_PORT, host: str = "0.0.0.0") -> AsyncIterator[MetricsServer]:  # noqa: S104 - as above
    """Serves the metrics of this process as long as the block runs; see `start`."""
    server = start(port, host)
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)


def _prepare() -> None:
    """Makes sure that what OpenTelemetry measures gets into the registry, once."""
    with _PREPARING:
        provider: Any = installed_provider()
        if provider in _PREPARED:
            return
        try:
            from opentelemetry.exporter.prometheus import PrometheusMetricReader
            from opentelemetry.metrics import set_meter_provider
            from opentelemetry.sdk.metrics import MeterProvider
        except ImportError:
            raise ConfigurationError(_missing("opentelemetry-exporter-prometheus")) from None
        if provider is None:
            provider = MeterProvider(metric_readers=[PrometheusMetricReader()])
            set_meter_provider(provider)
        elif not any(isinstance(each, PrometheusMetricReader) for each in _readers(provider)):
            if not hasattr(provider, "add_metric_reader"):
                raise ConfigurationError(
                    "a meter provider is set to which no reader can be added: give it one when you make it, as in "
                    "MeterProvider(metric_readers=[PrometheusMetricReader(), …])"
                )
            provider.add_metric_reader(PrometheusMetricReader())
        _PREPARED.add(provider)


def _readers(provider: Any) -> Any:
    """Returns the readers that a provider was made with, as far as they are known."""
    found = getattr(provider, "_metric_readers", ())  # releases differ in where they keep them
    return (*found, *getattr(getattr(provider, "_sdk_config", None), "metric_readers", ()))


def _missing(package: str) -> str:
    return f"{package} is not installed: pip install 'fairactor[prometheus]'"
