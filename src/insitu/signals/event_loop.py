"""How late the asyncio loops of this process run, who held them up, and how full their thread pools are.

A timer on each loop measures its own lateness; a watcher on another thread sees a timer that is overdue and takes the
stack of the loop's thread while it is still held up. Nothing here keeps a loop alive.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import asyncio.runners
import selectors
import sys
import sysconfig
import threading
import weakref
from asyncio import AbstractEventLoop
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from types import FrameType
from typing import Any, Final, NamedTuple

from insitu.core import guard
from insitu.core.clock import Clock
from insitu.core.records import Family, Frame, Point

BEAT: Final = 0.5
"""Seconds between two beats of a loop's timer."""
LATE: Final = 0.1
"""Seconds that a timer may be overdue before its loop counts as blocked."""
SUSPENDED: Final = 2.0
"""Seconds between two rounds of the watcher after which the whole process was asleep, and no loop is to blame."""
LASTING: Final = 5.0
"""Seconds after which a block is reported although it has not ended."""
PLACES: Final = 100
"""Places in the code that `insitu.event_loop.blocked` tells apart."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DEPTH: Final = 64

Report = Callable[[float, tuple[Frame, ...]], None]
"""Called on the worker with the seconds that a loop was blocked, and the stack that blocked it, outermost first."""

_ASYNCIO: Final = {asyncio.events.__file__, asyncio.base_events.__file__, asyncio.runners.__file__}
_RUNNERS: Final = {"_run", "_run_once", "run_forever", "run_until_complete", "run"}
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def culprit(frames: Sequence[Frame]) -> Frame | None:
    """Return the innermost frame of the application itself, of any library where there is none; None of no frames."""
    own = (frame for frame in reversed(frames) if not _is_library(frame.code.co_filename))
    return next(own, frames[-1] if frames else None)


def describe(seconds: float, frames: Sequence[Frame]) -> str:
    """Return a block in a sentence: `event loop blocked for 812 ms by shop/app.py:41 in report`."""
    place = culprit(frames)
    by = f" by {place.code.co_filename}:{place.line} in {place.code.co_qualname}" if place else ""
    return f"event loop blocked for {seconds * 1e3:.0f} ms{by}"


def _is_library(filename: str) -> bool:
    return filename.startswith((*_LIBRARIES, "<frozen ")) or "-packages" in filename


class PoolUse(NamedTuple):
    """How full a pool of threads is: workers at most, workers busy, calls that wait for one."""

    size: float
    active: int
    waiting: int


class _Heart:
    """The timer of one loop.

    Attributes:
        due: monotonic nanoseconds of the next beat; 0 when it must not be judged, as the loop stood still on purpose.
        frames: the stack that was seen while the beat was overdue, until the watcher has reported it.
        ended: nanoseconds that a block took, once it is over, until the watcher has reported it.

    """

    __slots__ = (
        "count",
        "due",
        "ended",
        "frames",
        "lags",
        "limiter",
        "loop",
        "monitor",
        "pools",
        "reported",
        "sum",
        "thread",
    )

    def __init__(self, monitor: EventLoopMonitor, loop: AbstractEventLoop) -> None:
        self.monitor: EventLoopMonitor | None = monitor
        self.loop = weakref.ref(loop)
        self.thread = threading.get_ident()
        self.due = 0
        self.frames: tuple[Frame, ...] = ()
        self.ended = 0
        self.reported = False
        self.lags = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        self.limiter: Any = None
        self.pools: dict[str, PoolUse] = {}
        self.schedule(loop, monitor)

    @property
    def alive(self) -> bool:
        loop = self.loop()
        return loop is not None and not loop.is_closed()

    def schedule(self, loop: AbstractEventLoop, monitor: EventLoopMonitor) -> None:
        self.pools = dict(self.read_pools(loop))
        self.due = monitor.clock.monotonic() + monitor.beat
        # An empty context: the timer must not hold the request in which it was first set.
        loop.call_later(monitor.beat / 1e9, self.beat, context=Context())

    @guard.safe("signals.event_loop")
    def beat(self) -> None:
        loop, monitor = self.loop(), self.monitor
        if loop is None or monitor is None or loop.is_closed():
            return
        if self.due:
            lag = max(0, monitor.clock.monotonic() - self.due)
            self.lags[bisect_left(BOUNDS, lag / 1e9)] += 1
            self.sum += lag / 1e9
            if lag > monitor.late:
                self.ended = lag
        self.thread = threading.get_ident()
        self.schedule(loop, monitor)

    def read_pools(self, loop: AbstractEventLoop) -> Iterator[tuple[str, PoolUse]]:
        if (limiter := self.find_limiter()) is not None:
            statistics = limiter.statistics()
            yield "anyio", PoolUse(statistics.total_tokens, statistics.borrowed_tokens, statistics.tasks_waiting)
        executor = getattr(loop, "_default_executor", None)  # private: absent from uvloop, and then not reported
        try:
            if executor is not None:
                busy = len(executor._threads) - executor._idle_semaphore._value
                yield "asyncio", PoolUse(executor._max_workers, max(0, busy), executor._work_queue.qsize())
        except AttributeError:  # an executor of the application's own making
            return

    def find_limiter(self) -> Any:
        if self.limiter is None and "anyio.to_thread" in sys.modules:
            try:
                self.limiter = sys.modules["anyio.to_thread"].current_default_thread_limiter()
            except (RuntimeError, LookupError, AttributeError):  # half imported, or older than 4.12 and outside a task
                return None
        return self.limiter


class EventLoopMonitor:
    """Lag, culprits and thread pools of all loops that were attached.

    Args:
        clock: time.
        report: called for each block whose stack was seen.
        late: seconds that a beat may be overdue before the loop counts as blocked.
        beat: seconds between beats.

    """

    __slots__ = (
        "beat",
        "blocked",
        "clock",
        "dead_lags",
        "dead_sum",
        "hearts",
        "known",
        "late",
        "report",
        "since",
        "watched",
    )

    def __init__(self, clock: Clock, report: Report, late: float = LATE, beat: float = BEAT) -> None:
        self.clock = clock
        self.report = report
        self.late = int(late * 1e9)
        self.beat = int(beat * 1e9)
        self.reset()

    def reset(self) -> None:
        """Forget all loops, as a forked child must: they run in the parent."""
        for heart in getattr(self, "hearts", ()):
            heart.monitor = None
        self.hearts: list[_Heart] = []
        self.known: weakref.WeakKeyDictionary[AbstractEventLoop, bool] = weakref.WeakKeyDictionary()
        self.blocked: dict[tuple[str, int, str], int] = {}
        self.dead_lags = [0] * (len(BOUNDS) + 1)
        self.dead_sum = 0.0
        self.since = self.clock.wall()
        self.watched = self.clock.monotonic()

    close = reset

    @guard.safe("signals.event_loop")
    def attach(self) -> None:
        """Watch the running loop from now on. Costs nothing more for a loop that is watched already."""
        loop = asyncio.get_running_loop()
        if loop not in self.known:
            self.known[loop] = True
            self.hearts.append(_Heart(self, loop))

    def watch(self) -> None:
        """Look for loops that are held up, and report those that were; for a thread of ours, several times a second."""
        now = self.clock.monotonic()
        asleep, self.watched = now - self.watched > SUSPENDED * 1e9, now
        for heart in list(self.hearts):
            if not heart.alive:
                self._bury(heart)
            elif asleep:
                self._forgive(heart)
            else:
                self._examine(heart, now)

    def _bury(self, heart: _Heart) -> None:
        self.hearts.remove(heart)
        self.dead_lags = [a + b for a, b in zip(self.dead_lags, heart.lags, strict=True)]
        self.dead_sum += heart.sum

    def _forgive(self, heart: _Heart) -> None:
        heart.due, heart.ended, heart.frames = 0, 0, ()

    def _examine(self, heart: _Heart, now: int) -> None:
        if heart.ended:
            self._finish(heart)
        due, loop = heart.due, heart.loop()
        if not due or now - due <= self.late:
            return
        if loop is None or not loop.is_running():
            self._forgive(heart)  # between two calls of run_until_complete: nobody holds it up
        elif not heart.frames:
            frames = _stack(heart.thread)
            heart.frames = frames if heart.due == due else ()  # else the stack is already somebody else's
        elif not heart.reported and now - due > LASTING * 1e9:
            heart.reported = True
            guard.call("signals.event_loop.report", self.report, (now - due) / 1e9, heart.frames)

    def _finish(self, heart: _Heart) -> None:
        lag, frames = heart.ended, heart.frames
        heart.ended, heart.frames, heart.reported = 0, (), False
        place = culprit(frames)
        key = (place.code.co_filename, place.line, place.code.co_qualname) if place else ("", 0, "")
        if key not in self.blocked and len(self.blocked) >= PLACES:
            key = ("other", 0, "")
        self.blocked[key] = self.blocked.get(key, 0) + 1
        if frames:
            guard.call("signals.event_loop.report", self.report, lag / 1e9, frames)

    def collect(self) -> list[Family]:
        """Return lag, blocks by place, and the pools of threads, as they are known."""
        hearts, time = list(self.hearts), self.clock.wall()
        lags = [sum(column) for column in zip(self.dead_lags, *(heart.lags for heart in hearts), strict=True)]
        if not any(lags) and not hearts:
            return []
        lag = Point({}, self.dead_sum + sum(heart.sum for heart in hearts), lags)
        families = [
            Family("insitu.event_loop.lag", "histogram", [lag], "s", bounds=BOUNDS, start=self.since, time=time)
        ]
        families[0].help = "How late a timer of the asyncio event loop fires."
        if self.blocked:
            points = [Point(_place_labels(*place), count) for place, count in list(self.blocked.items())]
            text = "Times that the event loop was held up, by the line of code that did."
            name = "insitu.event_loop.blocked"
            families.append(Family(name, "counter", points, "{block}", text, start=self.since, time=time))
        return families + _pool_families(hearts, time)


def _place_labels(file: str, line: int, function: str) -> dict[str, Any]:
    if not line:
        return {"code.file.path": file or "unknown"}
    return {"code.file.path": file, "code.line.number": line, "code.function.name": function}


def _pool_families(hearts: list[_Heart], time: int) -> list[Family]:
    uses: dict[str, PoolUse] = {}
    for heart in hearts:
        for pool, use in heart.pools.items():
            size, active, waiting = uses.get(pool, (0, 0, 0))
            uses[pool] = PoolUse(size + use.size, active + use.active, waiting + use.waiting)
    if not uses:
        return []
    texts = {
        "size": "Threads that a pool may have.",
        "active": "Threads at work.",
        "waiting": "Calls that wait for a thread.",
    }
    return [
        Family(
            f"insitu.thread_pool.{field}",
            "gauge",
            [Point({"pool": pool}, getattr(use, field)) for pool, use in uses.items()],
            "{call}" if field == "waiting" else "{thread}",
            text,
            time=time,
        )
        for field, text in texts.items()
    ]


def _stack(thread: int) -> tuple[Frame, ...]:
    """Return what a loop's thread runs inside its loop, outermost first; nothing while the loop waits for events."""
    frame: FrameType | None = sys._current_frames().get(thread)
    found: list[Frame] = []
    while frame is not None and len(found) < DEPTH:
        code = frame.f_code
        if code.co_filename in _ASYNCIO and code.co_name in _RUNNERS:
            break
        found.append(Frame(code, frame.f_lineno))
        frame = frame.f_back
    if not found or found[0].code.co_filename == selectors.__file__:
        return ()
    return tuple(reversed(found))
