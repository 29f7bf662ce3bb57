"""The metrics of a service: each of its workers publishes its own, and any of them adds up what is published.

What counts is never taken back: a worker that dies leaves its totals, the next one goes on with them, and what is read
is what was published, so that no counter falls when a worker is killed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.core.records import HOST, Family, Point
from insitu.store import family as families
from insitu.store.cells import Cells, added
from insitu.store.slots import MOST_SLOTS, NAMES, VALUES, Readings, Slot, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from insitu.core.clock import Clock
    from insitu.store.cells import Told
    from insitu.store.slots import Reading

_TIDY_NANOSECONDS: Final = 10_000_000_000
_RETRY_NANOSECONDS: Final = 10_000_000_000
_SHARE: Final = 100
"""Publishing takes no more than a hundredth of the time between two of them."""


class Workers:
    """This process among the workers of its service.

    Args:
        service: the folder of the service.
        clock: time.
        collect: returns all metrics of this process.
        environ: where INSITU_INSTANCE may stand.
        told: what this process has told before it was shut down and started again; it outlives this object.

    """

    def __init__(
        self,
        service: Path,
        clock: Clock,
        collect: Callable[[], Iterable[Family]],
        environ: Mapping[str, str],
        told: Told,
    ) -> None:
        self._told = told
        self._service = service
        self._clock = clock
        self._collect = collect
        self._environ = environ
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # the worker publishes, and so does who reads
        self._family: families.Family | None = None
        self._readings = Readings()
        self._slot: Slot | None = None
        self._cells = Cells()
        self._next = self._next_tidy = self._retry = 0

    def after_fork(self) -> None:
        """Begin anew in a child, which takes a slot of its own once it has something to say."""
        if self._slot is not None:
            self._slot.release()
        self._told.clear()
        self._begin()

    @property
    def folder(self) -> Path:
        """The folder of the family."""
        return self._service / self._own_family().name

    def _own_family(self) -> families.Family:
        if self._family is None:
            self._family = families.family_of(self._environ)
        return self._family

    def are_several(self) -> bool:
        """Whether there are others, or were, or may be: a service that is one process publishes nothing."""
        return self._slot is not None or not self._own_family().alone or bool(paths(self.folder))

    # --- what this worker says ---

    def publish_in_time(self) -> None:
        """Publish, if it is time to."""
        began = self._clock.monotonic()
        if began >= self._next and self.are_several():
            self.publish(self._collect())
            self._next = began + _SHARE * (self._clock.monotonic() - began)

    def publish_at_once(self) -> None:
        """Publish, as where the process may end."""
        if self.are_several():
            self.publish(self._collect())

    def publish(self, own: Iterable[Family]) -> bool:
        """Write what this process counts; whether it could."""
        with self._lock:
            try:
                return self._publish(own)
            except (OSError, ValueError) as error:
                guard.warn("workers", "insitu: what this worker counts cannot be shared (%s)", error)
                return False

    def _publish(self, own: Iterable[Family]) -> bool:
        now = self._clock.monotonic()
        slot = self._slot
        if slot is not None and not slot.path.exists():  # somebody has wiped the folder: begin anew with what we have
            slot.release()
            slot, self._slot, self._retry = None, None, 0
        if slot is None:
            if now < self._retry:
                return False
            self._retry = now + _RETRY_NANOSECONDS
            slot = self._slot = self._leased()
            if slot is None:
                return False
        kept = list(own)
        if now >= self._next_tidy:
            self._next_tidy = now + _TIDY_NANOSECONDS
            self._absorb_dead(slot, kept)
        slot.write(self._cells.filled(slot, kept), self._clock.wall())
        return True

    def _leased(self) -> Slot | None:
        """Take the lowest slot that nobody holds, and go on where it stands."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard.attempt(families.remove_dead, self._service, self.folder.name)
        with families.gate(self.folder, alone=True) as held:
            slot = self._free() if held else None
            if slot is not None:
                self._cells = Cells()
                elsewhere = {birth for reading in self._readings.of(self.folder, ()) for birth in reading.bank.absorbed}
                try:
                    slot.resume(elsewhere)
                except (OSError, ValueError):
                    self._readings.damaged.add(slot.path)
                    slot.begin()
                self._cells.take_back(slot, self._told)
                self._told.clear()
            return slot

    def _free(self) -> Slot | None:
        taken = paths(self.folder)
        for path in taken:
            try:
                return Slot(path)
            except BlockingIOError:
                continue
        numbers = {int(path.stem) for path in taken}
        free = next(number for number in range(MOST_SLOTS + 1) if number not in numbers)
        return Slot(self.folder / f"{free:03d}{VALUES}") if free < MOST_SLOTS else None

    def _absorb_dead(self, slot: Slot, own: Sequence[Family]) -> None:
        """Take over what the dead have counted, then remove their slots.

        Where we are killed in between, readers and successors know by the birth ids that they are in ours.
        """
        others = [path for path in paths(self.folder) if path != slot.path]
        if not others:
            return
        with families.gate(self.folder, alone=True) as held:
            if not held:
                return
            readings = list(self._readings.of(self.folder, (slot.path,)))
            # One that is in our numbers already is left from a time when these could not be written.
            dead = [each for each in readings if not each.live and each.bank.birth not in slot.absorbed]
            for reading in dead:
                self._cells.add_base(slot, reading)
                slot.absorbed += [*reading.bank.absorbed, reading.bank.birth]
            if any(not each.live for each in readings):
                slot.write(self._cells.filled(slot, own), self._clock.wall())
            for path in others:
                if slot.has_all_of(path):
                    path.unlink(missing_ok=True)
                    path.with_suffix(NAMES).unlink(missing_ok=True)

    # --- what all of them say ---

    def merged(self) -> list[Family]:
        """Publish, and return every metric of the service: what is published, and what all workers of a host share.

        Asked where there are several.
        """
        with self._lock:
            own = list(self._collect())
            if not self.publish(own):
                return own
            readings = guard.call("workers", self._read, default=[])
        if not readings:
            return own
        return [*added(readings), *(each for each in own if each.merging == HOST)]

    def _read(self) -> list[Reading]:
        with families.gate(self.folder, alone=False):
            leased = (self._slot.path,) if self._slot is not None else ()
            return list(self._readings.of(self.folder, leased))

    def collect(self) -> Iterable[Family]:
        """Return how many workers live, and how many of their files are damaged."""
        text = "Workers of this service that live."
        yield Family("insitu.workers", "gauge", [Point({}, 1)], "{worker}", text, merge="sum")
        text = "Files of workers that could not be read."
        damaged = [Point({}, len(self._readings.damaged))]
        yield Family("insitu.damaged_worker_files", "gauge", damaged, "{file}", text, merge="max")

    def close(self) -> None:
        """Publish what there is, and let go of the slot."""
        with self._lock:
            self.publish_at_once()
            if self._slot is not None:
                # Instruments outlive a shutdown: after the next start they count on from here.
                self._told[:] = self._cells.told(self._slot)
                self._slot.release()
                self._slot = None
