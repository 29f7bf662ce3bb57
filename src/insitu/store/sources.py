"""The databases of a service, opened for reading; what is damaged in one is reported, and costs the others nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from insitu.core import guard
from insitu.store.folder import write_ahead_log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from insitu.store.copies import Copies
    from insitu.store.database import Database

_BUSY_SECONDS: Final = 0.05
_NEEDS_A_FILE: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_PRIMARY: Final = 0xFF
"""The bits of an error code without its details."""


class Source:
    """One database, open for reading."""

    def __init__(self, read: Callable[[str, Sequence[object]], list[tuple[Any, ...]]]) -> None:
        self._read = read

    def read(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return the rows of a question; none where they cannot be read."""
        rows: list[tuple[Any, ...]] = guard.call("store.read", self._read, statement, values, default=[])
        return rows

    def one(self, statement: str, number: int) -> bytes:
        """Return a part of a block; empty where the block is gone."""
        rows = self.read(statement, (number,))
        return bytes(rows[0][0]) if rows else b""


class Sources:
    """Opens databases for reading, and closes them.

    Args:
        paths: of the files.
        memory: the database of this process where it is in memory, or None.
        copies: of those that cannot be read where they lie.

    """

    def __init__(self, paths: Sequence[Path], memory: Database | None, copies: Copies) -> None:
        self._paths = paths
        self._memory = memory
        self._copies = copies
        self._open: list[sqlite3.Connection] = []

    def __enter__(self) -> list[Source]:
        sources = [Source(self._memory.read)] if self._memory is not None else []
        for path in self._paths:
            connection = guard.attempt(_connected, path, self._copies)
            if connection is not None:
                self._open.append(connection)
                sources.append(Source(partial(_rows, connection)))
        return sources

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()


def _rows(connection: sqlite3.Connection, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()


def _connected(path: Path, copies: Copies) -> sqlite3.Connection:
    """Open a file for reading; sqlite3.Error when it is no store, or damaged.

    SQLite makes files of its own beside it. Where it may not, a file that nobody writes is read as it lies, and one
    whose writer has left a log is copied.
    """
    try:
        return _open(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY not in _NEEDS_A_FILE:
            raise
    if not write_ahead_log(path).exists():
        return _open(path, "immutable=1")
    try:
        return _open(copies.of(path), "mode=ro")
    except OSError as error:
        guard.warn("store.copy", "insitu: %s cannot be read where it lies, nor copied (%s)", path, error)
        raise


def _open(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.Connection(f"{path.as_uri()}?{how}", uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        with closing(connection.execute("SELECT count(*) FROM block WHERE id < 0")) as cursor:
            cursor.fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
