"""What we cost: CPU time per part, measured by ourselves, and what we leave out where that is more than allowed.

Our threads are measured exactly (their own CPU clock). The hot path is measured by sampling: one trace in METERED has
the clock read around what we do in it, as has one in METERED of what knows no trace, and the sum is scaled up.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from insitu.core.records import METERED, Family, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from insitu.core.clock import Clock

PREEMPTED: Final = 100_000
"""Nanoseconds after which a timing on the hot path holds another thread's work rather than ours, and is cut."""
_CALLS: Final = 16


def turns() -> Iterator[bool]:
    """Return whose turn it is to be timed: of a kind of operation that knows of no trace, one in METERED.

    Asked by `next`.

    Each kind has its own: of fifteen spans and a log record by turns, one count for both would time the record alone.
    """
    return itertools.cycle((*(False,) * (METERED - 1), True))


def unseen(clock: Clock) -> int:
    """Return by how many nanoseconds an empty call takes longer than it says where it times itself.

    That is making the arguments, entering and returning; profilers are calibrated alike.
    """
    read = clock.monotonic

    def call(*, timed: bool, **attributes: object) -> int:
        del attributes
        began = read() if timed else 0
        return read() - began if timed else 0

    def once() -> int:
        began = read()
        for _ in range(_CALLS):
            call(timed=False, tier="gold", items=3)
        whole = read() - began
        return (whole - sum([call(timed=True, tier="gold", items=3) for _ in range(_CALLS)])) // _CALLS

    return max(0, min([once() for _ in range(_CALLS)]))


class Meter:
    """The ledger of one process: nanoseconds by part.

    Parts: `request` (the hot path, in the application's threads), `worker` (count, redact, encode), `sender`
        (delivery), `reader` (scrapes and pages), `flush` (the worker's part where the application asked for it).
    """

    __slots__ = ("_clock", "_lock", "_parts", "_started", "_unseen", "nanoseconds")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unseen = unseen(clock)
        self._parts: dict[str, int] = {}
        self._lock = threading.Lock()
        self.nanoseconds = 0
        self._started = clock.wall()

    def hot(self, elapsed: int) -> None:
        """Add one timing of the hot path, in nanoseconds: of a metered trace, or of what had its turn."""
        self.nanoseconds += ((elapsed if elapsed < PREEMPTED else PREEMPTED) + self._unseen) * METERED

    def whole(self, elapsed: int) -> None:
        """Add what is timed each time that it is done on the hot path, in nanoseconds."""
        self.nanoseconds += elapsed

    def add(self, thread: str, elapsed: int) -> None:
        """Add CPU nanoseconds of one of our own threads, named `part` or `part-something`, or of a part elsewhere."""
        with self._lock:
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
        self._lock = threading.Lock()
        self.nanoseconds = 0
        self._started = self._clock.wall()


class Detail(NamedTuple):
    """How much is recorded. Requests are counted, whatever this says.

    Attributes:
        name: for people.
        attributes: whether spans take attributes.
        children: whether there are spans below the local root.
        share: of the traces, as a function of their ids.
        logs: whether log records go any further than into their counter.

    """

    name: str
    attributes: bool = True
    children: bool = True
    share: float = 1.0
    logs: bool = True


LADDER: Final = (
    Detail("everything"),
    Detail("no attributes", attributes=False),
    Detail("no child spans", attributes=False, children=False),
    Detail("1 trace in 4", attributes=False, children=False, share=1 / 4),
    Detail("1 trace in 16", attributes=False, children=False, share=1 / 16),
    Detail("1 trace in 64", attributes=False, children=False, share=1 / 64),
    Detail("counts only", attributes=False, children=False, share=0.0, logs=False),
)
"""What is left out, step by step: what is dear goes first, what is missed most goes last."""
EVERYTHING: Final = LADDER[0]

WINDOW_SECONDS: Final = 10.0
"""What is measured is the cost of so long, or of the time since the last step."""
_HASTE_SECONDS: Final = 2.0
"""A step down the ladder is taken after no less: six of them are over in well below 20 seconds."""
_RELIEF: Final = 0.5
"""A step back is taken below this share of the budget."""
_PATIENCE_SECONDS: Final = (10.0, 640.0)
"""How long a step is stayed on; doubled with each step back that had to be taken again, up to the second."""


class _Reading(NamedTuple):
    at: float
    spent: float
    process: float


class Ladder:
    """Keeps what we cost within a budget, by recording less. Used by one thread, the worker.

    Args:
        limit: share of one core, or of the process's own CPU time where that is more; None only measures.
        meter: knows what we spend.
        clock: time.
        process: returns the CPU nanoseconds of the process.

    Attributes:
        step: number of the step in LADDER.
        used: share that the window has cost.

    """

    def __init__(
        self, limit: float | None, meter: Meter, clock: Clock, process: Callable[[], int] = time.process_time_ns
    ) -> None:
        self.limit = limit
        self._meter = meter
        self._clock = clock
        self._process = process
        self.reset()

    def reset(self) -> None:
        """Begin at the first step: at the start, and in a forked child."""
        self.step, self.used = 0, 0.0
        self._readings = deque([self._read()])
        self._patience = _PATIENCE_SECONDS[0]
        self._stepped = self._stepped_back = float("-inf")

    @property
    def detail(self) -> Detail:
        """How much is to be recorded."""
        return LADDER[self.step]

    def _read(self) -> _Reading:
        spent = sum(self._meter.seconds().values())
        return _Reading(self._clock.monotonic() / 1e9, spent, self._process() / 1e9)

    def look(self) -> bool:
        """Measure, and take a step where one is due; about once a second. Returns whether it was."""
        readings, now = self._readings, self._read()
        readings.append(now)
        while len(readings) > 2 and now.at - readings[1].at >= WINDOW_SECONDS:  # noqa: PLR2004 a difference needs two
            readings.popleft()
        since = readings[0]
        passed = now.at - since.at
        if passed <= 0:
            return False
        self.used = (now.spent - since.spent) / max(passed, now.process - since.process)
        step = self._due(now.at, passed)
        if step == self.step:
            return False
        self.step, self._stepped, self._readings = step, now.at, deque([now])
        return True

    def _due(self, now: float, passed: float) -> int:
        if self.limit is None:
            return 0
        if self.used > self.limit and passed >= _HASTE_SECONDS and self.step < len(LADDER) - 1:
            if now - self._stepped_back < self._patience:
                self._patience = min(2 * self._patience, _PATIENCE_SECONDS[1])
            return self.step + 1
        if self.step and self.used < self.limit * _RELIEF and now - self._stepped >= self._patience:
            self._stepped_back = now
            return self.step - 1
        return self.step

    def collect(self) -> Iterable[Family]:
        """Return what is used, what is allowed, and where we are on the ladder."""
        text = "Share of one core, or of the process's CPU time where that is more, that insitu takes."
        yield Family("insitu.budget.utilization", "gauge", [Point({}, self.used)], "1", text)
        if self.limit is not None:
            yield Family("insitu.budget.limit", "gauge", [Point({}, self.limit)], "1", "What it may take.")
            step = Point({"detail": self.detail.name}, self.step)
            yield Family("insitu.budget.step", "gauge", [step], "", "How far the detail is reduced; 0 is not at all.")
