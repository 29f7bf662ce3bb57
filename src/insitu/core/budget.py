"""What we cost: CPU time per part, measured by ourselves.

Our threads are measured exactly (their own CPU clock). The hot path is measured by sampling: one trace in METERED has
the clock read around what we do in it, and the sum is scaled up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from insitu.core.records import METERED, Family, Point

if TYPE_CHECKING:
    from collections.abc import Iterable

    from insitu.core.clock import Clock

PREEMPTED: Final = 100_000
"""Nanoseconds after which a timing on the hot path holds another thread's work rather than ours, and is cut."""


class Meter:
    """The ledger of one process: nanoseconds by part.

    Parts: `request` (the hot path, in the application's threads), `worker` (count, redact, encode), `sender`
        (delivery), `reader` (scrapes and pages).
    """

    __slots__ = ("_clock", "_parts", "_started", "nanoseconds")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parts: dict[str, int] = {}
        self.nanoseconds = 0
        self._started = clock.wall()

    def hot(self, elapsed: int) -> None:
        """Add one timing of a metered trace's hot path, in nanoseconds."""
        self.nanoseconds += (elapsed if elapsed < PREEMPTED else PREEMPTED) * METERED

    def add(self, thread: str, elapsed: int) -> None:
        """Add CPU nanoseconds of one of our own threads, named `part` or `part-something`.

        Each thread has an entry of its own, so that no two write to one.
        """
        self._parts[thread] = self._parts.get(thread, 0) + elapsed

    def seconds(self) -> dict[str, float]:
        """Return CPU seconds by part."""
        parts = {"request": self.nanoseconds / 1e9}
        for thread, spent in list(self._parts.items()):
            part = thread.partition("-")[0]
            parts[part] = parts.get(part, 0.0) + spent / 1e9
        return parts

    def collect(self) -> Iterable[Family]:
        """Return the ledger as a counter by part."""
        points = [Point({"part": part}, spent) for part, spent in sorted(self.seconds().items())]
        yield Family(
            "insitu.cpu",
            "counter",
            points,
            unit="s",
            help="CPU time that insitu itself has used, by part.",
            start=self._started,
        )

    def reset(self) -> None:
        """Forget everything: a forked child starts its own ledger."""
        self._parts.clear()
        self.nanoseconds = 0
        self._started = self._clock.wall()
