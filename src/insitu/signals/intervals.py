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
        self._open = Interval(0, LENGTH, {})
        self._closed: list[Interval] = []

    def count(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count a request that is over."""
        start = self._wall() // LENGTH * LENGTH
        with self._lock:
            if start > self._open.start:  # a clock that was set back adds to the interval that is open
                self._turn(start)
            routes = self._open.routes
            totals = routes.get(name)
            if totals is None:
                name = name if len(routes) < ROUTES else OVERFLOW
                totals = routes.setdefault(name, RouteTotals(0, 0, Histogram()))
            totals.count += 1
            totals.errors += failed
            totals.durations.record(seconds)

    def _turn(self, start: int) -> None:
        if self._open.routes:
            self._closed.append(self._open)
        self._open = Interval(start, LENGTH, {})

    def take(self, *, all_of_them: bool = False) -> list[Interval]:
        """Return what is closed since the last call; the open one as well where nothing more will come."""
        start = self._wall() // LENGTH * LENGTH
        with self._lock:
            if all_of_them or start > self._open.start:
                self._turn(start)
            closed, self._closed = self._closed, []
        return closed
