"""Rate, errors and duration of each route, interval by interval: what the roll-ups of the store are made of."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from insitu.core.histogram import Histogram
from insitu.core.records import Interval, RouteTotals

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH: Final = 10_000_000_000
"""Nanoseconds of an interval; intervals begin at whole multiples, so that those of several processes can be added."""
ROUTES: Final = 1_000
OVERFLOW: Final = "_OTHER"
"""Stands for the routes beyond the cap; the totals stay exact."""


class Intervals:
    """Counts requests by route and interval.

    Args:
        wall: wall nanoseconds.

    """

    def __init__(self, wall: Callable[[], int]) -> None:
        self._wall = wall
        self.reset()

    def reset(self) -> None:
        """Begin anew: at the start, and in a forked child, whose parent has the counts so far."""
        self._lock = threading.Lock()  # unsampled requests are counted by their callers
        self._closed: list[Interval] = []
        self._begin(0)

    def _begin(self, start: int) -> None:
        self._start, self._end, self._routes = start, start + LENGTH, dict[str, RouteTotals]()

    def count(self, name: str, seconds: float, at: int, *, failed: bool) -> None:
        """Count a request that was over at a moment, in wall nanoseconds."""
        with self._lock:
            if at >= self._end:  # one of a time before adds to the interval that is open
                self._turn(at)
            totals = self._routes.get(name) or self._new(name)
            totals.count += 1
            if failed:
                totals.errors += 1
            totals.durations.record(seconds)

    def _new(self, name: str) -> RouteTotals:
        name = name if len(self._routes) < ROUTES else OVERFLOW
        return self._routes.setdefault(name, RouteTotals(0, 0, Histogram()))

    def _turn(self, now: int) -> None:
        if self._routes:
            self._closed.append(Interval(self._start, LENGTH, self._routes))
        self._begin(now // LENGTH * LENGTH)

    def take(self, *, all_of_them: bool = False) -> list[Interval]:
        """Return what is closed since the last call; the open one as well where nothing more will come."""
        now = self._wall()
        with self._lock:
            if all_of_them or now >= self._end:
                self._turn(now)
            closed, self._closed = self._closed, []
        return closed
