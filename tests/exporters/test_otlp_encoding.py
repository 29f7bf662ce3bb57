import enum
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.trace import SpanKind

from insitu.core.records import ErrorRecord, LogRecord, Resource, Scope, SpanEvent, SpanLink
from insitu.core.stacktrace import format_error
from insitu.exporters import otlp_encoding as otlp
from tests.exporters.facts import a_span, a_trace

thousand = settings(max_examples=1_000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(["", "\ud800x", "ä€🎉", "k" * 200])
integers = st.integers() | st.sampled_from([-1, 0, 127, 128, 2**63 - 1, -(2**63), 2**63, 2**70, -(2**70)])
scalars = texts | integers | st.floats() | st.booleans() | st.binary(max_size=9) | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
attributes = st.dictionaries(texts, values, max_size=4)
times = st.integers(0, 2**64 - 1) | st.sampled_from([-1, -(2**70), 2**64, 2**70, 1.5, math.nan, math.inf, None])
ids64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**64 - 1])
ids128 = st.integers(0, 2**128 - 1) | st.sampled_from([0, 2**128 - 1])
counts = st.integers(0, 2**32 - 1)
errors = st.builds(
    ErrorRecord, texts, texts, timestamp=times, trace_id=ids128, span_id=ids64, attributes=st.none() | attributes
)
events = st.builds(SpanEvent, texts, times, attributes, st.none() | errors)
links = st.builds(SpanLink, ids128, ids64, st.integers(0, 2**32 - 1), texts, attributes)
scopes = st.builds(
    Scope, texts, texts, texts, st.dictionaries(texts, scalars, max_size=2).map(lambda pairs: tuple(pairs.items()))
)
spans = st.builds(
    a_span,
    dropped=st.none() | st.tuples(counts, counts, counts).map(list),
    end_time=times,
    events=st.none() | st.lists(events, max_size=2),
    kind=st.sampled_from(SpanKind),
    links=st.none() | st.lists(links, max_size=2),
    name=texts,
    own=st.none() | attributes,
    parent_id=ids64,
    parent_remote=st.booleans(),
    scope=scopes,
    span_id=ids64,
    start_time=times,
    status_code=st.integers(0, 2),
    status_text=texts,
)
traces = st.builds(
    a_trace, st.tuples(spans), trace_id=ids128, flags=st.integers(0, 255), state=texts, bound=st.none() | attributes
)
logs = st.builds(
    LogRecord,
    timestamp=times,
    severity=st.integers(0, 24),
    level=texts,
    logger=texts,
    body=values,
    attributes=st.none() | attributes,
    trace_id=ids128,
    span_id=ids64,
    flags=st.integers(0, 255),
    error=st.none() | errors,
    event_name=texts,
)


def valid(text):
    return text.encode("utf-8", "replace").decode()


def moment(value):
    if value is None or not math.isfinite(value):
        return 0
    return min(max(int(value), 0), 2**64 - 1)


def value_of(value):
    """The AnyValue that stands for a value, made by the official library."""
    if value is None:
        return common_pb2.AnyValue()
    if isinstance(value, bool):
        return common_pb2.AnyValue(bool_value=value)
    if isinstance(value, int):
        in_range = -(2**63) <= value < 2**63
        return common_pb2.AnyValue(int_value=value) if in_range else common_pb2.AnyValue(string_value=str(value))
    if isinstance(value, float):
        return common_pb2.AnyValue(double_value=value)
    if isinstance(value, str):
        return common_pb2.AnyValue(string_value=valid(value))
    if isinstance(value, bytes):
        return common_pb2.AnyValue(bytes_value=value)
    if isinstance(value, dict):
        return common_pb2.AnyValue(kvlist_value=common_pb2.KeyValueList(values=pairs_of(value)))
    return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=[value_of(item) for item in value]))


def pairs_of(mapping):
    return [common_pb2.KeyValue(key=valid(key), value=value_of(value)) for key, value in mapping.items()]


def exception(error):
    if error is None:
        return {}
    return {
        "exception.type": error.type,
        "exception.message": error.message,
        "exception.stacktrace": format_error(error),
    }


def scope_of(scope):
    pairs = pairs_of(dict(scope.attributes))
    return common_pb2.InstrumentationScope(name=valid(scope.name), version=valid(scope.version), attributes=pairs)


def event_of(event):
    return trace_pb2.Span.Event(
        time_unix_nano=moment(event.timestamp),
        name=valid(event.name),
        attributes=pairs_of({**exception(event.error), **event.attributes}),
    )


def link_of(link):
    return trace_pb2.Span.Link(
        trace_id=link.trace_id.to_bytes(16, "big"),
        span_id=link.span_id.to_bytes(8, "big"),
        trace_state=valid(link.state),
        attributes=pairs_of(link.attributes),
        flags=link.flags & 0xFF | 0x100 | (0x200 if link.remote else 0),
    )


def span_of(span):
    trace = span.trace
    dropped = span.dropped or (0, 0, 0)
    made = trace_pb2.Span(
        trace_id=trace.trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        trace_state=valid(trace.state),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        flags=trace.flags | 0x100 | (0x200 if span.parent_remote else 0),
        name=valid(span.name),
        kind=span.kind.value + 1,
        start_time_unix_nano=moment(span.start_time),
        end_time_unix_nano=moment(span.end_time),
        attributes=pairs_of({**(trace.bound or {}), **(span.own or {})}),
        dropped_attributes_count=dropped[0],
        events=map(event_of, span.events or ()),
        dropped_events_count=dropped[1],
        links=map(link_of, span.links or ()),
        dropped_links_count=dropped[2],
    )
    if span.status_code or span.status_text:
        made.status.CopyFrom(trace_pb2.Status(message=valid(span.status_text), code=span.status_code))
    return made


def log_of(record, extra=None):
    values = {**exception(record.error), **(record.attributes or {})} if extra is None else extra
    made = logs_pb2.LogRecord(
        time_unix_nano=moment(record.timestamp),
        observed_time_unix_nano=moment(record.timestamp),
        severity_number=record.severity,
        severity_text=valid(record.level),
        body=value_of(record.body),
        attributes=pairs_of(values),
        event_name=valid(record.event_name),
    )
    if record.trace_id:
        made.trace_id, made.flags = record.trace_id.to_bytes(16, "big"), record.flags
    if record.span_id:
        made.span_id = record.span_id.to_bytes(8, "big")
    return made


def alike(ours, theirs):
    """Field by field, and NaN equals NaN: the same bytes once the official library has written both."""
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True), (
        f"{ours}\n{theirs}"
    )


RESOURCE = otlp.resource_fields(Resource({"service.name": "shop", "n": 1}, "https://schema"))
THEIR_RESOURCE = resource_pb2.Resource(attributes=pairs_of({"service.name": "shop", "n": 1}))


@thousand
@given(traces)
def test_a_thousand_spans_parse_to_what_the_official_library_would_say(trace):
    (span,) = trace.spans
    theirs = ExportTraceServiceRequest()
    whole = theirs.resource_spans.add(resource=THEIR_RESOURCE, schema_url="https://schema")
    whole.scope_spans.add(scope=scope_of(span.scope), spans=[span_of(span)], schema_url=valid(span.scope.schema_url))
    part = otlp.scoped(span.scope, [otlp.span(span, otlp.trace_fields(trace))])
    alike(ExportTraceServiceRequest.FromString(otlp.request(RESOURCE, [part])), theirs)


@thousand
@given(logs)
def test_a_thousand_log_records_parse_to_what_the_official_library_would_say(record):
    scope = Scope(record.logger)
    theirs = ExportLogsServiceRequest()
    whole = theirs.resource_logs.add(resource=THEIR_RESOURCE, schema_url="https://schema")
    whole.scope_logs.add(scope=scope_of(scope), log_records=[log_of(record)])
    part = otlp.scoped(scope, [otlp.log(record)])
    alike(ExportLogsServiceRequest.FromString(otlp.request(RESOURCE, [part])), theirs)


@settings(thousand, max_examples=200)
@given(errors)
def test_a_lone_error_is_the_event_exception(error):
    body = f"{error.type}: {error.message}" if error.message else error.type
    as_log = LogRecord(
        error.timestamp, 17, "ERROR", "", body, None, error.trace_id, error.span_id, event_name="exception"
    )
    theirs = log_of(as_log, {**exception(error), **(error.attributes or {})})
    part = otlp.scoped(Scope("insitu"), [otlp.error_log(error)])
    ((ours,),) = (scope.log_records for scope in logs_pb2.ResourceLogs.FromString(part).scope_logs)
    alike(ours, theirs)


@settings(thousand, max_examples=200)
@given(st.lists(st.tuples(texts, values), max_size=5).map(dict))
def test_attributes_come_out_the_same_when_they_come_again(mapping):
    first = otlp.pairs(b"\x0a", mapping)
    assert otlp.pairs(b"\x0a", mapping) == first
    alike(resource_pb2.Resource.FromString(first), resource_pb2.Resource(attributes=pairs_of(mapping)))


def test_equal_values_of_different_types_keep_their_types():
    for value in (1, True, 1.0, 0, False, 0.0, -0.0, "1"):
        (pair,) = resource_pb2.Resource.FromString(otlp.pairs(b"\x0a", {"same": value})).attributes
        alike(pair.value, value_of(value))


def decoded(value):
    (pair,) = resource_pb2.Resource.FromString(otlp.pairs(b"\x0a", {"k": value})).attributes
    return pair.value


class Hostile:
    def __str__(self):
        raise RuntimeError("no text")


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


def test_what_is_not_plain_becomes_what_comes_nearest():
    assert decoded(Hostile()).string_value == "<unprintable Hostile>"
    assert decoded(Level.HIGH).int_value == 3
    assert decoded(Name("n")).string_value == "n"
    assert decoded(bytearray(b"ab")).bytes_value == b"ab"
    assert [item.int_value for item in decoded(range(3)).array_value.values] == [0, 1, 2]
    assert decoded({1: Hostile()}).kvlist_value.values[0].key == "1"
    assert decoded(1j).string_value == "1j"


def test_nesting_without_end_ends():
    endless = []
    endless.append(endless)
    loop = {}
    loop["in"] = loop
    assert decoded(endless).WhichOneof("value") == "array_value"
    assert decoded(loop).WhichOneof("value") == "kvlist_value"


def test_a_million_names_and_values_keep_the_caches_small():
    for number in range(5_000):
        otlp.pairs(b"\x0a", {f"key{number}": "v", "one": number, "long": "x" * 1_000})
    assert len(otlp._names) <= 512
    assert all(len(name.pairs) <= 32 for name in otlp._names.values())
    assert sum(len(pair) for name in otlp._names.values() for pair in name.pairs.values()) < 2_200_000


@pytest.mark.parametrize("kind", SpanKind)
def test_kinds_are_numbered_as_otlp_numbers_them(kind):
    span = a_span(kind=kind)
    trace = a_trace([span])
    part = otlp.scoped(span.scope, [otlp.span(span, otlp.trace_fields(trace))])
    ((parsed,),) = (scope.spans for scope in trace_pb2.ResourceSpans.FromString(part).scope_spans)
    assert trace_pb2.Span.SpanKind.Name(parsed.kind) == f"SPAN_KIND_{kind.name}"
