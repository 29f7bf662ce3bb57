"""The store as a sink: what was kept is gathered into blocks and written about once a second.

A disk that is full, a database that is locked or damaged never stops the application, nor the rest of insitu: what
cannot be written is dropped and counted, one warning says so, and the next write tries again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from insitu.core import guard
from insitu.core.records import SPAN_BYTES, UNDECIDED, Family, LocalTrace, Point
from insitu.store import samples
from insitu.store.blocks import LogBlock, TraceBlock
from insitu.store.database import LOGS, TRACES, Batch, Database
from insitu.store.folder import Lease, databases, remove_if_dead, size_of
from insitu.store.rollups import HOUR, KEPT, Rollups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from insitu.analysis.keeping import Tally
    from insitu.core.clock import Clock
    from insitu.core.records import ErrorRecord, Interval, LogRecord, Record
    from insitu.store.samples import Sample

BYTES: Final = 256 * 1024 * 1024
RETENTION_SECONDS: Final = 7 * 24 * 3600.0
BLOCK_BYTES: Final = 128 * 1024
UNDECIDED_BYTES: Final = 4 * 1024 * 1024
_RETRY_NANOSECONDS: Final = 10_000_000_000
_SHRINK_NANOSECONDS: Final = 30_000_000_000
_FILLED: Final = 0.9
"""Share of the cap that blocks may fill: the write-ahead log and the indexes need room too."""


class Writer:
    """Writes what is kept.

    Args:
        folder: where; None keeps it in memory.
        clock: time.
        tallies: returns the windows of `analysis.keeping` that are closed since the last call.
        intervals: returns what was counted in the intervals that are closed since the last call.
        cap: bytes of all files of the service together.
        retention: seconds that an entry is kept.

    Attributes:
        path: the file that is written, None while there is none.
        dropped: entries lost, by reason.

    """

    _told: ClassVar[samples.Kept] = {}
    """What this process has counted, as it was last told to a store."""

    def __init__(
        self,
        folder: Path | None,
        clock: Clock,
        tallies: Callable[[], list[Tally]],
        intervals: Callable[[], list[Interval]],
        *,
        cap: int = BYTES,
        retention: float = RETENTION_SECONDS,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._closed_tallies = tallies
        self._closed_intervals = intervals
        self._cap = cap
        self._retention = round(retention * 1e9)
        self.dropped: dict[str, int] = {}
        self.written = 0
        self._unfit: set[Path] = set()
        self._begin()

    def after_fork(self) -> None:
        """Begin anew in a child: the open file is the parent's.

        SQLite forbids to use, and even to close, a connection on the other side of a fork.
        """
        _inherited.append(self._database)
        if self._lease is not None:
            self._lease.release()
        Writer._told = {}
        self._begin()

    def _begin(self) -> None:
        # A flush hands records on in its own thread while the worker writes, and must not wait for the disk.
        self._lock, self._writing = threading.RLock(), threading.RLock()
        self._database: Database | None = None
        self._lease: Lease | None = None
        self._traces, self._logs, self._rollups = TraceBlock(), LogBlock(), Rollups()
        self._full: list[tuple[str, Any]] = []
        self._undecided: OrderedDict[int, _Held] = OrderedDict()
        self._undecided_bytes = 0
        self._retry = self._next_shrink = 0
        self._since = self._clock.wall()
        """Nothing that this process counts is older."""
        self._sample: tuple[samples.Kept, int] | None = None
        self._totals: samples.Totals | None = None

    def database(self) -> Database | None:
        """Return what is written, for who reads a store in memory."""
        return self._database

    @property
    def path(self) -> Path | None:
        """The file that is written, None while there is none."""
        return self._database.path if self._database is not None else None

    # --- a sink ---

    def accept(self, records: Sequence[Record]) -> None:
        """Take records of which some are kept."""
        with self._lock:
            self._accept(records)

    def _accept(self, records: Sequence[Record]) -> None:
        logs: list[LogRecord | ErrorRecord] = []
        for record in records:
            if type(record) is not LocalTrace:
                logs.append(record)  # type: ignore[arg-type] # there are three kinds
            elif record.kept == UNDECIDED:
                self._hold(record)
            elif record.kept:
                guard.call("store.encode", self._keep, record)
        if logs and not guard.attempt(self._all_logs, logs):
            for each in logs:  # one of them cannot be encoded, and is lost alone
                guard.call("store.encode", self._logs.extend, (each,))
        self._fill(BLOCK_BYTES)
        if len(self._full) > _MOST_WAITING:
            self._lose("backlog", [self._full.pop(0)])

    def _all_logs(self, logs: Sequence[LogRecord | ErrorRecord]) -> bool:
        self._logs.extend(logs)
        return True

    def _fill(self, least: int) -> None:
        """Close the blocks that hold more than `least` bytes."""
        if self._traces.size > least:
            self._full.append((TRACES, self._traces.block()))
            self._traces = TraceBlock()
        if self._logs.size > least:
            self._full.append((LOGS, self._logs.block()))
            self._logs = LogBlock()

    def _keep(self, trace: LocalTrace) -> None:
        for part in self._released(trace.trace_id):
            self._traces.add(part, trace.kept)
        self._traces.add(trace, trace.kept)

    def _hold(self, part: LocalTrace) -> None:
        self._undecided.setdefault(part.trace_id, _Held(self._clock.wall(), [])).parts.append(part)
        self._undecided_bytes += _weight(part)
        while self._undecided_bytes > UNDECIDED_BYTES:
            self._count_lost("undecided", len(self._released(next(iter(self._undecided)))))

    def _released(self, trace_id: int) -> list[LocalTrace]:
        held = self._undecided.pop(trace_id, None)
        parts = held.parts if held is not None else []
        self._undecided_bytes -= sum(map(_weight, parts))
        return parts

    def _let_old_parts_go(self, now: int) -> None:
        """Forget parts whose trace was decided against: its root does not come here."""
        while self._undecided and now - next(iter(self._undecided.values())).since > _PATIENCE_NANOSECONDS:
            self._released(next(iter(self._undecided)))

    # --- jobs ---

    def sample(self, families: Iterable[Family]) -> Iterator[None]:
        """Take what every metric is worth now; yields where the worker may nap, since there may be thousands."""
        taken: list[Family] = []
        for family in families:
            taken.append(family)
            yield
        self._sample = samples.taken(taken), self._clock.wall()

    def flush(self, families: Iterable[Family]) -> None:
        """Write what there is, and what every metric is worth now."""
        guard.call("store.sample", lambda: list(self.sample(families)))
        guard.call("store.write", self.write)

    def write(self) -> None:
        """Write what has gathered, and keep within the caps."""
        with self._writing:
            self._write_all(self._clock.wall())

    def _write_all(self, now: int) -> None:
        with self._lock:
            self._fill(0)
            self._let_old_parts_go(now)
            blocks, self._full = self._full, []
        sample, self._sample = self._sample, None
        tallies, intervals = self._closed_tallies(), self._closed_intervals()
        if any((blocks, tallies, intervals, sample)):
            is_open = self._is_open(now)  # first of all: another process may have begun the minute
            rows = guard.call("store.sample", self._rows, *sample, default=[]) if sample is not None and is_open else []
            batch = Batch(blocks, tallies, self._rollups.add(intervals), rows)
            if is_open:
                self._write(batch, now)
            else:
                self._lose("unwritable", blocks)
        if self._database is not None and now >= self._next_shrink:
            self._next_shrink = now + _SHRINK_NANOSECONDS
            guard.call("store.shrink", self._shrink, now)

    def _rows(self, kept: samples.Kept, at: int) -> list[Sample]:
        Writer._told = kept
        return samples.rows(kept if self._totals is None else self._totals.add(kept), at)

    def _write(self, batch: Batch, now: int) -> None:
        assert self._database is not None
        try:
            self._database.write(batch)
            self.written += sum(block.entries for _, block in batch.blocks)
        except (sqlite3.Error, OSError) as error:
            self._lose("unwritable", batch.blocks)
            self._failed(error, now)

    def _is_open(self, now: int) -> bool:
        if self._database is None and now >= self._retry:
            try:
                self._open()
            except (sqlite3.Error, OSError) as error:
                self._failed(error, now)
        return self._database is not None

    def _open(self) -> None:
        if self.folder is None:
            self._database = Database(None)
            return
        self._lease = Lease(self.folder, self._unfit)
        self._database = Database(self._lease.path)
        self._totals = None
        if self._lease.adopted:
            self._rollups.resume(self._database.adopt(self._since))
            newest = self._database.newest_sample()
            if newest:  # where it is damaged, what it counted is lost, and nothing else
                self._totals = guard.call("store.totals", lambda: samples.Totals(samples.decoded(newest), self._told))

    def _failed(self, error: Exception, now: int) -> None:
        """Try again with the next write; where the file itself is bad, with another file after a while."""
        guard.warn("store.write", "insitu: the store cannot be written (%s); what is kept meanwhile is lost", error)
        if _is_damaged(error) or self._database is None:
            if self._lease is not None:
                self._unfit.add(self._lease.path)
            self._let_go()
            self._since = now
            self._retry = now + _RETRY_NANOSECONDS

    def _lose(self, reason: str, blocks: Iterable[tuple[str, Any]]) -> None:
        self._count_lost(reason, sum(block.entries for _, block in blocks))

    def _count_lost(self, reason: str, entries: int) -> None:
        with self._lock:
            self.dropped[reason] = self.dropped.get(reason, 0) + entries

    def _shrink(self, now: int) -> None:
        """Remove what is old, then the files of dead processes, the oldest first, then our own oldest blocks."""
        assert self._database is not None
        cap, oldest = round(self._cap * _FILLED), now - self._retention
        others = [path for path in databases(self.folder) if path != self.path] if self.folder is not None else []
        sizes = {path: size_of(path) for path in others}
        for path in reversed(others):
            over = sum(sizes.values()) + self._database.size > cap
            if (over or path.stat().st_mtime_ns < oldest) and remove_if_dead(path):
                del sizes[path]
        for length, kept in KEPT.items():
            self._database.forget(length, now - kept)
        self._database.forget(HOUR, oldest)
        # Those that live share what is left; each looks after its own.
        self._database.shrink(max(cap - sum(sizes.values()), cap // (len(sizes) + 1)), oldest)

    def close(self) -> None:
        """Write the rest and close the file, which stays to be read."""
        guard.call("store.write", self.write)
        with self._writing:
            if self._database is not None:  # hours and minutes that are not over
                self._write(Batch([], [], self._rollups.rest(), []), self._clock.wall())
            self._let_go()

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    # --- about itself ---

    def collect(self) -> Iterable[Family]:
        """Return what was written and what was lost."""
        yield Family(
            "insitu.store.written_entries",
            "counter",
            [Point({}, self.written)],
            help="Traces, parts of traces and log records written to the store.",
        )
        lost = [Point({"reason": reason}, number) for reason, number in list(self.dropped.items())]
        yield Family("insitu.store.dropped_entries", "counter", lost, help="Entries that the store has lost.")


class _Held(NamedTuple):
    """Parts of a trace that is not decided yet, and when the first of them came."""

    since: int
    parts: list[LocalTrace]


_PATIENCE_NANOSECONDS: Final = 75_000_000_000
"""A little longer than a trace stays undecided."""
_inherited: Final[list[Database | None]] = []
_MOST_WAITING: Final = 64
"""Full blocks that wait for the next write: 8 MiB."""


def _weight(part: LocalTrace) -> int:
    return part.weight + SPAN_BYTES * len(part.spans)


def _is_damaged(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
