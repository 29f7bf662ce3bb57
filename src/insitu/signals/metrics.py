"""Counters, gauges and histograms: exact, bounded in label sets, safe in threads and signal handlers.

    orders = insitu.counter("orders", labels=("plan",))
    orders.add(1, plan="pro")

An instrument holds one cell for each label set, at most SERIES of them. What comes after goes into one overflow
series, so the total stays exact.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, Literal

from insitu.core import clock as clocks
from insitu.core import context, guard, values
from insitu.core.records import LAST, OVERFLOW, SERIES, Exemplar, Family, Point, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from insitu.core.records import Merge, MetricKind

METRICS: Final = 1_000
LABEL_LENGTH: Final = 256
DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the advice of OpenTelemetry's HTTP semantic conventions."""
DEFAULT_BOUNDS: Final = (
    0.0,
    5.0,
    10.0,
    25.0,
    50.0,
    75.0,
    100.0,
    250.0,
    500.0,
    750.0,
    1_000.0,
    2_500.0,
    5_000.0,
    7_500.0,
    10_000.0,
)
OWN: Final = Scope("insitu")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-/:]{0,254}")
_NUMBERS: Final = frozenset((int, float))
_EMPTY: Final = ()
GAUGE_MERGES: Final = ("worker", "sum", "max", "last")


class Cell:
    """The value of one series."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self.labels = labels
        self.value: float = 0

    def record(self, amount: float) -> None:
        """Add an amount; the caller holds the lock."""
        self.value += amount

    def point(self) -> Point:
        """Return the value now."""
        return Point(self.labels, self.value)


class StampedCell(Cell):
    """The value of one series, and when it was set: of several workers the last one counts."""

    __slots__ = ("time",)

    def __init__(self, labels: Mapping[str, Any]) -> None:
        super().__init__(labels)
        self.time = 0

    def point(self) -> Point:
        """Return the value now."""
        return Point(self.labels, self.value, time=self.time)


class HistogramCell:
    """The distribution of one series over explicit bounds."""

    __slots__ = ("bounds", "buckets", "exemplars", "labels", "value")

    def __init__(self, labels: Mapping[str, Any], bounds: Sequence[float]) -> None:
        self.labels = labels
        self.bounds = bounds
        self.value: float = 0.0
        self.buckets = [0] * (len(bounds) + 1)
        self.exemplars: list[tuple[float, int, int, int] | None] | None = None

    def record(self, amount: float, exemplar: tuple[float, int, int, int] | None = None) -> None:
        """Add one measurement, with its exemplar's fields; the caller holds the registry's lock."""
        index = bisect_left(self.bounds, amount)
        self.buckets[index] += 1
        self.value += amount
        if exemplar is not None:
            if self.exemplars is None:
                self.exemplars = [None] * len(self.buckets)
            self.exemplars[index] = exemplar

    def point(self) -> Point:
        """Return the distribution now."""
        return Point(self.labels, self.value, tuple(self.buckets), _exemplars(self.exemplars or ()))


def _exemplars(kept: Iterable[tuple[float, int, int, int] | None]) -> tuple[Exemplar | None, ...]:
    return tuple([Exemplar._make(fields) if fields is not None else None for fields in kept])


class Instrument:
    """One metric: its declaration and its cells.

    Args:
        registry: owner of the lock.
        name, kind, unit, help, scope: the declaration.
        labels: declared label names; None where any attributes may come (OpenTelemetry's instruments).
        bounds: of a histogram.
        merge: how those of several workers become one.

    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        kind: MetricKind,
        unit: str,
        description: str,
        *,
        labels: tuple[str, ...] | None,
        bounds: Sequence[float],
        scope: Scope,
        merge: Merge | None = None,
    ) -> None:
        self.merge = merge
        self.registry = registry
        self.name, self.kind, self.unit, self.help = name, kind, unit, description
        self.labels = labels
        self.bounds = bounds
        self.scope = scope
        self.cells: dict[Any, Any] = {}
        self.lock = registry.lock

    def cell(self, key: Any, labels: Mapping[str, Any]) -> Any:
        """Return the cell of a label set that was not seen before: a new one, or the overflow cell.

        Secrets leave the labels here, once a label set; sets that are then alike share a cell.
        """
        with self.lock:
            made = self.cells.get(key) or self._made(key, labels)
        self.registry.counted()
        return made

    def record(self, labels: Mapping[str, Any], amount: float) -> None:
        """Add one measurement of a histogram, or so much of a counter, to the series of any labels."""
        key = frozenset(labels.items())
        cell = self.cells.get(key) or self.cell(key, labels)
        with self.lock:
            cell.record(amount)

    def record_all(self, names: Sequence[str], measured: Iterable[tuple[tuple[Any, ...], float]]) -> None:
        """Add many measurements at once, each to the series whose labels are these names and its values.

        A value of None is no label. For an instrument that is used in no other way: values alone are looked up.
        """
        fresh = False
        with self.lock:
            for values, amount in measured:
                cell = self.cells.get(values)
                if cell is None:
                    known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                    cell, fresh = self._made(values, known), True
                cell.record(amount)
        if fresh:
            self.registry.counted()

    def _made(self, key: Any, labels: Mapping[str, Any]) -> Any:
        if len(self.cells) >= SERIES:
            self._warn_of_overflow()
            return self._shared(None, OVERFLOW)
        clean = self.registry.clean(labels)
        made = self._new(labels) if clean is labels else self._shared((self, frozenset(clean.items())), clean)
        self.cells[key] = made
        return made

    def _shared(self, key: Any, labels: Mapping[str, Any]) -> Any:
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = self._new(labels)
        return found

    def _new(self, labels: Mapping[str, Any]) -> Any:
        if self.kind == "histogram":
            return HistogramCell(labels, self.bounds)
        return StampedCell(labels) if self.merge == LAST else Cell(labels)

    def _warn_of_overflow(self) -> None:
        text = "insitu: metric %s has %d label sets; further ones go into its overflow series"
        guard.warn(f"series {self.name}", text, self.name, SERIES)

    def family(self, start: int, now: int) -> Family:
        """Return all series now."""
        with self.lock:
            points = [cell.point() for cell in dict.fromkeys(self.cells.values())]
        return Family(
            self.name,
            self.kind,
            points,
            self.unit,
            self.help,
            self.scope,
            self.bounds if self.kind == "histogram" else (),
            start,
            now,
            self.merge,
        )


class Registry:
    """All instruments of this process, and a collector of their values.

    One lock guards every cell: it is held across a fork and is reentrant for signal handlers.
    """

    def __init__(self) -> None:
        self.on = False
        self.lock = threading.RLock()
        self.instruments: dict[tuple[str, Scope], Instrument] = {}
        self.callbacks: list[Callable[[], Iterable[Family]]] = []
        self.clean: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _as_it_is
        self.counted: Callable[[], object] = _nothing
        """Called for each new series: what only counts must be told to others, too."""
        self.wall = clocks.SYSTEM.wall
        self.start = self.wall()

    def instrument(
        self,
        name: str,
        kind: MetricKind,
        unit: str = "",
        description: str = "",
        *,
        labels: tuple[str, ...] | None = None,
        bounds: Sequence[float] = DEFAULT_BOUNDS,
        scope: Scope = OWN,
        merge: Merge | None = None,
    ) -> Instrument:
        """Return the instrument of this name, made when it is new.

        A second declaration that disagrees warns, and the first one stays.
        """
        with self.lock:
            found = self.instruments.get((name, scope))
            if found is not None and (found.kind, found.labels, found.merge) == (kind, labels, merge):
                return found
            made = Instrument(
                self, name, kind, unit, description, labels=labels, bounds=bounds, scope=scope, merge=merge
            )
            if found is None and len(self.instruments) < METRICS:
                self.instruments[name, scope] = made
                return made
        if found is None:
            guard.warn("metrics", "insitu: more than %d metrics; %s is not exported", METRICS, name)
            return made
        text = "insitu: metric %s is already declared as a %s with labels %s%s; that declaration stays"
        merged = f", merged by {found.merge}" if found.merge else ""
        guard.warn(f"metric {name}", text, name, found.kind, found.labels, merged)
        # Of another kind it can take nothing: what this handle counts goes nowhere, and the warning has said so.
        return found if found.kind == kind else made

    def collect(self) -> list[Family]:
        """Return every family now."""
        now = self.wall()
        with self.lock:
            instruments = list(self.instruments.values())
        families = [instrument.family(self.start, now) for instrument in instruments if instrument.cells]
        for callback in list(self.callbacks):
            families.extend(guard.call("metrics.callback", lambda given=callback: list(given()), default=()))
        return families

    def reset(self) -> None:
        """Start at zero: in a forked child, and for tests."""
        self.lock = threading.RLock()
        self.start = self.wall()
        for instrument in self.instruments.values():
            instrument.lock = self.lock
            instrument.cells.clear()


def _nothing() -> None:
    pass


def _as_it_is(labels: Mapping[str, Any]) -> Mapping[str, Any]:
    return labels


registry = Registry()
"""The one registry of this process."""


class Handle:
    """What `counter`, `gauge` and `histogram` return: the instrument behind keyword labels."""

    __slots__ = ("_instrument", "_names")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._names = instrument.labels or ()

    def _cell(self, labels: dict[str, Any]) -> Any:
        key = tuple(labels.values())
        if tuple(labels) != self._names:
            key = self._ordered(labels)
        for value in key:
            if type(value) is not str:
                key = tuple(map(_label, key))
                break
        found = self._instrument.cells.get(key)
        if found is not None:
            return found
        key = tuple(map(_label, key))
        return self._instrument.cell(key, dict(zip(self._names, key, strict=True)))

    def _ordered(self, labels: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values in the declared order; a missing label is "", an unknown one is left out with a warning."""
        unknown = [name for name in labels if name not in self._names]
        if unknown:
            name = self._instrument.name
            guard.warn(
                f"labels {name}",
                "insitu: metric %s has no label %s; declare it: labels=(..., %r)",
                name,
                unknown[0],
                unknown[0],
            )
        return tuple([labels.get(name, "") for name in self._names])


def _label(value: object) -> str:
    if type(value) is str:
        return value if len(value) <= LABEL_LENGTH else value[:LABEL_LENGTH]
    if value is True or value is False:
        return "true" if value else "false"
    return guard.render(value, LABEL_LENGTH)


class Counter(Handle):
    """A sum that only grows."""

    __slots__ = ()

    def add(self, amount: float = 1, /, **labels: Any) -> None:
        """Add a non-negative number to the series of `labels`."""
        instrument = self._instrument
        if not instrument.registry.on:
            return
        if type(amount) not in _NUMBERS:
            amount = number(amount)
        if not amount >= 0:
            guard.warn(
                f"negative {instrument.name}",
                "insitu: counter %s cannot take %s; use updown for what also falls",
                instrument.name,
                amount,
            )
            return
        cell = self._cell(labels)
        with instrument.lock:
            cell.value += amount


class UpDownCounter(Handle):
    """A sum that also falls: queue lengths, things in use."""

    __slots__ = ()

    def add(self, amount: float = 1, /, **labels: Any) -> None:
        """Add a number, which may be negative, to the series of `labels`."""
        instrument = self._instrument
        if not instrument.registry.on:
            return
        amount = amount if type(amount) in _NUMBERS else number(amount)
        cell = self._cell(labels)
        if amount == amount:  # noqa: PLR0124 not a NaN: it would stay in the sum for ever
            with instrument.lock:
                cell.value += amount


class Gauge(Handle):
    """A value that is what it is now."""

    __slots__ = ()

    def set(self, amount: float, /, **labels: Any) -> None:
        """Set the series of `labels` to a number."""
        instrument = self._instrument
        if not instrument.registry.on:
            return
        amount = amount if type(amount) in _NUMBERS else number(amount)
        cell = self._cell(labels)
        cell.value = amount
        if instrument.merge == LAST:
            cell.time = instrument.registry.wall()


class Histogram(Handle):
    """A distribution over explicit bounds."""

    __slots__ = ()

    def record(self, amount: float, /, **labels: Any) -> None:
        """Add one measurement to the series of `labels`. Inside a sampled trace it becomes its bucket's exemplar."""
        instrument = self._instrument
        if not instrument.registry.on:
            return
        amount = amount if type(amount) in _NUMBERS else number(amount)
        if amount != amount:  # noqa: PLR0124 a NaN belongs in no bucket
            return
        cell = self._cell(labels)
        sample = exemplar(amount)
        with instrument.lock:
            cell.record(amount, sample)


def exemplar(amount: float) -> tuple[float, int, int, int] | None:
    """Return the exemplar of a measurement made now, or None outside of a sampled trace."""
    span = context.current().get(context.SPAN_KEY)
    if span is None:
        return None
    trace = getattr(span, "trace", None)
    if trace is None or not trace.sampled:
        return None
    return amount, registry.wall(), trace.trace_id, span.span_id  # type: ignore[attr-defined]


def number(value: object) -> float:
    """Return a number for anything; NaN where there is none, and then nothing is counted."""
    return guard.call("metrics.number", float, value, default=float("nan"))


def counter(name: str, *, labels: Sequence[str] = (), unit: str = "", help: str = "") -> Counter:  # noqa: A002 the field's word
    """Declare a counter.

    Args:
        name: as in `orders` or `cart.items`; scraped as `orders_total`.
        labels: names of its labels, few and with few values: at most 2,000 sets are kept apart.
        unit: UCUM (`s`, `By`, `{order}`).
        help: one line.

    """
    return Counter(_declare(name, "counter", labels, unit, help))


def updown(name: str, *, labels: Sequence[str] = (), unit: str = "", help: str = "") -> UpDownCounter:  # noqa: A002
    """Declare a counter that also falls. Arguments as for `counter`."""
    return UpDownCounter(_declare(name, "updown", labels, unit, help))


def gauge(
    name: str,
    *,
    labels: Sequence[str] = (),
    unit: str = "",
    help: str = "",  # noqa: A002
    merge: Literal["worker", "sum", "max", "last"] = "worker",
) -> Gauge:
    """Declare a gauge. Arguments as for `counter`.

    `merge` says what the service has where several workers set it: the `sum` or the `max` of those that live, the one
    set `last`, or, by default, each of them, told apart by a label `worker`.
    """
    if merge not in GAUGE_MERGES:
        text = "insitu: gauge %s cannot be merged by %r; there are: %s"
        guard.warn(f"gauge {name}", text, name, merge, ", ".join(GAUGE_MERGES))
        merge = "worker"
    return Gauge(_declare(name, "gauge", labels, unit, help, merge=merge))


def histogram(
    name: str,
    *,
    labels: Sequence[str] = (),
    unit: str = "",
    help: str = "",  # noqa: A002
    bounds: Sequence[float] | None = None,
) -> Histogram:
    """Declare a histogram. Arguments as for `counter`.

    `bounds` are the upper bounds of its buckets, rising; by default OpenTelemetry's for HTTP durations where the unit
    is `s`, else its general ones.
    """
    chosen = guard.call(
        "histogram.bounds", lambda: tuple(sorted({float(bound) for bound in bounds})) if bounds else None
    )
    return Histogram(
        _declare(name, "histogram", labels, unit, help, chosen or (DURATION_BOUNDS if unit == "s" else DEFAULT_BOUNDS))
    )


def _declare(
    name: str,
    kind: MetricKind,
    labels: Sequence[str],
    unit: str,
    description: str,
    bounds: Sequence[float] = DEFAULT_BOUNDS,
    merge: Merge | None = None,
) -> Instrument:
    given = values.text(name, 255)
    checked = (
        given
        if _NAME.fullmatch(given)
        else re.sub(r"[^A-Za-z0-9_.\-/:]", "_", f"_{given}" if not given[:1].isalpha() else given)
    )
    if checked != given:
        guard.warn(
            f"metric {given}", "insitu: %r is no metric name, %s is used; letters, digits, _ . - / are", given, checked
        )
    names = guard.call(
        "metrics.labels",
        lambda: tuple(values.text(label, LABEL_LENGTH) for label in ((labels,) if isinstance(labels, str) else labels)),
        default=(),
    )
    return registry.instrument(
        checked, kind, values.text(unit, 63), values.text(description), labels=names, bounds=bounds, merge=merge
    )
