"""One SQLite file: its tables, what is written to it, and how it stays within its cap.

Write-ahead logging, so that readers of any process see a consistent state while we write, and never wait.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core.records import Interval
from insitu.store.blocks import Block
from insitu.store.rollups import HOUR, MINUTE, added, cover

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from insitu.analysis.keeping import Tally
    from insitu.core.records import RouteTotals
    from insitu.store.rollups import Row
    from insitu.store.samples import Sample

VERSION: Final = 1
TRACES, LOGS = KINDS = ("traces", "logs")
_BUSY_MILLISECONDS: Final = 50
_CHECKPOINT_PAGES: Final = 256
_CACHE_KILOBYTES: Final = 512
_OLDEST_AT_ONCE: Final = 8

_SCHEMA: Final = """
CREATE TABLE block (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, "start" INTEGER NOT NULL, "end" INTEGER NOT NULL,
    entries INTEGER NOT NULL, ids BLOB NOT NULL, hot BLOB NOT NULL, rest BLOB NOT NULL
);
CREATE INDEX block_end ON block (kind, "end");
CREATE TABLE tally (
    "start" INTEGER NOT NULL, "end" INTEGER NOT NULL, reason TEXT NOT NULL, seen INTEGER NOT NULL, kept INTEGER NOT NULL
);
CREATE INDEX tally_end ON tally ("end");
CREATE TABLE rollup (
    length INTEGER NOT NULL, "start" INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
    errors INTEGER NOT NULL, durations BLOB NOT NULL, PRIMARY KEY (length, "start", name)
) WITHOUT ROWID;
CREATE TABLE sample (
    length INTEGER NOT NULL, "start" INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (length, "start")
);
"""

INTERVALS: Final = """
SELECT "start", name, count, errors, durations FROM rollup WHERE length = ? AND "start" >= ? AND "start" < ?
"""

NEWEST_SAMPLE: Final = "SELECT time, data FROM sample ORDER BY time DESC LIMIT 1"

_DROP_OLDEST: Final = """
DELETE FROM block WHERE id IN (SELECT id FROM block ORDER BY "end" LIMIT ?)
"""


class Batch(NamedTuple):
    """What is written at once: blocks with their kinds, and what was counted and sampled beside them."""

    blocks: list[tuple[str, Block]]
    tallies: list[Tally]
    intervals: list[Interval]
    samples: list[Sample]


class Database:
    """The file that this process writes. Used by one thread, the worker.

    Args:
        path: the file; None keeps everything in memory.

    Raises:
        sqlite3.Error, OSError: it cannot be opened.

    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._connection = sqlite3.Connection(
            str(path) if path is not None else ":memory:", isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except sqlite3.Error:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        run("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")  # a power cut loses the last seconds, and damages nothing
        run(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        run(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        if run("PRAGMA user_version").fetchone()[0] == 0:
            self._connection.executescript(_SCHEMA)
            run(f"PRAGMA user_version = {VERSION}")

    def write(self, batch: Batch) -> None:
        """Write all of it, or nothing."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(
                'INSERT INTO block (kind, "start", "end", entries, ids, hot, rest) VALUES (?, ?, ?, ?, ?, ?, ?)',
                [(kind, *block) for kind, block in batch.blocks],
            )
            self._connection.executemany(
                "INSERT INTO tally VALUES (?, ?, ?, ?, ?)",
                [
                    (tally.start, tally.end, reason, seen, tally.kept[reason])
                    for tally in batch.tallies
                    for reason, seen in tally.seen.items()
                    if seen
                ],
            )
            self._insert(batch.intervals)
            self._connection.executemany("INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?)", batch.samples)
            run("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def adopt(self, since: int) -> list[Interval]:
        """Go on where a process that is dead has ended; return the minute and the hour of that moment.

        What is written of these is taken back, and will be written again. The last ones that the dead process did not
        live to write are written now: whoever reads takes what lies between two minutes to be nothing.
        """
        going_on: list[Interval] = []
        for length in (MINUTE, HOUR):
            current = since // length * length
            newest = self.read('SELECT max("start") FROM rollup WHERE length < ?', (length,))[0][0]
            last = current if newest is None else newest // length * length
            if last != current and not self._intervals(length, last):
                self._insert([Interval(last, length, self._totals(last, length))])
            going_on.append(Interval(current, length, self._totals(current, length)))
            self._connection.execute('DELETE FROM rollup WHERE length = ? AND "start" = ?', (length, current))
        return going_on

    def newest_sample(self) -> bytes:
        """Return what was sampled last, empty where nothing was."""
        rows = self.read(NEWEST_SAMPLE)
        return bytes(rows[0][1]) if rows else b""

    def _totals(self, start: int, length: int) -> dict[str, RouteTotals]:
        return dict(added(cover(lambda *asked: self.read(INTERVALS, asked), start, start + length)))

    def _intervals(self, length: int, start: int) -> list[Row]:
        return self.read(INTERVALS, (length, start, start + 1))

    def _insert(self, intervals: Iterable[Interval]) -> None:
        """Add what was counted to what another process has written of the same intervals into this file."""
        for each in intervals:
            there = dict(added(self._intervals(each.length, each.start)))
            rows = []
            for name, totals in each.routes.items():
                if (before := there.get(name)) is not None:
                    before.add(totals)
                whole = before or totals
                rows.append((each.length, each.start, name, whole.count, whole.errors, whole.durations.to_bytes()))
            self._connection.executemany("INSERT OR REPLACE INTO rollup VALUES (?, ?, ?, ?, ?, ?)", rows)

    def forget(self, length: int, oldest: int) -> None:
        """Drop the intervals and samples of one length that began before `oldest`."""
        for table in ("rollup", "sample"):
            self._connection.execute(f'DELETE FROM {table} WHERE length = ? AND "start" < ?', (length, oldest))  # noqa: S608 a name of ours

    @property
    def size(self) -> int:
        """Bytes in use; what was deleted counts no more."""
        run = self._connection.execute
        pages, free = run("PRAGMA page_count").fetchone()[0], run("PRAGMA freelist_count").fetchone()[0]
        return int((pages - free) * run("PRAGMA page_size").fetchone()[0])

    def shrink(self, cap: int, oldest: int) -> None:
        """Drop the oldest blocks until the file is below `cap` bytes and holds nothing that ended before `oldest`.

        Args:
            cap: bytes.
            oldest: wall nanoseconds.

        """
        run = self._connection.execute
        run('DELETE FROM block WHERE "end" < ?', (oldest,))
        run('DELETE FROM tally WHERE "end" < ?', (oldest,))
        while self.size > cap:
            if not run(_DROP_OLDEST, (_OLDEST_AT_ONCE,)).rowcount:
                break
        run("PRAGMA incremental_vacuum")

    def read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a question, for whoever reads a store that is kept in memory."""
        return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close it; what was written stays."""
        self._connection.close()
