"""OpenTelemetry's MeterProvider, Meter and instruments over the registry."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import metrics as api

from insitu.core import context, guard, values
from insitu.core.records import SERIES, Family, Point, Scope
from insitu.signals import metrics
from insitu.signals.tracing import ABSORBED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from opentelemetry.context import Context

    from insitu.core.records import MetricKind
    from insitu.signals.metrics import Instrument, Registry

ObservableT = TypeVar("ObservableT", bound=api.Asynchronous)

BOUNDS: Final = 256
CALLBACKS: Final = 1_000
"""Of one observable instrument."""
_KINDS: Final = frozenset((str, int, float, bool))


class MeterProvider(api.MeterProvider):
    """OpenTelemetry's provider; meters that were handed out stay valid through shutdown and init."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Meter:
        """Return a meter for an instrumentation scope."""
        del attributes
        return Meter(
            self._registry,
            values.text("" if name is None else name, 255),
            values.text("" if version is None else version, 255),
            values.text("" if schema_url is None else schema_url, 255),
        )

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Return True: values are collected when they are read."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Do nothing; insitu itself ends with `insitu.shutdown()`."""


class Meter(api.Meter):
    """OpenTelemetry's Meter."""

    def __init__(self, registry: Registry, name: str, version: str, schema_url: str) -> None:
        super().__init__(name, version, schema_url)
        self._registry = registry
        self._scope = Scope(name, version, schema_url)

    def _instrument(
        self, name: str, kind: MetricKind, unit: str, description: str, bounds: Sequence[float] | None = None
    ) -> Instrument:
        chosen = guard.call("meter.bounds", _bounds, bounds)
        unit = values.text("" if unit is None else unit, 63)
        # A unit that is no text, or a description of None, comes from instrumentations in the wild.
        return self._registry.instrument(
            values.text(name, 255),
            kind,
            unit,
            values.text("" if description is None else description),
            bounds=chosen or (metrics.DURATION_BOUNDS if unit == "s" else metrics.DEFAULT_BOUNDS),
            scope=self._scope,
        )

    def _absorbed(self, name: str) -> bool:
        return self._scope.name in ABSORBED and values.text(name, 255).startswith("http.server.")

    def create_counter(self, name: str, unit: str = "", description: str = "") -> api.Counter:
        """Create a counter."""
        return _Counter(self._instrument(name, "counter", unit, description), self._absorbed(name))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> api.UpDownCounter:
        """Create a counter that also falls."""
        return _UpDownCounter(self._instrument(name, "updown", unit, description), self._absorbed(name))

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> api._Gauge:
        """Create a gauge."""
        return _Gauge(self._instrument(name, "gauge", unit, description), self._absorbed(name))

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> api.Histogram:
        """Create a histogram."""
        return _Histogram(
            self._instrument(name, "histogram", unit, description, explicit_bucket_boundaries_advisory),
            self._absorbed(name),
        )

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableCounter:
        """Create a counter that is asked for its value."""
        return self._observable(_ObservableCounter, name, "counter", callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableUpDownCounter:
        """Create an up-down counter that is asked for its value."""
        return self._observable(_ObservableUpDownCounter, name, "updown", callbacks, unit, description)

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableGauge:
        """Create a gauge that is asked for its value."""
        return self._observable(_ObservableGauge, name, "gauge", callbacks, unit, description)

    def _observable(
        self,
        kind: type[ObservableT],
        name: str,
        metric: MetricKind,
        callbacks: Sequence[Any] | None,
        unit: str,
        description: str,
    ) -> ObservableT:
        family = (
            values.text(name, 255),
            metric,
            values.text("" if unit is None else unit, 63),
            values.text("" if description is None else description),
            self._scope,
        )
        instrument = kind(name, callbacks, unit=unit, description=description)
        if len(self._registry.callbacks) < metrics.METRICS:
            asks = (
                guard.call("meter.callbacks", lambda: list(_asks(callbacks)), default=[])
                if callbacks is not None
                else []
            )
            self._registry.callbacks.append(_Observation(self._registry, family, asks).collect)
        return instrument


def _bounds(given: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if given is None else tuple(sorted({float(bound) for bound in itertools.islice(given, BOUNDS)}))


class _Synchronous:
    """Finds the cell of an attribute set."""

    def __init__(self, instrument: Instrument, absorbed: bool) -> None:
        self._instrument = instrument
        self._absorbed = absorbed

    def _cell(self, attributes: Mapping[str, Any] | None) -> Any:
        """Return the cell, or None when nothing is to be measured."""
        instrument = self._instrument
        if not instrument.registry.on or (self._absorbed and _inside_own_request()):
            return None
        return guard.call("meter.attributes", _find, instrument, attributes)

    def _number(self, amount: float) -> float:
        return amount if type(amount) is int or type(amount) is float else metrics.number(amount)


def _find(instrument: Instrument, attributes: Mapping[str, Any] | None) -> Any:
    attributes = {} if attributes is None else attributes
    try:
        found = instrument.cells.get(frozenset(attributes.items()))
    except TypeError:  # a value that has no hash, such as a list
        found = None
    if found is not None:
        return found
    labels = {values.text(name, 255): _label(value) for name, value in attributes.items()}
    return instrument.cell(frozenset(labels.items()), labels)


def _label(value: object) -> Any:
    if type(value) in _KINDS and type(value) is not str:
        return value
    made = values.plain(value, metrics.LABEL_LENGTH, depth=1)
    return values.text(made, metrics.LABEL_LENGTH) if type(made) is dict else made


def _inside_own_request() -> bool:
    span = context.current().get(context.SPAN_KEY)
    return getattr(span, "counts_request", False)


class _Counter(_Synchronous, api.Counter):
    def add(self, amount: float, attributes: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """Add a non-negative number."""
        del context
        amount = self._number(amount)
        cell = self._cell(attributes)
        if cell is None or not amount >= 0:
            return
        with self._instrument.lock:
            cell.value += amount


class _UpDownCounter(_Synchronous, api.UpDownCounter):
    def add(self, amount: float, attributes: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """Add a number."""
        del context
        amount = self._number(amount)
        cell = self._cell(attributes)
        if cell is not None and amount == amount:  # noqa: PLR0124
            with self._instrument.lock:
                cell.value += amount


class _Gauge(_Synchronous, api._Gauge):
    def set(self, amount: float, attributes: Mapping[str, Any] | None = None, context: Context | None = None) -> None:
        """Set the value."""
        del context
        cell = self._cell(attributes)
        if cell is not None:
            cell.value = self._number(amount)


class _Histogram(_Synchronous, api.Histogram):
    def record(
        self, amount: float, attributes: Mapping[str, Any] | None = None, context: Context | None = None
    ) -> None:
        """Add one measurement."""
        del context
        amount = self._number(amount)
        cell = self._cell(attributes)
        if cell is None or amount != amount:  # noqa: PLR0124
            return
        sample = metrics.exemplar(amount)
        with self._instrument.lock:
            cell.record(amount, sample)


class _ObservableCounter(api.ObservableCounter):
    def __init__(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> None:
        """Hold nothing: the registry asks the callbacks."""


class _ObservableUpDownCounter(api.ObservableUpDownCounter):
    def __init__(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> None:
        """Hold nothing: the registry asks the callbacks."""


class _ObservableGauge(api.ObservableGauge):
    def __init__(
        self, name: str, callbacks: Sequence[Any] | None = None, unit: str = "", description: str = ""
    ) -> None:
        """Hold nothing: the registry asks the callbacks."""


class _Observation:
    """Asks the callbacks of one observable instrument, each guarded.

    Generators are sent the options, as the API says.
    """

    def __init__(
        self,
        registry: Registry,
        family: tuple[str, MetricKind, str, str, Scope],
        asks: Sequence[Callable[[], Iterable[Any]]],
    ) -> None:
        self._registry = registry
        self._family = family
        self._asks = asks

    def collect(self) -> Iterable[Family]:
        name, kind, unit, description, scope = self._family
        points: dict[Any, Point] = {}
        for ask in self._asks:
            for observation in guard.call(f"callback {name}", _first, ask, default=()):
                point = guard.call(f"callback {name}", _point, observation)
                if point is not None:
                    points[frozenset(point.labels.items())] = point
        if points:
            yield Family(
                name,
                kind,
                list(points.values()),
                unit,
                description,
                scope,
                (),
                self._registry.start,
                self._registry.wall(),
            )


def _first(ask: Callable[[], Iterable[Any]]) -> list[Any]:
    return list(itertools.islice(ask(), SERIES))


def _point(observation: Any) -> Point | None:
    value = metrics.number(observation.value) if type(observation.value) not in (int, float) else observation.value
    labels = {
        values.text(name, 255): values.plain(item, metrics.LABEL_LENGTH)
        for name, item in (observation.attributes or {}).items()
    }
    return Point(metrics.registry.clean(labels), value) if value == value else None  # noqa: PLR0124


def _asks(callbacks: Iterable[Any]) -> Iterable[Callable[[], Iterable[Any]]]:
    """Return what asks each callback; what is none, such as a letter of a text, is left out."""
    options = api.CallbackOptions()
    for callback in itertools.islice(callbacks, CALLBACKS):
        if hasattr(callback, "send"):
            guard.call("callback", next, callback)
            yield functools.partial(callback.send, options)
        elif callable(callback):
            yield functools.partial(callback, options)
