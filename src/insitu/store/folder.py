"""Where the store's files live, whose they are, and which of them nobody writes any more.

    <store>/<service>/<uuid>.db      one for each process, opened after a fork and never inherited
    <store>/<service>/<uuid>.lock    held (flock) as long as the process lives

The lock is a file of its own: closing any other handle of a database would let go of SQLite's own locks on it.
"""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.store import locks

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

DATABASE: Final = ".db"
_LOCK: Final = ".lock"
_LOG: Final = "-wal"
_BESIDE: Final = (_LOG, "-shm")
_UNFIT: Final = re.compile(r"[^\w.-]+")
_LONGEST_NAME: Final = 100


def place_for(store: str, service: str) -> Path | None:
    """Make and return the folder of a service; a temporary one where it cannot be made, None where nothing can."""
    name = _UNFIT.sub("_", service).strip(".")[:_LONGEST_NAME] or "service"
    wanted = Path(store).absolute() / name
    error = _prepared(wanted)
    if error is None:
        return wanted
    # A place that other processes of ours find as well, and that is nobody else's, though anybody may write beside it.
    other = Path(tempfile.gettempdir()) / f"insitu-{os.getuid() if hasattr(os, 'getuid') else 0}" / name
    failed = _prepared(other) or _of_somebody_else(other.parent)
    rest = f"what is kept goes to {other}" if failed is None else "it is kept in memory"
    guard.warn("store.folder", "insitu: the store %s cannot be written (%s); %s", wanted, error, rest)
    return other if failed is None else None


def _prepared(folder: Path) -> OSError | None:
    """Make a folder that only we can read, with its own .gitignore; return what stood against it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f"{uuid.uuid4()}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return error
    ignore = folder.parent / ".gitignore"
    with suppress(OSError):  # the store's own folder may be an administrator's
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")
    return _of_somebody_else(folder)


def _of_somebody_else(folder: Path) -> OSError | None:
    if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
        return PermissionError(f"{folder} belongs to somebody else")
    return None


def services(store: Path) -> list[str]:
    """Return the services that have a database in a store."""
    return sorted({path.parent.name for path in store.glob(f"*/*{DATABASE}")})


class Lease:
    """A database, held by this process until `release` or its end.

    One that a dead process has left is taken over, the last one first, so that files do not pile up with processes.

    Args:
        folder: of the service.
        avoid: files that are of no use.

    Attributes:
        path: the file.
        adopted: whether somebody has written it before.

    """

    def __init__(self, folder: Path, avoid: Container[Path] = ()) -> None:
        left = databases(folder) if locks.KNOWN else []
        held = ((path, _held(path)) for path in left if path not in avoid)
        path, handle = next((each for each in held if each[1] is not None), (None, None))
        self.adopted = path is not None
        self.path = path or folder / f"{uuid.uuid4()}{DATABASE}"
        self._handle = locks.open_file(self.path.with_suffix(_LOCK)) if handle is None else handle
        locks.wait(self._handle, shared=False, seconds=0.0)

    def release(self) -> None:
        """Let others tidy up behind us; the file stays, to be read."""
        os.close(self._handle)


def _held(path: Path) -> int | None:
    """Return the lock of a database that no living process writes, held from now on; None where one does."""
    lock = path.with_suffix(_LOCK)
    handle = guard.attempt(locks.take, lock)
    if handle is None:
        return None
    if guard.attempt(lambda: os.path.samestat(lock.stat(), os.fstat(handle)), default=False):
        return handle
    os.close(handle)  # somebody has removed it meanwhile
    return None


def databases(folder: Path) -> list[Path]:
    """Return the databases of a folder, the one that was written last first."""
    found = []
    for path in folder.glob(f"*{DATABASE}"):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError:  # removed meanwhile
            continue
    return [path for _, path in sorted(found, reverse=True)]


def write_ahead_log(path: Path) -> Path:
    """Return where SQLite keeps what is not yet in a database's own file."""
    return path.with_name(path.name + _LOG)


def size_of(path: Path) -> int:
    """Return the bytes of a database with what lies beside it."""
    return sum(_bytes(each) for each in _files(path))


def _files(path: Path) -> Iterator[Path]:
    yield path
    for suffix in _BESIDE:
        yield path.with_name(path.name + suffix)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def remove_if_dead(path: Path) -> bool:
    """Remove a database that no living process writes; whether it is gone."""
    handle = _held(path)
    if handle is None:
        return False
    try:
        for each in (*_files(path), path.with_suffix(_LOCK)):
            each.unlink(missing_ok=True)
    except OSError:  # it is not ours to remove
        return False
    finally:
        os.close(handle)
    return True
