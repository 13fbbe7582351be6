"""The metrics of a runtime, for an OpenTelemetry SDK.

An SDK takes several microseconds for each value that it records, so whatever can be counted here is only read when the
metrics are collected. Names follow the semantic conventions for messaging. docs/metrics.md lists all metrics.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

import attrs
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, NoOpMeterProvider, Observation

from . import instruments
from .checks import DEFAULT_QUEUE
from .failures import exception_names
from .instruments import Instrument
from .spans import SCHEMA, version

OTHER: Final = "_OTHER"
"""Stands for what would be too many values of an attribute."""
MOST_SERIES: Final = 1000
"""The most combinations of attributes of one instrument: names of errors and actors may come from anywhere."""

MOST_WAITS: Final = 500
"""About how many waits are recorded in a second. Of more a random part is, so that tasks stay cheap."""

T = TypeVar("T")
Readings = Mapping[tuple[tuple[str, str], ...], float]
"""The values of a gauge, by their attributes."""
Values = Mapping[Instrument, Readings]
"""The values of gauges."""


def has_meter_sdk() -> bool:
    """Whether a meter provider is installed. A runtime asks once, when it is entered."""
    return installed_provider() is not None


def installed_provider() -> MeterProvider | None:
    """Returns the meter provider of an SDK, if one is set. What stands in for one has no class that is public."""
    found = metrics.get_meter_provider()
    stands_in = isinstance(found, NoOpMeterProvider) or type(found).__name__ == "_ProxyMeterProvider"
    return None if stands_in else found


@attrs.frozen
class SlotUse:
    """The slots of a runtime of one kind."""

    kind: str
    size: int
    running: int


@attrs.frozen
class _Namespace:
    """What was read of a namespace, and until when it counts."""

    values: Values
    until: float  # by the monotonic clock


class _Instruments:
    """The instruments of a meter provider. An SDK keeps them for good, so runtimes that come and go share them."""

    def __init__(self, provider: MeterProvider) -> None:
        self.meter: Final = provider.get_meter("fairactor", version(), schema_url=SCHEMA)
        self.histograms: Final = {
            each: _make_histogram(self.meter, each) for each in instruments.INSTRUMENTS if each.kind == "histogram"
        }
        self._lock = threading.Lock()
        self._live: list[Meters] = []
        self._left: dict[Instrument, Counter[tuple[str, ...]]] = {}
        for each in instruments.INSTRUMENTS:
            if each.kind == "counter":
                observe = partial(self._counted, each)
                self.meter.create_observable_counter(each.name, [observe], each.unit, each.description)
            elif each.kind == "gauge":
                observe = partial(self._gauged, each)
                self.meter.create_observable_gauge(each.name, [observe], each.unit, each.description)

    def join(self, meters: Meters) -> None:
        """Adds the metrics of a runtime."""
        with self._lock:
            self._live.append(meters)

    def leave(self, meters: Meters) -> None:
        """Keeps the counts of a runtime that was left, and nothing else of it."""
        with self._lock:
            if meters in self._live:
                self._live.remove(meters)
                for each, counts in meters.counts.items():
                    self._left.setdefault(each, Counter()).update(counts)

    # Called when metrics are collected, mostly in another thread

    def _counted(self, instrument: Instrument, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            total = Counter(self._left.get(instrument, {}))
            for meters in self._live:
                total.update(dict(meters.counts[instrument]))
        return [Observation(number, dict(key)) for key, number in total.items()]  # type: ignore[arg-type]  # keys are pairs

    def _gauged(self, instrument: Instrument, _: CallbackOptions) -> Iterable[Observation]:
        found: dict[tuple[tuple[str, str], ...], float] = {}
        with self._lock:
            live = tuple(self._live)
        for meters in live:
            for key, value in meters.gauges(instrument):
                together = max if instrument in instruments.OF_NAMESPACES else _sum
                found[key] = together(found[key], value) if key in found else value
        return [Observation(value, dict(key)) for key, value in found.items()]


def _sum(one: float, other: float) -> float:
    return one + other


def _make_histogram(meter: Meter, instrument: Instrument) -> Histogram:
    bounds = list(instrument.bounds)
    return meter.create_histogram(
        instrument.name, instrument.unit, instrument.description, explicit_bucket_boundaries_advisory=bounds
    )


_OF_PROVIDERS: Final[WeakKeyDictionary[MeterProvider, _Instruments]] = WeakKeyDictionary()
_MAKING: Final = threading.Lock()


def _instruments_of(provider: MeterProvider) -> _Instruments:
    with _MAKING:
        found = _OF_PROVIDERS.get(provider)
        if found is None:
            found = _OF_PROVIDERS[provider] = _Instruments(provider)
        return found


class Meters:
    """Records the metrics of a runtime. Make one only if there is an SDK, and close it.

    Args:
        address: the name of the server, or the path of its socket.
        port: its port; None for a socket.
        namespace: the runtime's namespace.
    """

    def __init__(self, address: str, port: int | None, namespace: str) -> None:
        self._instruments = _instruments_of(metrics.get_meter_provider())
        self._messaging: dict[str, Any] = {"messaging.system": "fairactor"}
        if address:
            self._messaging["server.address"] = address
        if port is not None:
            self._messaging["server.port"] = port
        self._namespace = ("fairactor.namespace", namespace)
        histograms = self._instruments.histograms
        self._operation, self._process = histograms[instruments.OPERATION], histograms[instruments.PROCESS]
        self._wait, self._script = histograms[instruments.WAIT], histograms[instruments.SCRIPT]
        self.counts: Final[dict[Instrument, Counter[Any]]] = {
            each: Counter() for each in instruments.INSTRUMENTS if each.kind == "counter"
        }
        self._consumed = self.counts[instruments.CONSUMED]
        self._waits = _Sample(MOST_WAITS)
        self._of_messages = _Cache(lambda key: self._messaging | _messaging(*key))
        self._of_waits = _Cache(lambda key: dict([self._namespace, *_named(*key)]))
        self._of_scripts = _Cache(lambda key: dict([self._namespace, *_script(*key)]))
        self._keys = _Cache(lambda key: (*self._messaging.items(), *_messaging(*key).items()))
        self._own_keys = _Cache(lambda key: (self._namespace, *_failed(*key)))
        self.counts[instruments.LEASES][self._own_keys["", ""]] = 0  # so that the first one is an increase
        self.slots: Callable[[], Iterable[SlotUse]] | None = None
        """Returns how many slots there are of each kind; called in other threads."""
        self._of_namespace = _Namespace({}, 0)
        self._instruments.join(self)

    @property
    def meter(self) -> Meter:
        """The meter, for instruments of plugins."""
        return self._instruments.meter

    def close(self) -> None:
        """Ends the gauges. What was counted stays."""
        self._instruments.leave(self)

    # Sending and canceling

    def operation(
        self, wrapped: AbstractContextManager[T], operation: str, kind: str, actor: str = ""
    ) -> AbstractContextManager[T]:
        """Returns a context manager that does what another one does, and notes how long its block took."""
        return _Timed(wrapped, partial(self._note_operation, operation, kind, actor))

    def _note_operation(self, operation: str, kind: str, actor: str, seconds: float, error: str) -> None:
        self._operation.record(seconds, self._of_messages[operation, kind, actor, error])

    @contextmanager
    def sending(self, actors: Iterable[str]) -> Iterator[None]:
        """Counts messages that the block gives to the server, with its error, if it fails.

        Args:
            actors: the actor of each message.
        """
        kind = ""
        try:
            yield
        except BaseException as error:
            kind = _type_of(error)
            raise
        finally:
            counts = self.counts[instruments.SENT]
            for actor in actors:
                counts[self._keys["send", "", actor, kind]] += 1

    async def counted(self, sending: Awaitable[T], actor: str) -> T:
        """As `sending`, for one message."""
        with self.sending((actor,)):
            return await sending

    # Running

    def processed(self, actor: str, queue: str, seconds: float, wait: float | None, error: str) -> None:
        """Records an attempt.

        Args:
            actor: its actor; '' if it is not known.
            queue: its queue.
            seconds: how long it took.
            wait: how long the task had waited for it; None if that is not known.
            error: the type of the exception, or ''.
        """
        self._process.record(seconds, self._of_messages["process", "", actor, error])
        self._consumed[self._keys["process", "", actor, error]] += 1
        if wait is not None and self._waits.takes():
            self._wait.record(max(0.0, wait), self._of_waits[actor, queue or DEFAULT_QUEUE])

    def retried(self, actor: str, error: str) -> None:
        """Counts a failed attempt that is followed by another one."""
        self.counts[instruments.RETRIES][self._own_keys[actor, error]] += 1

    def failed(self, actor: str, error: str, number: int = 1) -> None:
        """Counts tasks that have failed for good."""
        self.counts[instruments.FAILURES][self._own_keys[actor, error]] += number

    def lease_lost(self) -> None:
        """Counts a lease that was lost."""
        self.counts[instruments.LEASES][self._own_keys["", ""]] += 1

    async def script(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Calls a script, and notes how long that took."""
        began, error = time.monotonic(), ""
        try:
            return await call()
        except BaseException as failure:
            error = _type_of(failure)
            raise
        finally:
            self._script.record(time.monotonic() - began, self._of_scripts[name, error])

    # Gauges

    def observe(self, values: Values, seconds: float) -> None:
        """Takes what was read of the namespace, which counts for so many seconds."""
        self._of_namespace = _Namespace(values, time.monotonic() + seconds)

    def gauges(self, instrument: Instrument) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
        """Yields the values of a gauge, by their attributes."""
        found = self._of_namespace
        if instrument in instruments.OF_NAMESPACES:
            if time.monotonic() < found.until:
                for key, value in found.values.get(instrument, {}).items():
                    yield (self._namespace, *key), value
        elif self.slots is not None:
            for slots in self.slots():
                value = slots.size if instrument is instruments.SLOTS else slots.running
                yield (self._namespace, ("fairactor.slots", slots.kind)), value


class _Cache(dict[Any, Any]):
    """Makes attributes once. If there are too many of them, the last two parts of their keys become `OTHER`."""

    def __init__(self, make: Callable[[tuple[str, ...]], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, ...]) -> Any:
        if len(self) > MOST_SERIES:
            key = (*key[:-2], *(part and OTHER for part in key[-2:]))
            if key in self:
                return self[key]
        made = self[key] = self._make(key)
        return made


class _Sample:
    """Takes all of what comes, or of much a random part.

    Args:
        most: about how many to take in a second.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = 1.0
        self._seen = 0
        self._since = time.monotonic()

    def takes(self) -> bool:
        """Whether the next one is taken."""
        self._seen += 1
        now = time.monotonic()
        if self._seen >= self._most or now - self._since > 1:
            self._share = min(1.0, self._most * (now - self._since) / self._seen)
            self._seen, self._since = 0, now
        return self._share == 1.0 or random.random() < self._share  # noqa: S311 - no secret


class _Timed(Generic[T]):
    """Times the block of another context manager."""

    __slots__ = ("_began", "_note", "_wrapped")

    def __init__(self, wrapped: AbstractContextManager[T], note: Callable[[float, str], None]) -> None:
        self._wrapped = wrapped
        self._note = note

    def __enter__(self) -> T:
        self._began = time.monotonic()
        return self._wrapped.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._note(time.monotonic() - self._began, _type_of(error))
        return self._wrapped.__exit__(kind, error, traceback)


def _type_of(error: BaseException | None) -> str:
    return "" if error is None else exception_names(error)[0]


def _messaging(operation: str, kind: str, actor: str, error: str) -> dict[str, str]:
    found = {"messaging.operation.name": operation}
    if kind:
        found["messaging.operation.type"] = kind
    if actor:
        found["messaging.destination.template"] = actor
    if error:
        found["error.type"] = error
    return found


def _named(actor: str, queue: str) -> list[tuple[str, str]]:
    return [("fairactor.actor", actor), ("fairactor.queue", queue)]


def _script(name: str, error: str) -> list[tuple[str, str]]:
    return [("fairactor.script", name), *([("error.type", error)] if error else [])]


def _failed(actor: str, error: str) -> list[tuple[str, str]]:
    return [*([("fairactor.actor", actor)] if actor else []), *([("error.type", error)] if error else [])]
