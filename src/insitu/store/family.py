"""Which processes of this host are workers of one service, and who of them may change their common folder.

    <store>/<service>/<family>/gate      held (flock): shared to read, alone to take, absorb and remove slots

A family is named by INSITU_INSTANCE, else by the topmost ancestor that runs the same executable in the same process
group, with its start time: gunicorn's master, uvicorn's supervisor or reloader, the parent of forked children. A
restart of the service is a new family, whose counters start at zero.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

from insitu.core import clock as clocks
from insitu.core import guard
from insitu.store import locks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SHARED_SECONDS: Final = 0.05
"""How long a reader waits for the gate; then it reads all the same, and at the worst is one absorbed slot wrong."""
_ALONE_SECONDS: Final = 2.0
_GATE: Final = "gate"
_NAMED: Final = "named-"
_FORGOTTEN_NANOSECONDS: Final = 24 * 3600 * 1_000_000_000
_UNFIT: Final = re.compile(r"[^\w.-]+")
_LONGEST_NAME: Final = 100


class Family(NamedTuple):
    """One service at work.

    Attributes:
        name: of its folder.
        alone: whether this very process is the one that all others descend from.

    """

    name: str
    alone: bool


def family_of(environ: Mapping[str, str]) -> Family:
    """Return the family of this process."""
    given = environ.get("INSITU_INSTANCE", "")
    if given:
        return Family(_NAMED + _UNFIT.sub("_", given)[:_LONGEST_NAME], alone=False)
    top = guard.attempt(_topmost, default=os.getpid())
    return Family(f"{top}-{started(top)}", alone=top == os.getpid())


def _topmost() -> int:
    group = os.getpgrp()
    top = psutil.Process()
    mine = top.exe()
    for parent in top.parents():
        try:
            if os.getpgid(parent.pid) != group or parent.exe() != mine:
                break
        except (psutil.Error, OSError):  # somebody else's
            break
        top = parent
    return int(top.pid)


def started(pid: int) -> str:
    """Return when a process began, in whatever never changes while it lives; "" where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 where there is a /proc, it is Linux's
            return stat.read().rpartition(b")")[2].split()[19].decode()  # proc(5): field 22, in clock ticks since boot
    except OSError:
        return guard.attempt(lambda: str(int(psutil.Process(pid).create_time())), default="")


@contextmanager
def gate(folder: Path, *, alone: bool) -> Iterator[bool]:
    """Hold the gate of a family's folder; yields whether it could be had in time.

    Raises:
        OSError: there is no such folder, or it is not ours.

    """
    handle = locks.open_file(folder / _GATE)
    try:
        yield locks.wait(handle, shared=not alone, seconds=_ALONE_SECONDS if alone else SHARED_SECONDS)
    finally:
        os.close(handle)


def remove_dead(service: Path, living: str) -> None:
    """Remove the folders of families that are no more."""
    for found in service.glob(f"*/{_GATE}"):
        if found.parent.name != living and _is_dead(found):
            guard.attempt(_remove, found.parent)  # what is not ours to remove stays


def _remove(folder: Path) -> None:
    for each in sorted(folder.iterdir(), key=lambda path: path.name == _GATE):
        each.unlink(missing_ok=True)
    folder.rmdir()


def _is_dead(gate_file: Path) -> bool:
    pid, _, start = gate_file.parent.name.partition("-")
    if pid.isdigit():
        return started(int(pid)) != start
    newest = max(path.stat().st_mtime_ns for path in gate_file.parent.iterdir())
    return clocks.SYSTEM.wall() - newest > _FORGOTTEN_NANOSECONDS
