"""Copies of databases that cannot be read where they lie.

A writer that was ended by force leaves its write-ahead log behind, and to read that SQLite makes an index beside it.
Without write access to the folder, the database is copied with its log to where we may write.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from insitu.store.folder import write_ahead_log

if TYPE_CHECKING:
    from os import stat_result


class Copies:
    """The copies of one reader: they go with it or with their originals, and so take no more room than those."""

    def __init__(self) -> None:
        self._folder = ""
        self._made: dict[Path, list[tuple[int, int]]] = {}

    def of(self, path: Path) -> Path:
        """Return a copy of a database as it is now; OSError where it cannot be read, or there is no room for it."""
        if not self._folder:
            self._folder = tempfile.mkdtemp(prefix="insitu-")
            weakref.finalize(self, _remove, self._folder, os.getpid())
        copy = Path(self._folder, path.name)
        pairs = [(path, copy), (write_ahead_log(path), write_ahead_log(copy))]
        pairs = [(original, to) for original, to in pairs if original.exists()]
        state = [_state(original.stat()) for original, _ in pairs]
        if self._made.get(path) != state:
            self._forget(path)
            for gone in [each for each in self._made if not each.exists()]:
                self._forget(gone)
            for original, to in pairs:
                shutil.copyfile(original, to)
            self._made[path] = state
        return copy

    def _forget(self, path: Path) -> None:
        self._made.pop(path, None)
        for left in Path(self._folder).glob(f"{path.name}*"):
            left.unlink()


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child's end is not ours
        shutil.rmtree(folder, ignore_errors=True)


def _state(stat: stat_result) -> tuple[int, int]:
    return stat.st_mtime_ns, stat.st_size
