"""Batches of traces and of log records as bytes, and back.

A block has three parts, read in this order and only as far as a question needs:

    ids    16 bytes an entry: the trace id, big-endian; zeros where there is none
    hot    what searches ask first, in rows of fixed width behind a table of the texts that they refer to
    rest   JSON, compressed together: of traces one line an entry, of log records one array of all

An entry of a trace block is what one process saw of a trace at once: its local root and all below it, or a part that
came earlier or later, which only shows when the trace is read whole.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core import documents
from insitu.core.records import Error, ErrorRecord, LocalTrace, LogRecord, place_attributes
from insitu.core.stacktrace import attributes_of, format_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from insitu.core.records import Attributes, SpanRecord

ID_BYTES: Final = 16
_NO_ID: Final = bytes(ID_BYTES)
_LEVEL: Final = 1
"""Of zlib: 6 makes blocks a tenth smaller and takes three times as long."""
_ERROR_SEVERITY: Final = 17
_LENGTH: Final = struct.Struct("<I")
_TRACE: Final = struct.Struct("<qqIHHHBB")
_LOG: Final = struct.Struct("<qBH")
_MOST_TEXTS: Final = 0xFFFF


class Malformed(Exception):
    """These bytes are no block."""


class Block(NamedTuple):
    """One row of the store.

    Attributes:
        start, end: wall nanoseconds: no entry began before or ended behind them.
        entries: how many.
        ids, hot, rest: see the module.

    """

    start: int
    end: int
    entries: int
    ids: bytes
    hot: bytes
    rest: bytes


class TraceEntry(NamedTuple):
    """What a search knows of a trace without opening it.

    Attributes:
        start, duration: wall nanoseconds, nanoseconds; of the local root.
        spans: how many.
        name: of the local root: for a request its method and route.
        outcome: a status code, or the type of an error; "" where nothing is to be said.
        reason: why it is kept.
        failed: whether it holds an error.
        whole: whether the local root is in it; False for a part.

    """

    start: int
    duration: int
    spans: int
    name: str
    outcome: str
    reason: str
    failed: bool
    whole: bool


class LogEntry(NamedTuple):
    """What a search knows of a log record without opening it."""

    timestamp: int
    severity: int
    logger: str


class _Texts:
    """Texts by number: each stands in a block once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return a text's number; a block that has no room for more of them gives the last one."""
        return self._numbers.setdefault(text, min(len(self._numbers), _MOST_TEXTS))

    def data(self) -> bytes:
        encoded = documents.dumps(list(self._numbers))
        return _LENGTH.pack(len(encoded)) + encoded


class _Filling:
    """A block that is being filled; entries are encoded as they come.

    Attributes:
        size: bytes so far, before they are compressed.

    """

    def __init__(self) -> None:
        self.start, self.end, self.size, self.entries = 0, 0, 0, 0
        self._texts = _Texts()
        self._ids: list[bytes] = []
        self._rows: list[bytes] = []
        self._rest: list[bytes] = []

    def _keep(self, entries: int, start: int, end: int, *, ids: bytes, rows: bytes, rest: bytes) -> None:
        self.start = min(self.start, start) if self.entries else start
        self.end = max(self.end, end)
        self.entries += entries
        self.size += len(rows) + len(rest)
        self._ids.append(ids)
        self._rows.append(rows)
        self._rest.append(rest)

    def _joined(self) -> bytes:
        """Return the rest, before it is compressed."""
        return b"\n".join(self._rest)

    def block(self) -> Block:
        """Return the block as it stands."""
        hot = self._texts.data() + b"".join(self._rows)
        rest = zlib.compress(self._joined(), _LEVEL)
        return Block(self.start, self.end, self.entries, b"".join(self._ids), hot, rest)


class TraceBlock(_Filling):
    """A block of traces that is being filled."""

    def add(self, trace: LocalTrace, reason: str) -> None:
        """Add a trace, or a part of one; its attributes are clean already."""
        root = trace.spans[-1]
        failed = bool(trace.errors) or root.status_code == Error
        number = self._texts.number
        row = _TRACE.pack(
            root.start_time,
            root.duration,
            len(trace.spans),
            number(root.name),
            number(root.outcome()),
            number(reason),
            failed,
            root.local_root,
        )
        line = documents.dumps([trace.state, [_span(span) for span in trace.spans]])
        start = min(span.start_time for span in trace.spans)
        self._keep(1, start, root.end_time, ids=_ident(trace.trace_id), rows=row, rest=line)


class LogBlock(_Filling):
    """A block of log records that is being filled; an error without a trace is a record as well."""

    def extend(self, records: Sequence[LogRecord | ErrorRecord]) -> None:
        """Add records, clean already; all of them, or none where one cannot be encoded."""
        logs = [_as_log(record) if isinstance(record, ErrorRecord) else record for record in records]
        number, pack = self._texts.number, _LOG.pack
        rows = [pack(each.timestamp, each.severity, number(each.logger)) for each in logs]
        ids = [_ident(each.trace_id) if each.trace_id else _NO_ID for each in logs]
        rest = documents.dumps([_log(each) for each in logs])[1:-1]
        times = [each.timestamp for each in logs]
        self._keep(len(logs), min(times), max(times), ids=b"".join(ids), rows=b"".join(rows), rest=rest)

    def _joined(self) -> bytes:
        return b"[" + b",".join(self._rest) + b"]"


def _ident(trace_id: int) -> bytes:
    return (trace_id & (1 << 128) - 1).to_bytes(ID_BYTES, "big")


def _log(record: LogRecord) -> list[Any]:
    error = format_error(record.error) if record.error is not None else ""
    return [record.level, record.body, record.attributes, record.place, record.span_id, error, record.event_name]


def _as_log(error: ErrorRecord) -> LogRecord:
    body = f"{error.type}: {error.message}" if error.message else error.type
    fields = dict(error.attributes or {})
    made = LogRecord(error.timestamp, _ERROR_SEVERITY, "ERROR", "", body, fields, error.trace_id, error.span_id)
    made.error, made.event_name = error, "exception"
    return made


def _span(span: SpanRecord) -> list[Any]:
    events = [[event.name, event.timestamp, _with_error(event.attributes, event.error)] for event in span.events or ()]
    links = [[f"{link.trace_id:032x}", f"{link.span_id:016x}", link.attributes] for link in span.links or ()]
    return [
        span.name,
        span.kind._value_,
        span.span_id,
        span.parent_id,
        span.start_time,
        span.duration,
        span.status_code,
        span.status_text,
        span.settle(),
        events,
        links,
        span.scope.name,
    ]


def _with_error(attributes: Attributes | None, error: ErrorRecord | None) -> Attributes:
    if error is None:
        return attributes or {}
    return attributes_of(error) | (attributes or {})


# --- reading ---


def texts_of(hot: bytes) -> tuple[list[str], int]:
    """Return the texts that rows refer to, and where the rows begin; Malformed."""
    try:
        (length,) = _LENGTH.unpack_from(hot)
        texts = documents.loads(hot[_LENGTH.size : _LENGTH.size + length])
    except (ValueError, struct.error) as error:
        raise Malformed(str(error)) from error
    if not isinstance(texts, list):
        raise Malformed("no list of texts")
    return texts, _LENGTH.size + length


def _rows(hot: bytes, row: struct.Struct) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    texts, begin = texts_of(hot)
    if (len(hot) - begin) % row.size:
        raise Malformed("a row is cut")
    return texts, row.iter_unpack(memoryview(hot)[begin:])


def trace_entries(hot: bytes) -> Iterator[TraceEntry]:
    """Yield what a search may ask of each entry of a trace block; Malformed."""
    texts, rows = _rows(hot, _TRACE)
    try:
        for start, duration, spans, name, outcome, reason, failed, whole in rows:
            yield TraceEntry(
                start, duration, spans, texts[name], texts[outcome], texts[reason], failed == 1, whole == 1
            )
    except IndexError as error:
        raise Malformed("a text is missing") from error


def log_entries(hot: bytes) -> Iterator[LogEntry]:
    """Yield what a search may ask of each entry of a log block; Malformed."""
    texts, rows = _rows(hot, _LOG)
    try:
        for timestamp, severity, logger in rows:
            yield LogEntry(timestamp, severity, texts[logger])
    except IndexError as error:
        raise Malformed("a text is missing") from error


def lines_of(rest: bytes) -> list[bytes]:
    """Return the lines of a trace block's entries; Malformed."""
    return _decompressed(rest).split(b"\n")


def logs_of(rest: bytes) -> list[Any]:
    """Return what `log_of` shows of each entry of a log block; Malformed."""
    try:
        return list(documents.loads(_decompressed(rest)))
    except (ValueError, TypeError) as error:
        raise Malformed(str(error)) from error


def _decompressed(rest: bytes) -> bytes:
    try:
        return zlib.decompress(rest)
    except zlib.error as error:
        raise Malformed(str(error)) from error


def places(ids: bytes, trace_id: bytes) -> Iterable[int]:
    """Yield the numbers of the entries that belong to a trace."""
    at = ids.find(trace_id)
    while at >= 0:
        if at % ID_BYTES == 0:
            yield at // ID_BYTES
        at = ids.find(trace_id, at + 1)


def spans_of(line: bytes) -> list[dict[str, Any]]:
    """Return the spans of a trace block's line as documents of the API; Malformed."""
    names = ("name", "kind", "span_id", "parent_id", "start", "duration", "status", "status_text")
    try:
        _, spans = documents.loads(line)
        return [_shown_span(names, span) for span in spans]
    except (ValueError, TypeError, IndexError) as error:
        raise Malformed(str(error)) from error


def _shown_span(names: Sequence[str], span: list[Any]) -> dict[str, Any]:
    attributes, events, links, scope = span[8:12]
    shown = dict(zip(names, span, strict=False))
    shown["span_id"] = f"{span[2]:016x}"
    shown["parent_id"] = f"{span[3]:016x}" if span[3] else None
    shown["kind"] = ("internal", "server", "client", "producer", "consumer")[span[1]]
    shown["status"] = ("unset", "ok", "error")[span[6]]
    shown["attributes"] = attributes
    shown["events"] = [{"name": name, "timestamp": moment, "attributes": more} for name, moment, more in events]
    shown["links"] = [{"trace_id": trace, "span_id": own, "attributes": more} for trace, own, more in links]
    shown["scope"] = scope
    return shown


def log_of(kept: Any) -> dict[str, Any]:
    """Return an entry of a log block as a document of the API; Malformed."""
    try:
        level, body, fields, place, span_id, error, event = kept
        fields = {**(place_attributes(tuple(place)) if place else {}), **(fields or {})}
        shown = {"level": level, "body": body, "attributes": fields, "span_id": f"{span_id:016x}" if span_id else None}
        return {**shown, "exception": error or None, "event": event or None}
    except (ValueError, TypeError) as error:
        raise Malformed(str(error)) from error
