"""Families as the numbers of a slot, and the numbers of many slots as families."""

from __future__ import annotations

import operator
from array import array
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Final

from insitu.core.records import HOST, LAST, TOTAL, Exemplar, Family, Point
from insitu.store.layout import EXEMPLAR_CELLS, Metric, halves, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from insitu.store.layout import Layout, Series
    from insitu.store.slots import Reading, Slot

    Key = tuple[tuple[str, Any], ...]
    Told = list[tuple[Metric, Mapping[str, Any], list[float]]]

_WORKER: Final = "worker"


class Cells:
    """Finds the numbers that the series of this process have in its slot."""

    def __init__(self) -> None:
        self._known: dict[Metric, dict[Key, Series]] = {}

    def filled(self, slot: Slot, families: Iterable[Family]) -> array[float]:
        """Return all numbers of a slot: what its predecessors counted, and on top of it what this process has.

        A gauge that this process does not have is not a number, whatever a predecessor had.
        """
        placed = [
            (self._series(slot.layout, metric, point), point)
            for family in families
            if (metric := Metric.of(family)).merge != HOST
            for point in family.points
            if len(point.buckets) == (len(metric.bounds) + 1 if metric.kind == "histogram" else 0)
        ]
        _widen(slot)
        values = slot.base[:]
        for series, point in placed:
            at, metric = series.at, series.metric
            if metric.kind == "histogram":
                end = at + metric.cells
                values[at:end] = array("d", map(operator.add, values[at:end], (*point.buckets, point.value)))
                for bucket, first in series.exemplars.items():
                    if (sample := point.exemplars[bucket] if point.exemplars else None) is not None:
                        values[first : first + EXEMPLAR_CELLS] = array("d", _of_exemplar(sample))
            elif metric.merge == TOTAL:
                values[at] += point.value
            else:
                values[at] = point.value
                if metric.merge == LAST:
                    values[at + 1 : at + 3] = array("d", halves(point.time, 2))
        return values

    def _series(self, layout: Layout, metric: Metric, point: Point) -> Series:
        known = self._known.setdefault(metric, {})
        key = tuple(point.labels.items())
        try:
            series = known.get(key)
        except TypeError:  # a list among the labels
            series = layout.find(metric, point.labels)
        else:
            if series is None:
                series = known[key] = layout.find(metric, point.labels)
        if point.exemplars and len(series.exemplars) < len(point.exemplars):
            for bucket, sample in enumerate(point.exemplars):
                if sample is not None:
                    layout.exemplar(series, bucket)
        return series

    @staticmethod
    def told(slot: Slot) -> Told:
        """Return what of the totals in a slot this very process has counted, as it was written last."""
        values = slot.written
        return [
            (series.metric, series.labels, list(map(operator.sub, values[series.at : end], slot.base[series.at : end])))
            for series in slot.layout.series
            if series.metric.merge == TOTAL and len(values) >= (end := series.at + series.metric.cells)
        ]

    @staticmethod
    def take_back(slot: Slot, told: Told) -> None:
        """Begin below what predecessors counted: this process has told so much before, and counts on from there."""
        places = [(slot.layout.find(metric, labels).at, numbers) for metric, labels, numbers in told]
        _widen(slot)
        for at, numbers in places:
            for cell, number in enumerate(numbers, at):
                slot.base[cell] -= number

    @staticmethod
    def add_base(slot: Slot, reading: Reading) -> None:
        """Add what a worker that is dead has counted to what this one began with."""
        theirs = reading.bank.values
        mine = [
            (slot.layout.find(series.metric, series.labels), series)
            for series in reading.layout.series
            if series.metric.merge == TOTAL
        ]
        _widen(slot)
        for here, there in mine:
            for cell in range(here.metric.cells):
                slot.base[here.at + cell] += theirs[there.at + cell]


def _widen(slot: Slot) -> None:
    """Give new series their first numbers, and take from gauges those of a predecessor."""
    base = slot.base
    base.extend([0.0] * (slot.layout.cells - len(base)))
    for series in slot.layout.series:
        if series.metric.merge != TOTAL:
            base[series.at] = nan


def _of_exemplar(sample: Exemplar) -> list[float]:
    value, time, trace_id, span_id = sample
    return [float(value), *halves(time, 2), *halves(trace_id, 4), *halves(span_id, 2)]


def _exemplar(cells: Sequence[float]) -> Exemplar:
    pieces = list(cells)
    return Exemplar(pieces[0], whole(pieces[1:3]), whole(pieces[3:7]), whole(pieces[7:9]))


class _Sum:
    """One series of several workers."""

    __slots__ = ("exemplars", "labels", "numbers")

    def __init__(self, labels: Mapping[str, Any], numbers: list[float]) -> None:
        self.labels = labels
        self.numbers = numbers
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, numbers: list[float], merge: str) -> None:
        """Take another worker's numbers in."""
        if merge == LAST:
            self.numbers = max(self.numbers, numbers, key=lambda each: whole(each[1:]))
        elif merge == "max":
            self.numbers = max(self.numbers, numbers)
        elif merge == _WORKER:
            self.numbers = numbers
        else:
            self.numbers = list(map(operator.add, self.numbers, numbers))

    def add_exemplars(self, series: Series, values: array[float]) -> None:
        """Of two exemplars of a bucket the newer one stays."""
        for bucket, at in series.exemplars.items():
            sample = _exemplar(values[at : at + EXEMPLAR_CELLS])
            known = self.exemplars.get(bucket)
            if sample.timestamp and (known is None or known.timestamp < sample.timestamp):
                self.exemplars[bucket] = sample

    def point(self, kind: str) -> Point:
        """Return the sum."""
        if kind != "histogram":
            return Point(self.labels, _number(self.numbers[0]))
        buckets = list(map(int, self.numbers[:-1]))
        exemplars = [self.exemplars.get(bucket) for bucket in range(len(buckets))] if self.exemplars else ()
        return Point(self.labels, self.numbers[-1], buckets, exemplars)


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def added(readings: Sequence[Reading]) -> list[Family]:
    """Return the metrics of all workers together; where there are several, a gauge tells whose it is."""
    found: dict[Metric, dict[Key, _Sum]] = {}
    for reading in readings:
        apart = {_WORKER: str(reading.number)} if len(readings) > 1 else {}  # a dead one counts: another will follow it
        for series in reading.layout.series:
            metric = series.metric
            if metric.merge == TOTAL or reading.live:
                _add(found.setdefault(metric, {}), series, reading.bank.values, apart)
    return [
        Family(
            metric.name,
            metric.kind,
            [each.point(metric.kind) for each in sums.values()],
            metric.unit,
            metric.help,
            metric.scope,
            metric.bounds,
            merge=metric.merge,
        )
        for metric, sums in found.items()
        if sums
    ]


def _add(sums: dict[Key, _Sum], series: Series, values: array[float], apart: dict[str, str]) -> None:
    metric = series.metric
    numbers = values[series.at : series.at + metric.cells].tolist()
    if isnan(numbers[0]) and metric.merge != TOTAL:
        return
    key, labels = series.key, series.labels
    if metric.merge == _WORKER and apart:
        key, labels = (*key, *apart.items()), {**labels, **apart}
    known = sums.get(key)
    if known is None:
        known = sums[key] = _Sum(labels, numbers)
    else:
        known.add(numbers, metric.merge)
    if series.exemplars:
        known.add_exemplars(series, values)
