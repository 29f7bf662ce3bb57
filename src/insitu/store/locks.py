"""Locks on files (flock): whoever holds one lives, because the kernel lets go of it with its process."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

try:
    import fcntl
except ImportError:  # Windows: one process, whose files are its own
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

KNOWN: Final = fcntl is not None
"""Whether this system has such locks: without them every lock is free, and nobody can tell who lives."""
_NAP_SECONDS: Final = 0.001
_never: Final = threading.Event()


def take(path: Path) -> int | None:
    """Return an open file that is locked until it is closed, made where there is none; None where somebody holds it.

    Raises:
        OSError: it cannot be opened.

    """
    handle = open_file(path)
    if wait(handle, shared=False, seconds=0.0):
        return handle
    os.close(handle)
    return None


def open_file(path: Path) -> int:
    """Open a file that only we may read, made where there is none; programs that we start do not inherit it."""
    return os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)


def wait(handle: int, *, shared: bool, seconds: float) -> bool:
    """Lock an open file; whether that could be had in time."""
    if fcntl is None:
        return True
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            _never.wait(_NAP_SECONDS)
        else:
            return True


def is_held(handle: int) -> bool:
    """Whether somebody holds an open file alone."""
    if not wait(handle, shared=True, seconds=0.0):
        return True
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_UN)
    return False
