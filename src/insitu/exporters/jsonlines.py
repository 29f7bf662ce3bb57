"""Log records as JSON lines on stdout, stderr or in a file: what `log_output` asks for."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from insitu.core import documents, guard, stacktrace
from insitu.core.ports import Delivery, Part
from insitu.core.records import LogRecord, place_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from insitu.core.ports import ExporterContext
    from insitu.core.records import Attributes, Family, Place, Record, Signal

K = TypeVar("K")

_RAW: Final = re.compile(b"\x7f|\xc2\x85|\xe2\x80[\xa8\xa9]")
"""What JSON leaves as it is and a terminal may take for a control: DEL, NEL, line and paragraph separator."""
_OWN: Final = frozenset(("timestamp", "level", "logger", "message", "service", "trace_id", "span_id"))
_MOST_PIECES: Final = 1_024
"""Pieces of lines that are remembered."""
_OWN_PLACED: Final = _OWN.union(place_attributes(("file", 1, "function")))
_DELETE: Final = 0x7F
_STREAMS: Final = ("stdout", "stderr")


def writer(output: str) -> Callable[[ExporterContext], Exporter]:
    """Return the factory for `log_output=output`."""
    return lambda context: Exporter(output, str(context.resource.attributes.get("service.name", "")))


class Exporter:
    """The exporter behind `log_output` (see `core.ports.Exporter`).

    Args:
        output: `stdout`, `stderr` or the path of a file, which is appended to.
        service: stands on each line.

    """

    name = "log_output"
    batch_items = 512
    delay = 0.2
    metrics_interval: float | None = None

    def __init__(self, output: str, service: str) -> None:
        self._output = output
        self._service = service
        self._file: BinaryIO | None = None
        self._heads: dict[tuple[str, str], bytes] = {}
        self._tails: dict[Place, bytes] = {}

    def encode(self, records: Sequence[Record]) -> Iterable[Part]:
        """Return one part with a line for each log record."""
        lines = [self._line(record) for record in records if isinstance(record, LogRecord)]
        if lines:
            data = b"\n".join(lines) + b"\n"
            yield Part("logs", len(lines), len(data), data)

    def encode_metrics(self, families: Iterable[Family]) -> Iterable[Part]:
        """Return nothing."""
        del families
        return ()

    def send(self, signal: Signal, parts: Sequence[Part], timeout: float) -> Delivery:
        """Write the lines at once."""
        del signal, timeout
        items = sum(part.items for part in parts)
        try:
            stream = self._stream()
            stream.write(b"".join([part.data for part in parts]))
            stream.flush()
        except (OSError, ValueError, AttributeError) as error:  # a full disk, a closed stream, a stream without bytes
            guard.warn("log_output", "insitu: log_output %s cannot be written: %s", self._output, error)
            return Delivery(0, items, "unwritable")
        return Delivery(items)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _stream(self) -> BinaryIO:
        if self._output in _STREAMS:
            stream: BinaryIO = getattr(sys, self._output).buffer
            return stream
        if self._file is None:
            self._file = Path(self._output).open("ab")  # noqa: SIM115 closed by close()
        return self._file

    def _line(self, record: LogRecord) -> bytes:
        """Return a line. What many lines share, its head and the place of the call, is encoded once."""
        line: dict[str, Any] = {"message": record.body}
        if record.trace_id:
            line["trace_id"], line["span_id"] = f"{record.trace_id:032x}", f"{record.span_id:016x}"
        if record.attributes:
            line.update(_apart(record.attributes, record.place))
        if record.error is not None:
            line.update(stacktrace.attributes_of(record.error))
        head = self._heads.get((record.level, record.logger)) or self._head(record.level, record.logger)
        tail = self._tails.get(record.place) or self._tail(record.place) if record.place is not None else b"}"
        return b'{"timestamp":"' + _rfc3339(record.timestamp) + head + dumps(line)[1:-1] + tail

    def _head(self, level: str, logger: str) -> bytes:
        head = b'",' + dumps({"level": level, "logger": logger, "service": self._service})[1:-1] + b","
        return _remembered(self._heads, (level, logger), head)

    def _tail(self, place: Place) -> bytes:
        located = dumps(place_attributes(place))[1:]
        return _remembered(self._tails, place, b"," + located if len(located) > 1 else located)


def _remembered(pieces: dict[K, bytes], key: K, piece: bytes) -> bytes:
    if len(pieces) >= _MOST_PIECES:
        pieces.clear()
    pieces[key] = piece
    return piece


def _apart(fields: Attributes, place: Place | None) -> Attributes:
    """Return the fields whose names are not those of a line's own."""
    own = _OWN if place is None else _OWN_PLACED
    return fields if own.isdisjoint(fields) else {name: value for name, value in fields.items() if name not in own}


_seconds: Final[dict[int, bytes]] = {}
"""The last whole second since 1970 as text, up to the point of the fraction: a process writes many lines in each."""


def _rfc3339(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return b"%b%06dZ" % (_seconds.get(seconds) or _second(seconds), fraction // 1_000)


def _second(seconds: int) -> bytes:
    _seconds.clear()
    _seconds[seconds] = made = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()
    return made


def dumps(line: dict[str, Any]) -> bytes:
    """Return a document on one line that a terminal cannot take for anything else."""
    data = documents.dumps(line)
    return data if data.isascii() and _DELETE not in data else _RAW.sub(_escaped, data)


def _escaped(raw: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(raw.group().decode())
