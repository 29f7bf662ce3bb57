"""What no back-end took in time, kept as files until one does: requests as they were to be sent, each whole in itself.

    <store>/<service>/spool/<exporter>/<wall nanoseconds>-<uuid>.request

A file is held (flock) by who writes or sends it, and removed when the back-end has answered. Who is killed while it
sends leaves it to the next one, whose spans have the ids that they had before; who is killed while it writes leaves a
file that is shorter than its head says, and nobody sends that.
"""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from insitu.core import documents, guard
from insitu.core.ports import Left
from insitu.store import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from insitu.core.clock import Clock
    from insitu.core.records import Signal

BYTES: Final = 16 * 1024 * 1024
FILES: Final = 1_000
"""Caps of one exporter's files; what finds no room is lost, and counted as that."""
NANOSECONDS: Final = 24 * 3600 * 1_000_000_000
"""What is older is of no use to anybody."""
_SUFFIX: Final = ".request"


class Spool:
    """The files of one exporter of one service; its processes share them.

    Args:
        folder: made when there is something to keep.
        clock: time.

    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def keep(self, signal: Signal, items: int, body: bytes) -> bool:
        """Keep a request; False where there is no room for it."""
        return bool(guard.call("spool", self._keep, signal, items, body, default=False))

    def _keep(self, signal: Signal, items: int, body: bytes) -> bool:
        data = documents.dumps([signal, items, len(body)]) + b"\n" + body
        files = self._files()
        if len(files) >= FILES or sum(path.stat().st_size for path in files) + len(data) > BYTES:
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{self._clock.wall():020d}-{uuid.uuid4()}{_SUFFIX}"
        handle = locks.take(path)
        if handle is None:  # nobody else knows its name
            return False
        whole = False
        try:
            whole = os.write(handle, data) == len(data)
        finally:
            os.close(handle)
            if not whole:  # the disk is full
                path.unlink(missing_ok=True)
        return whole

    @contextmanager
    def oldest(self) -> Iterator[Left | None]:
        """Hold the oldest request that nobody else holds; the caller says by `done` that it may go."""
        held = self._held()
        if held is None:
            yield None
            return
        path, handle, left = held
        try:
            yield left
            if left.done:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def _held(self) -> tuple[Path, int, Left] | None:
        for path in sorted(self._files()):
            handle = guard.attempt(locks.take, path)
            if handle is None:
                continue
            left = guard.attempt(self._read, path, handle)
            if left is not None:
                return path, handle, left
            os.close(handle)
        return None

    def _read(self, path: Path, handle: int) -> Left | None:
        if not os.path.samestat(path.stat(), os.fstat(handle)):  # somebody has sent and removed it meanwhile
            return None
        head, _, body = path.read_bytes().partition(b"\n")
        try:
            signal, items, length = documents.loads(head)
        except (ValueError, TypeError):
            signal, items, length = "", 0, -1
        if length != len(body):  # damaged, cut short, or nobody's: it is in nobody's way
            path.unlink()
            return None
        old = self._clock.wall() - int(path.name.partition("-")[0]) > NANOSECONDS
        return Left(signal, int(items), b"" if old else body)

    def _files(self) -> list[Path]:
        with suppress(OSError):
            return [path for path in self._folder.iterdir() if path.suffix == _SUFFIX]
        return []
