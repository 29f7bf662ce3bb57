"""Intervals of ten seconds become minutes and hours, each kept for its own time.

A coarser interval is written when it is over, or when the process ends; until then its parts are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.core.histogram import Histogram
from insitu.core.records import Interval, RouteTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SECOND: Final = 1_000_000_000
TEN_SECONDS, MINUTE, HOUR = LENGTHS = (10 * SECOND, 60 * SECOND, 3_600 * SECOND)
KEPT: Final = {TEN_SECONDS: HOUR, MINUTE: 24 * HOUR}
"""How long intervals are kept; hours as long as everything else."""
_LONGEST: Final = {TEN_SECONDS: 15 * MINUTE, MINUTE: 6 * HOUR}
"""The longest period that is drawn in intervals of a length: some hundred points."""

Row = tuple[int, str, int, int, bytes]
"""(start, name, count, errors, durations)."""


def length_for(span: int) -> int:
    """Return the length of the intervals that a period of `span` nanoseconds is drawn in."""
    return next((length for length, longest in _LONGEST.items() if span <= longest), HOUR)


def cover(read: Callable[[int, int, int], list[Row]], since: int, until: int) -> Iterator[Row]:
    """Yield the fewest rows that make up a period: hours where they lie inside, minutes and seconds at its ends.

    Args:
        read: returns the rows of a length whose intervals begin at or behind one moment and before another.
        since: nanoseconds, included.
        until: nanoseconds, not included.

    """
    holes = [(since, until)]
    for length in reversed(LENGTHS):
        left: list[tuple[int, int]] = []
        for begin, end in holes:
            rows = read(length, -(-begin // length) * length, end // length * length)
            yield from rows
            first = min((row[0] for row in rows), default=end)
            last = max((row[0] + length for row in rows), default=end)
            left += [(begin, first), (last, end)]
        holes = [(begin, end) for begin, end in left if begin < end]


class Rollups:
    """Adds intervals up. Used by one thread, the worker."""

    def __init__(self) -> None:
        self._open: dict[int, Interval] = {}

    def add(self, intervals: Iterable[Interval]) -> list[Interval]:
        """Return what is to be written: these intervals, and every coarser one that is over because of them."""
        ready: list[Interval] = []
        for interval in intervals:
            ready.append(interval)
            for length in (MINUTE, HOUR):
                ready += self._coarser(length, interval)
        return ready

    def _coarser(self, length: int, interval: Interval) -> list[Interval]:
        start = interval.start // length * length
        current = self._open.get(length)
        over = [current] if current is not None and current.start != start else []
        if current is None or over:
            current = self._open[length] = Interval(start, length, {})
        _add(current, interval)
        return over

    def resume(self, intervals: Iterable[Interval]) -> None:
        """Go on with coarser intervals that somebody else has begun."""
        for interval in intervals:
            current = self._open.setdefault(interval.length, Interval(interval.start, interval.length, {}))
            _add(current, interval)

    def rest(self) -> list[Interval]:
        """Return the coarser intervals as they stand; they go on."""
        return list(self._open.values())


def _add(current: Interval, other: Interval) -> None:
    for name, totals in other.routes.items():
        current.routes.setdefault(name, RouteTotals(0, 0, Histogram())).add(totals)


def added(rows: Iterable[Row]) -> Iterator[tuple[str, RouteTotals]]:
    """Yield each route's name and totals, of all processes. What is damaged costs its own route."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[1], []).append(row)
    for name, each in grouped.items():
        total = guard.call("store.read", _total, each)
        if total is not None:
            yield name, total


def _total(rows: list[Row]) -> RouteTotals:
    durations = Histogram.merged(row[4] for row in rows)
    return RouteTotals(sum(row[2] for row in rows), sum(row[3] for row in rows), durations)
