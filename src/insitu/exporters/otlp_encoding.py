"""Spans, log records and errors as OTLP's messages: https://github.com/open-telemetry/opentelemetry-proto.

Protobuf messages concatenate, so that each piece is encoded once, tag included, and a request is the resource with the
pieces behind it. Values that OTLP cannot hold are never an error: an integer beyond 64 bits and an object become text,
a lone surrogate becomes a question mark, and a time before 1970 becomes 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from insitu.core import guard
from insitu.core.records import (
    Attributes,
    ErrorRecord,
    LocalTrace,
    LogRecord,
    Resource,
    Scope,
    SpanEvent,
    SpanLink,
    SpanRecord,
)
from insitu.core.stacktrace import attributes_of
from insitu.exporters.protobuf import (
    DOUBLE,
    FIXED64,
    INT64_MAX,
    INT64_MIN,
    clamped,
    identity,
    message,
    number,
    text,
    utf8,
    varint,
)

HAS_REMOTE: Final = 0x100
"""Bit of a span's flags: whether the parent is remote is known; the bit above says that it is."""
IS_REMOTE: Final = 0x200
_ERROR_SEVERITY: Final = 17
_DEEPEST: Final = 16
"""Levels of sequences and mappings: decoders refuse more than 100 nested messages, and a level takes three of them."""
_MOST_NAMES: Final = 512
_MOST_VALUES: Final = 32
_LONGEST_PAIR: Final = 128

_FIXED: Final = struct.Struct("<H8sBQBQBB").pack
"""What every span has: id, start, end and kind, each behind its tag."""
_SPAN_ID, _START, _END, _KIND = 0x0812, 0x39, 0x41, 0x30


def request(resource: bytes, parts: Iterable[bytes]) -> bytes:
    """Return an Export…ServiceRequest, alike for the three signals, of what `resource_fields` and `scoped` return."""
    return message(b"\x0a", b"".join((resource, *parts)))


def resource_fields(resource: Resource) -> bytes:
    """Return the fields `resource` and `schema_url` of ResourceSpans, ResourceMetrics and ResourceLogs."""
    return message(b"\x0a", pairs(b"\x0a", resource.attributes)) + text(b"\x1a", resource.schema_url)


def scoped(scope: Scope, items: Iterable[bytes]) -> bytes:
    """Return a ScopeSpans, ScopeMetrics or ScopeLogs, as a field of its resource message."""
    head = text(b"\x0a", scope.name) + text(b"\x12", scope.version) + pairs(b"\x1a", dict(scope.attributes))
    return message(b"\x12", b"".join((message(b"\x0a", head), *items, text(b"\x1a", scope.schema_url))))


def trace_fields(trace: LocalTrace) -> tuple[bytes, bytes]:
    """Return what the spans of a trace have in common (id, state, flags): below a local and below a remote parent."""
    ids = b"\x0a\x10" + identity(trace.trace_id, 16) + text(b"\x1a", trace.state)
    flags = trace.flags & 0xFF | HAS_REMOTE
    local, remote = (b"\x85\x01" + bits.to_bytes(4, "little") for bits in (flags, flags | IS_REMOTE))
    return ids + local, ids + remote


def span(record: SpanRecord, trace: tuple[bytes, bytes]) -> bytes:
    """Return a span as a field of ScopeSpans, given its trace's fields."""
    kind = record.kind._value_ + 1  # `value` is a property, and four times slower
    parent, start, end = record.parent_id, record.start_time, record.end_time
    try:
        own_id = record.span_id.to_bytes(8, "big")
        above = b"\x22\x08" + parent.to_bytes(8, "big") if parent else b""
        fixed = _FIXED(_SPAN_ID, own_id, _START, start, _END, end, _KIND, kind)
    except (struct.error, OverflowError):
        own_id, start, end = identity(record.span_id, 8), clamped(start), clamped(end)
        above = b"\x22\x08" + identity(parent, 8) if parent else b""
        fixed = _FIXED(_SPAN_ID, own_id, _START, start, _END, end, _KIND, kind)
    name = _span_names.get(record.name) or _span_name(record.name)
    body = b"".join((trace[record.parent_remote], fixed, above, name, pairs(b"\x4a", record.settle())))
    if record.status_code or record.status_text or record.events or record.links or record.dropped:
        body += b"".join(_outcome(record))
    return message(b"\x12", body)


def _outcome(record: SpanRecord) -> Iterator[bytes]:
    """Yield what most spans lack: a status, events, links and the counts of what was dropped."""
    if record.status_code or record.status_text:
        yield message(b"\x7a", text(b"\x12", record.status_text) + number(b"\x18", record.status_code))
    yield from map(_event, record.events or ())
    yield from map(_link, record.links or ())
    for tag, count in zip((b"\x50", b"\x60", b"\x70"), record.dropped or (), strict=False):
        yield number(tag, count)


def _event(event: SpanEvent) -> bytes:
    values = event.attributes or {}
    if event.error is not None:
        values = {**attributes_of(event.error), **values}
    moment = b"\x09" + FIXED64(clamped(event.timestamp))
    return message(b"\x5a", moment + text(b"\x12", event.name) + pairs(b"\x1a", values))


def _link(link: SpanLink) -> bytes:
    ids = b"\x0a\x10" + identity(link.trace_id, 16) + b"\x12\x08" + identity(link.span_id, 8)
    flags = (link.flags & 0xFF | (HAS_REMOTE | IS_REMOTE if link.remote else HAS_REMOTE)).to_bytes(4, "little")
    return message(b"\x6a", ids + text(b"\x1a", link.state) + pairs(b"\x22", link.attributes or {}) + b"\x35" + flags)


def log(record: LogRecord) -> bytes:
    """Return a log record as a field of ScopeLogs."""
    values = record.fields()
    if record.error is not None:
        values = {**attributes_of(record.error), **values}
    return _log(record, values)


def error_log(record: ErrorRecord) -> bytes:
    """Return an error that belongs to no exported span as a log record: OpenTelemetry's event `exception`."""
    values = {**attributes_of(record), **(record.attributes or {})}
    body = f"{record.type}: {record.message}" if record.message else record.type
    entry = LogRecord(record.timestamp, _ERROR_SEVERITY, "ERROR", "", body, None, record.trace_id, record.span_id)
    entry.event_name = "exception"
    return _log(entry, values)


def _log(record: LogRecord, values: Attributes) -> bytes:
    moment = FIXED64(clamped(record.timestamp))
    out = [
        b"\x09" + moment + b"\x59" + moment,
        number(b"\x10", record.severity),
        text(b"\x1a", record.level),
        message(b"\x2a", any_value(record.body)),
        pairs(b"\x32", values),
        text(b"\x62", record.event_name),
    ]
    if record.trace_id:
        out.append(b"\x4a\x10" + identity(record.trace_id, 16) + b"\x45" + (record.flags & 0xFF).to_bytes(4, "little"))
    if record.span_id:
        out.append(b"\x52\x08" + identity(record.span_id, 8))
    return message(b"\x12", b"".join(out))


def pairs(tag: bytes, values: Mapping[str, Any], depth: int = 0) -> bytes:
    """Return attributes as repeated `KeyValue` fields with this tag."""
    out = [b""]
    for key, value in values.items():
        name = _names.get(key) or _named(key)
        kind = type(value)
        if kind is str or kind is int:
            out.append(name.pairs.get(value) or name.pair(value))
        elif kind is float:
            out.append(name.before_a_double + DOUBLE(value))
        else:
            out.append(message(b"", name.field + message(b"\x12", any_value(value, depth))))
    return tag.join(out)


class _Name:
    """The name of an attribute, and its pairs with values that come again and again, without their tag.

    Attributes:
        field: the field `KeyValue.key`.
        before_a_double: a pair up to the eight bytes of a floating-point value.
        pairs: encoded once, such as a method, a route or a status. Keys are of exactly the types str and int, since
            1 == True == 1.0.

    """

    __slots__ = ("before_a_double", "field", "pairs")

    def __init__(self, key: str) -> None:
        self.field = message(b"\x0a", utf8(key))
        zero = message(b"", self.field + message(b"\x12", _float(0.0, 0)))
        self.before_a_double = zero[: -len(DOUBLE(0.0))]
        self.pairs: dict[str | int, bytes] = {}

    def pair(self, value: str | int) -> bytes:
        """Return the pair with a value, and remember it while there is room."""
        content = _text(value, 0) if isinstance(value, str) else _int(value, 0)
        pair = message(b"", self.field + message(b"\x12", content))
        if len(self.pairs) < _MOST_VALUES and len(pair) <= _LONGEST_PAIR:
            self.pairs[value] = pair
        return pair


# Plain dictionaries asked by `get`: subclasses that fill themselves by __missing__ take twice the time for what they
# hold.
_names: Final[dict[str, _Name]] = {}
_span_names: Final[dict[str, bytes]] = {}
"""The field `Span.name` of names that come again and again."""


def _named(key: str) -> _Name:
    name = _Name(key)
    if type(key) is str and len(key) <= _LONGEST_PAIR:
        if len(_names) >= _MOST_NAMES:
            _names.clear()
        _names[key] = name
    return name


def _span_name(name: str) -> bytes:
    encoded = text(b"\x2a", name)
    if type(name) is str and len(encoded) <= _LONGEST_PAIR:
        if len(_span_names) >= _MOST_NAMES:
            _span_names.clear()
        _span_names[name] = encoded
    return encoded


def any_value(value: Any, depth: int = 0) -> bytes:
    """Return the content of an `AnyValue`; for None nothing, which is how OTLP says it."""
    encode = _BY_TYPE.get(type(value))
    return encode(value, depth) if encode is not None else _unusual(value, depth)


def _text(value: Any, _depth: int) -> bytes:
    return message(b"\x0a", utf8(value))


def _bool(value: bool, _depth: int) -> bytes:
    return b"\x10\x01" if value else b"\x10\x00"


def _int(value: int, _depth: int) -> bytes:
    return b"\x18" + varint(value) if INT64_MIN <= value <= INT64_MAX else _text(guard.render(value), _depth)


def _float(value: float, _depth: int) -> bytes:
    return b"\x21" + DOUBLE(value)


def _bytes(value: bytes, _depth: int) -> bytes:
    return message(b"\x3a", bytes(value))


def _array(value: Iterable[Any], depth: int) -> bytes:
    if depth >= _DEEPEST:
        return _text(value, depth)
    return message(b"\x2a", b"".join([message(b"\x0a", any_value(item, depth + 1)) for item in value]))


def _mapping(value: Mapping[Any, Any], depth: int) -> bytes:
    return message(b"\x32", pairs(b"\x0a", value, depth + 1)) if depth < _DEEPEST else _text(value, depth)


def _unusual(value: Any, depth: int) -> bytes:
    """Encode what is not exactly of a plain type, as an attribute that did not come through `core.values` may be."""
    for kinds, encode in _BY_KIND:
        if isinstance(value, kinds):
            return encode(value, depth)
    return _text(value, depth)


_BY_TYPE: Final[dict[type, Callable[[Any, int], bytes]]] = {
    str: _text,
    bool: _bool,
    int: _int,
    float: _float,
    bytes: _bytes,
    tuple: _array,
    list: _array,
    dict: _mapping,
    type(None): lambda _value, _depth: b"",
}
_BY_KIND: Final[tuple[tuple[Any, Callable[[Any, int], bytes]], ...]] = (
    (str, _text),
    (int, _int),
    (float, _float),
    (bytes | bytearray | memoryview, _bytes),
    (Mapping, _mapping),
    (Sequence | set | frozenset, _array),
)
