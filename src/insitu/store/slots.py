"""One worker's numbers as a file that survives it: two banks, of which one is whole at any moment.

    NNN.names   what the numbers mean (`store.layout`), written before a number refers to it
    NNN.val     held (flock) as long as its worker lives

A bank is a header, the birth ids of the slots that were absorbed into this one, and float64 numbers. It is written by
one `pwrite` over the bank that is not the valid one, and valid is the highest sequence number whose checksum holds: a
worker that is killed while it writes costs half a second, never a number. Room is allocated before it is used, since
a disk that fills up under a memory map would kill its process. A slot that outgrows its banks gets two larger ones
behind them.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from insitu.core import clock as clocks
from insitu.store import locks
from insitu.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VALUES: Final = ".val"
NAMES: Final = ".names"
MOST_SLOTS: Final = 1_000
_ABSORBED: Final = 1_024
_MAGIC: Final = b"insitu\x00\x01"
_HEADER: Final = struct.Struct("<8sI4xQQQQII")
"""(magic, crc32 of what follows, sequence, birth id, wall nanoseconds, bytes of names, absorbed ids, numbers)."""
_CHECKED_FROM: Final = 16
_FIRST_BANK: Final = 4_096
_LEVELS: Final = 7
"""Banks of 4 kB, 16 kB, ... 16 MB."""


class Bank(NamedTuple):
    """What a slot holds.

    Attributes:
        sequence: counts the writes.
        birth: id of the slot's numbers; a slot that begins anew has a new one.
        time: wall nanoseconds of the write.
        names: bytes of the list of names that describe the numbers.
        absorbed: birth ids of slots whose numbers are in these.
        values: the numbers.

    """

    sequence: int
    birth: int
    time: int
    names: int
    absorbed: tuple[int, ...]
    values: array[float]


def _place(level: int) -> tuple[int, int]:
    """Return where the banks of a level begin, and the bytes of one."""
    return 2 * _FIRST_BANK * (4**level - 1) // 3, _FIRST_BANK * 4**level


def read_bank(handle: int) -> Bank | None:
    """Return the valid bank of an open file; None where nothing is written yet; ValueError where none is whole."""
    size = os.fstat(handle).st_size
    found: list[tuple[int, int, tuple[int, ...]]] = []
    for level in range(_LEVELS):
        base, room = _place(level)
        for at in (base, base + room):
            head = os.pread(handle, _HEADER.size, at) if at < size else b""
            if len(head) == _HEADER.size and head.startswith(_MAGIC):
                fields = _HEADER.unpack(head)
                found.append((fields[2], at, fields))
    for _, at, fields in sorted(found, reverse=True):
        bank = _checked(handle, at, fields)
        if bank is not None:
            return bank
    if found:
        raise ValueError("no bank is whole")
    return None


def _checked(handle: int, at: int, fields: tuple[int, ...]) -> Bank | None:
    _, checksum, sequence, birth, time, names, absorbed, numbers = fields
    data = os.pread(handle, _HEADER.size + 8 * (absorbed + numbers), at)
    if zlib.crc32(data[_CHECKED_FROM:]) != checksum:
        return None
    ids = struct.unpack_from(f"<{absorbed}Q", data, _HEADER.size)
    values = array("d", data[_HEADER.size + 8 * absorbed :])
    return Bank(sequence, birth, time, names, ids, values)


class Slot:
    """A slot that this process holds.

    Args:
        path: of its `.val`, which is made where it does not exist.

    Raises:
        BlockingIOError: its worker lives.
        OSError: it cannot be made.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = locks.take(path)
        if handle is None:
            raise BlockingIOError(f"{path} is somebody else's")
        self._handle = handle
        try:
            self._names = locks.open_file(path.with_suffix(NAMES))
        except OSError:
            os.close(handle)
            raise
        self._sequence = 0
        self._level = -1
        self.begin()

    def begin(self) -> None:
        """Begin anew: what was in the slot is somewhere else, or nowhere."""
        self.birth = clocks.random_bits(64)
        self.absorbed: list[int] = []
        self.layout = Layout()
        self.base: array[float] = array("d")
        self.written: array[float] = array("d")

    def resume(self, elsewhere: set[int]) -> None:
        """Go on where the last worker of this slot ended, unless its numbers are in one of the slots `elsewhere`.

        Raises:
            ValueError, OSError: the slot is damaged, and begins anew.

        """
        bank = read_bank(self._handle)
        if bank is None:
            return
        self._sequence = bank.sequence
        if bank.birth in elsewhere:
            return
        layout = Layout(os.pread(self._names, bank.names, 0))
        if layout.cells < len(bank.values) or layout.length != bank.names:
            raise ValueError("names are missing")
        self.layout, self.base, self.birth, self.absorbed = layout, bank.values, bank.birth, [*bank.absorbed]

    def write(self, values: array[float], now: int) -> None:
        """Write all numbers; OSError where there is no room for more of them, and then the last ones stay."""
        if self.layout.unwritten:
            self._write_names()
        self.absorbed = self.absorbed[-_ABSORBED:]
        rest = struct.pack(f"<{len(self.absorbed)}Q", *self.absorbed) + values.tobytes()
        facts = (self._sequence + 1, self.birth, now, self.layout.length, len(self.absorbed), len(values))
        level = self._level_for(_HEADER.size + len(rest))
        head = _HEADER.pack(_MAGIC, 0, *facts)
        checksum = zlib.crc32(rest, zlib.crc32(head[_CHECKED_FROM:]))
        base, room = _place(level)
        os.pwrite(self._handle, _HEADER.pack(_MAGIC, checksum, *facts) + rest, base + room * (facts[0] % 2))
        self._sequence += 1
        self.written = values

    def _write_names(self) -> None:
        layout = self.layout
        os.ftruncate(self._names, layout.length)  # what a killed worker had begun
        if os.pwrite(self._names, layout.unwritten, layout.length) != len(layout.unwritten):
            raise OSError("no room for the names of the numbers")
        layout.length += len(layout.unwritten)
        layout.unwritten = b""

    def _level_for(self, size: int) -> int:
        level = max(self._level, 0)
        while _place(level)[1] < size:
            level += 1
        if level >= _LEVELS:
            raise OSError("more numbers than a slot holds")
        if level != self._level:
            base, room = _place(level)
            _allocate(self._handle, base, 2 * room)
            self._level = level
        return level

    def has_all_of(self, path: Path) -> bool:
        """Whether a slot of the dead is of no more use: all that it holds, if anything, is in this one."""
        try:
            other = Slot(path)
        except OSError:  # its worker lives, or it is gone
            return False
        try:
            bank = read_bank(other._handle)
        except (OSError, ValueError):
            return False
        finally:
            other.release()
        return bank is None or bank.birth in self.absorbed

    def release(self) -> None:
        """Let go: the numbers stay, and another worker may go on with them. In a forked child the parent holds on."""
        os.close(self._handle)
        os.close(self._names)


def _allocate(handle: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, offset, size)
    elif os.pwrite(handle, bytes(size), offset) != size:
        raise OSError("no room for more numbers")


def paths(folder: Path) -> list[Path]:
    """Return the slots of a folder, the lowest first."""
    return sorted(path for path in folder.glob(f"*{VALUES}") if path.stem.isdigit())


class Reading(NamedTuple):
    """What one slot says.

    Attributes:
        number: of the slot.
        live: whether its worker lives.
        bank: its numbers.
        layout: what they mean.

    """

    number: int
    live: bool
    bank: Bank
    layout: Layout


class Readings:
    """Reads slots, and keeps what their names mean from one time to the next."""

    def __init__(self) -> None:
        self._layouts: dict[Path, tuple[int, Layout]] = {}
        self.damaged: set[Path] = set()

    def of(self, folder: Path, leased: Sequence[Path]) -> Iterator[Reading]:
        """Yield every slot once; one that is damaged is left out and noted.

        Args:
            folder: of the slots.
            leased: those of which it is known that their worker lives: our own.

        """
        found = paths(folder)
        for gone in self._layouts.keys() - set(found):
            del self._layouts[gone]
        readings = []
        for path in found:
            try:
                reading = self._read(path, live=path in leased)
            except FileNotFoundError:  # absorbed meanwhile
                continue
            except (ValueError, OSError):
                self.damaged.add(path)
                continue
            if reading is not None:
                readings.append(reading)
        elsewhere = {birth for reading in readings for birth in reading.bank.absorbed}
        yield from (reading for reading in readings if reading.bank.birth not in elsewhere)

    def _read(self, path: Path, *, live: bool) -> Reading | None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            live = live or locks.is_held(handle)  # asked first: what is read after its worker's end is its last word
            bank = read_bank(handle)
            if bank is None:
                return None
            return Reading(int(path.stem), live, bank, self._layout(path, bank))
        finally:
            os.close(handle)

    def _layout(self, path: Path, bank: Bank) -> Layout:
        birth, layout = self._layouts.get(path, (0, Layout()))
        if birth != bank.birth or layout.length > bank.names:
            layout = Layout()
        if layout.length < bank.names:
            with path.with_suffix(NAMES).open("rb") as names:
                names.seek(layout.length)
                layout.read(names.read(bank.names - layout.length))
        if layout.length != bank.names or layout.cells < len(bank.values):
            raise ValueError("names are missing")
        self._layouts[path] = (bank.birth, layout)
        return layout
