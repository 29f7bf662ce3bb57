"""Our own threads.

Started when first needed, ended and started again around a fork, and never in the way of the host's exit.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from insitu.core import context, guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from insitu.core.budget import Meter
    from insitu.core.clock import Clock

_Piece = TypeVar("_Piece")
_AFTER_A_FAILURE_SECONDS: Final = 1.0
_SLICE_SECONDS: Final = 0.001
_NAP_SECONDS: Final = 0.0001


class Slices:
    """Long work that lets others have the interpreter: when a slice is over it naps before the next piece.

    A nap is as short as it can be: who waits for the interpreter's lock has it then, for as long as needed.

    Args:
        now: monotonic seconds.
        nap: sleeps so many seconds.

    """

    def __init__(self, now: Callable[[], float] = time.monotonic, nap: Callable[[float], object] = time.sleep) -> None:
        self._now = now
        self._nap = nap
        self._until = now() + _SLICE_SECONDS

    def over(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """Yield one piece of work after the other, with naps in between."""
        for piece in pieces:
            yield piece
            if self._now() >= self._until:
                self._nap(_NAP_SECONDS)
                self._until = self._now() + _SLICE_SECONDS


class Background:
    """A daemon thread that calls `step` again and again, and sleeps as long as `step` says in between.

    Args:
        name: of the thread, and its part in the budget's ledger.
        step: does one round of work; returns the seconds to sleep before the next (0: at once).
        meter: where the thread's CPU time is entered.
        clock: whose `cpu` measures it.

    """

    def __init__(self, name: str, step: Callable[[], float], meter: Meter, clock: Clock) -> None:
        self.name = name
        self.stopping = False
        self._step = step
        self._meter = meter
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._wakeup = threading.Event()

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def ensure(self) -> bool:
        """Start the thread unless it runs. False when it cannot be started (the interpreter is ending).

        One that was asked to end and is still at its last step goes on instead.
        """
        if self._thread is not None and not self.stopping:
            return True
        with self._lock:
            self.stopping = False
            return self._thread is not None or self._start()

    def _start(self) -> bool:
        self._wakeup.clear()
        self._thread = thread = threading.Thread(target=self._run, name=f"insitu-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # at interpreter shutdown, in a subinterpreter, or out of threads
            self._thread = None
            return False
        return True

    def wake(self) -> None:
        """End the current sleep."""
        self._wakeup.set()

    def wait(self, seconds: float) -> bool:
        """Sleep inside of `step`, until woken at the longest; True when the thread is to end."""
        if not self.stopping:
            self._wakeup.wait(seconds)
            if not self.stopping:
                self._wakeup.clear()
        return self.stopping

    def ask_to_stop(self) -> None:
        """Ask the thread to end, without waiting for it."""
        with self._lock:
            self.stopping = True
            self._wakeup.set()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end and wait for it.

        False when it did not in time; it then ends with its step, or with the process.
        """
        self.ask_to_stop()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def forget(self) -> bool:
        """Drop the thread without waiting: in a forked child it does not exist. Whether it was amid its work."""
        amid = self._thread is not None
        self._thread = None
        self._lock = threading.RLock()
        self._wakeup = threading.Event()
        self.stopping = False
        return amid

    def _run(self) -> None:
        context.suppress()
        wakeup = self._wakeup
        while self._goes_on():
            before = self._clock.cpu()
            pause = guard.call_in_worker(self.name, self._step, default=_AFTER_A_FAILURE_SECONDS)
            self._meter.add(self.name, self._clock.cpu() - before)
            if pause > 0 and not self.stopping:
                wakeup.wait(pause)
                wakeup.clear()

    def _goes_on(self) -> bool:
        """Whether there is another round. In one move with `ensure`, so that nobody counts on a thread that ends."""
        with self._lock:
            if self.stopping and self.is_current():
                self._thread = None
            return not self.stopping
