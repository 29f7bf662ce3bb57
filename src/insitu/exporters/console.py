"""What happens, on the terminal: requests as small trees of their spans, errors with their last frame, log lines.

For the developer who has no back-end yet. One event is one line, whatever is in it: control characters are shown as
text, and never sent to the terminal.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from opentelemetry.trace import SpanKind

from insitu.core import guard
from insitu.core.ports import Delivery, Part
from insitu.core.records import Error, ErrorRecord, LocalTrace, LogRecord
from insitu.core.records import size as size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from insitu.core.ports import ExporterContext
    from insitu.core.records import Family, Record, Signal, SpanRecord

MOST_SPANS: Final = 50
"""Lines of one tree; what is beyond is counted in a line."""
LONGEST: Final = 500
"""Characters of one name or message."""

_MICROSECOND, _MILLISECOND, _SECOND = 1_000, 1_000_000, 1_000_000_000
_DEEPEST: Final = 12
_WARNING, _ERROR = 13, 17  # OpenTelemetry severity numbers
_STATUS: Final = ("http.response.status_code", "http.status_code", "rpc.grpc.status_code")

# C0, DEL and C1, line and paragraph separators, marks that reorder text; lone surrogates, which cannot be written.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOURS: Final = {"dim": "2", "red": "31", "yellow": "33", "green": "32", "bold": "1"}


def create(context: ExporterContext) -> Exporter:
    """Return the exporter: the factory behind the entry point `console`. Honours NO_COLOR (https://no-color.org)."""
    plain = context.environ.get("NO_COLOR") or context.environ.get("TERM") == "dumb"
    return Exporter(colour=False if plain else None)


class Exporter:
    """The exporter `console` (see `core.ports.Exporter`): it has no use for metrics.

    Args:
        stream: where to; default standard error, whatever that is at the time of writing.
        colour: None means on a terminal.

    """

    name = "console"
    batch_items = 256
    delay = 0.2
    metrics_interval: float | None = None

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None) -> None:
        self._stream = stream
        self._colour = colour

    def encode(self, records: Sequence[Record]) -> Iterator[Part]:
        """Yield each record's lines; one that cannot be shown costs a line that says so."""
        paint = _Paint(enabled=self._coloured())
        for record in records:
            if isinstance(record, LocalTrace) and not record.sampled:
                continue
            lines = guard.call("console.encode", _lines, record, paint, default=["<a record that cannot be shown>"])
            text = "".join(f"{line}\n" for line in lines)
            signal, items = size_of(record)
            yield Part(signal, items, len(text), text)

    def encode_metrics(self, _families: Iterable[Family]) -> Iterable[Part]:
        """Return nothing: metrics are shown elsewhere."""
        return ()

    def send(self, _signal: Signal, parts: Sequence[Part], _timeout: float) -> Delivery:
        """Write the lines. A stream that is closed or gone costs them."""
        items = sum(part.items for part in parts)
        stream = self._stream or sys.stderr
        if stream is None:  # a process without standard error, as under pythonw
            return Delivery(0, items, "unreachable")
        text = "".join(part.data for part in parts)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):
            return Delivery(0, items, "unreachable")
        return Delivery(items)

    def close(self) -> None:
        """Leave the stream open: it is the host's."""

    def _coloured(self) -> bool:
        if self._colour is not None:
            return self._colour
        stream = self._stream or sys.stderr
        return stream is not None and bool(guard.call("console.isatty", stream.isatty, default=False))


class _Paint:
    """Puts colours around texts that `shown` has made safe, or leaves them alone."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def __call__(self, colour: str, text: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._enabled and text else text


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a text that stays on its line and does nothing to a terminal."""
    text = guard.render(value)
    if len(text) > longest:
        text = text[:longest] + "…"
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _lines(record: Record, paint: _Paint) -> list[str]:
    if isinstance(record, LocalTrace):
        return list(_trace(record, paint))
    return [_log(record, paint) if isinstance(record, LogRecord) else _lone_error(record, paint)]


def _log(record: LogRecord, paint: _Paint) -> str:
    colour = "red" if record.severity >= _ERROR else "yellow" if record.severity >= _WARNING else "dim"
    level = paint(colour, f"{shown(record.level, 20):<8}")
    error = f"  {_error(record.error, paint)}" if record.error is not None else ""
    fields = "".join(f" {shown(key, 60)}={shown(value, 120)}" for key, value in record.fields().items())
    head = f"{_clock(record.timestamp)} {level} {paint('dim', shown(record.logger, 60))}"
    return f"{head} {shown(record.body)}{paint('dim', fields)}{error}{_trace_mark(record.trace_id, paint)}"


def _lone_error(record: ErrorRecord, paint: _Paint) -> str:
    return f"{_clock(record.timestamp)} {_error(record, paint)}{_trace_mark(record.trace_id, paint)}"


def _trace(trace: LocalTrace, paint: _Paint) -> Iterator[str]:
    """Yield a line for each span, below the one that it is a child of, in the order of their starts."""
    children: dict[int, list[SpanRecord]] = {}
    known = {span.span_id for span in trace.spans}
    for span in sorted(trace.spans, key=lambda span: span.start_time):
        above = span.parent_id if span.parent_id in known and not span.local_root else 0
        children.setdefault(above, []).append(span)
    walk = _walk(children)
    for number, (span, indent) in enumerate(walk):
        if number == MOST_SPANS:
            yield paint("dim", f"             … {len(trace.spans) - MOST_SPANS} more spans")
            return
        mark = "" if indent else _trace_mark(trace.trace_id, paint)
        yield f"{paint('dim', indent) or _clock(span.start_time) + ' '}{_span(span, paint)}{mark}"


def _walk(children: Mapping[int, list[SpanRecord]]) -> Iterator[tuple[SpanRecord, str]]:
    """Yield spans with what is drawn before them, by a stack of our own: a tree may be deeper than the call stack."""
    waiting = [(span, "", "") for span in reversed(children.get(0, []))]
    visited: set[int] = set()
    while waiting:
        span, indent, below = waiting.pop()
        yield span, indent
        if span.span_id in visited:  # ids may repeat in what is sent to us, and then a child would be its own parent
            continue
        visited.add(span.span_id)
        inner = children.get(span.span_id, [])
        margin = below or " " * 13
        for place, child in enumerate(reversed(inner)):
            corner, line = ("└ ", "  ") if place == 0 else ("├ ", "│ ")
            deeper = margin if len(margin) > 2 * _DEEPEST + 13 else margin + line
            waiting.append((child, margin + corner, deeper))


def _span(span: SpanRecord, paint: _Paint) -> str:
    values = span.settle()
    failed = span.status_code == Error
    status = next((f" {shown(values[key], 20)}" for key in _STATUS if key in values), "")
    error = next((event.error for event in reversed(span.events or ()) if event.error is not None), None)
    words = [paint("red" if failed else "bold" if span.local_root else "green", shown(span.name) + status)]
    if span.kind not in (SpanKind.INTERNAL, SpanKind.SERVER):
        words.append(paint("dim", span.kind.name.lower()))
    words.append(paint("dim", duration(span.duration)))
    if error is not None:
        words.append(_error(error, paint))
    elif failed:
        words.append(paint("red", shown(span.status_text or "error")))
    return "  ".join(words)


def _error(error: ErrorRecord, paint: _Paint) -> str:
    where = ""
    if error.frames:
        code, line = error.frames[-1]
        where = paint("dim", f" ({shown(code.co_filename, 200)}:{line} in {shown(code.co_name, 100)})")
    message = f": {shown(error.message)}" if error.message else ""
    return paint("red", f"{shown(error.type, 200)}{message}") + where


def _trace_mark(trace_id: int, paint: _Paint) -> str:
    return paint("dim", f"  [{trace_id:032x}"[:11] + "]") if trace_id else ""


def duration(nanoseconds: int) -> str:
    """Return a duration for people: three digits and a unit."""
    for unit, name in ((_SECOND, "s"), (_MILLISECOND, "ms"), (_MICROSECOND, "µs")):
        if nanoseconds >= unit:
            value = nanoseconds / unit
            return f"{value:.0f} {name}" if value >= 100 else f"{value:.3g} {name}"  # noqa: PLR2004 three digits
    return f"{nanoseconds} ns"


def _clock(timestamp: int) -> str:
    """Return the local time of day."""
    try:
        return (
            time.strftime("%H:%M:%S", time.localtime(timestamp // _SECOND))
            + f".{timestamp // _MILLISECOND % 1_000:03d}"
        )
    except (ValueError, OverflowError, OSError, TypeError):
        return "--:--:--.---"
