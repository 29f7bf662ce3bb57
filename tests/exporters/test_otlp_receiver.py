"""What a receiver written by others has understood of us, field by field."""

import base64
import time

import pytest
from opentelemetry.trace import SpanKind

from insitu.core.ports import Delivery, ExporterContext
from insitu.core.records import (
    ErrorRecord,
    Exemplar,
    Family,
    Frame,
    LogRecord,
    Point,
    Resource,
    Scope,
    SpanEvent,
    SpanLink,
)
from insitu.core.stacktrace import format_error
from insitu.exporters import otlp
from tests.exporters.facts import a_span, a_trace
from tests.servers import until

pytestmark = pytest.mark.backend

START, HALF, END = 1_700_000_000_000_000_000, 1_700_000_000_500_000_000, 1_700_000_001_000_000_000
TRACE_ID, SPAN_ID, PARENT_ID = 0x0123456789ABCDEF0123456789ABCDEF, 0x1111111111111111, 0x2222222222222222

CODE = compile("pass", "shop.py", "exec")
ERROR = ErrorRecord(
    "shop.NoFunds",
    "no funds",
    [Frame(CODE, 9)],
    chain=[ErrorRecord("KeyError", "'plan'", [Frame(CODE, 3)], relation="cause")],
    timestamp=HALF,
)
EXCEPTION = {
    "exception.type": "shop.NoFunds",
    "exception.message": "no funds",
    "exception.stacktrace": format_error(ERROR),
}


@pytest.fixture
def send(ddapm_agent):
    context = ExporterContext(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ddapm_agent.otlp, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
        Resource({"service.name": "shop", "process.pid": 42}, "https://schema.example/1"),
        time.monotonic,
        lambda _seconds: False,
    )
    exporter = otlp.create(context)

    def send(signal, parts):
        """What the receiver made of the parts: each scope of the one resource that it got."""
        parts = list(parts)
        assert exporter.send(signal, parts, 10.0) == Delivery(sum(part.items for part in parts))
        (whole,) = until(lambda: ddapm_agent.received(signal), what=signal)
        (resource,) = simple(whole)[f"resource_{'spans' if signal == 'traces' else signal}"]
        assert resource.pop("resource") == {"attributes": {"service.name": "shop", "process.pid": 42}}
        assert resource.pop("schema_url") == "https://schema.example/1"
        ((_, scopes),) = resource.items()
        return scopes

    send.exporter = exporter
    yield send
    exporter.close()


NUMBERS = {"int_value", "as_int", "count"}
IDS = {"trace_id", "span_id", "parent_span_id"}


def simple(answer):
    """The receiver's JSON with attributes as dicts, ids and times as integers."""
    if isinstance(answer, list):
        return [simple(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    return {key: simple_field(key, value) for key, value in answer.items()}


def simple_field(key, value):
    if key == "attributes":
        return {pair["key"]: plain(pair["value"]) for pair in value}
    if key == "body":
        return plain(value)
    if key in IDS:
        return int.from_bytes(base64.b64decode(value), "big")
    if key in NUMBERS or key.endswith("_nano"):
        return int(value)
    return [int(count) for count in value] if key == "bucket_counts" else simple(value)


def plain(value):
    ((kind, content),) = value.items()
    if kind == "array_value":
        return [plain(item) for item in content["values"]]
    return int(content) if kind == "int_value" else content


def test_a_span_arrives_with_every_field(send):
    own = {"code": 500, "ok": False, "ratio": 0.5, "tags": ("a", "b"), "text": "ä€🎉", "low": -7}
    span = a_span(
        name="GET /orders/{id}",
        kind=SpanKind.SERVER,
        span_id=SPAN_ID,
        parent_id=PARENT_ID,
        parent_remote=True,
        local_root=True,
        scope=Scope("fastapi", "0.1", "https://opentelemetry.io/schemas/1.30.0", (("tier", "web"),)),
        own=own,
        status_code=2,
        status_text="no funds",
        start_time=START,
        end_time=END,
        events=[SpanEvent("exception", HALF, {"order": 3}, ERROR)],
        links=[SpanLink(0xAA, 0xBB, 0x101, "v=1", {"why": "retry"})],
        dropped=[1, 2, 3],
    )
    trace = a_trace([span], trace_id=TRACE_ID, state="vendor=x", bound={"user.id": "u1"})
    assert send("traces", send.exporter.encode([trace])) == [
        {
            "scope": {"name": "fastapi", "version": "0.1", "attributes": {"tier": "web"}},
            "schema_url": "https://opentelemetry.io/schemas/1.30.0",
            "spans": [
                {
                    "trace_id": TRACE_ID,
                    "span_id": SPAN_ID,
                    "parent_span_id": PARENT_ID,
                    "trace_state": "vendor=x",
                    "flags": 0x301,
                    "name": "GET /orders/{id}",
                    "kind": "SPAN_KIND_SERVER",
                    "start_time_unix_nano": START,
                    "end_time_unix_nano": END,
                    "attributes": {"user.id": "u1", **own, "tags": ["a", "b"]},
                    "events": [{"time_unix_nano": HALF, "name": "exception", "attributes": {**EXCEPTION, "order": 3}}],
                    "links": [
                        {
                            "trace_id": 0xAA,
                            "span_id": 0xBB,
                            "trace_state": "v=1",
                            "attributes": {"why": "retry"},
                            "flags": 0x101,
                        }
                    ],
                    "status": {"message": "no funds", "code": "STATUS_CODE_ERROR"},
                    "dropped_attributes_count": 1,
                    "dropped_events_count": 2,
                    "dropped_links_count": 3,
                }
            ],
        }
    ]


def test_log_records_and_a_lone_error_arrive_with_every_field(send):
    log = LogRecord(START, 13, "WARNING", "shop.pay", "slow", {"ms": 12}, TRACE_ID, SPAN_ID, 1, ERROR)
    assert send("logs", send.exporter.encode([log, ERROR])) == [
        {
            "scope": {"name": "shop.pay"},
            "log_records": [
                {
                    "time_unix_nano": START,
                    "observed_time_unix_nano": START,
                    "severity_number": "SEVERITY_NUMBER_WARN",
                    "severity_text": "WARNING",
                    "body": "slow",
                    "attributes": {**EXCEPTION, "ms": 12},
                    "trace_id": TRACE_ID,
                    "span_id": SPAN_ID,
                    "flags": 1,
                }
            ],
        },
        {
            "scope": {"name": "insitu"},
            "log_records": [
                {
                    "time_unix_nano": HALF,
                    "observed_time_unix_nano": HALF,
                    "severity_number": "SEVERITY_NUMBER_ERROR",
                    "severity_text": "ERROR",
                    "body": "shop.NoFunds: no funds",
                    "attributes": EXCEPTION,
                    "event_name": "exception",
                }
            ],
        },
    ]


def test_every_kind_of_metric_arrives_with_every_field(send):
    exemplar = Exemplar(0.7, HALF, TRACE_ID, SPAN_ID)
    latency = Point({"route": "/"}, 1.7, [2, 1, 4], [None, exemplar, None])
    times = {"start": START, "time": END}
    families = [
        Family("orders", "counter", [Point({"plan": "pro"}, 3)], unit="{order}", help="Orders placed.", **times),
        Family("queue", "updown", [Point({}, -2)], **times),
        Family("cpu", "gauge", [Point({"core": 0}, 0.25)], **times),
        Family("latency", "histogram", [latency], unit="s", bounds=(0.1, 1.0), **times),
    ]
    since, until_now = {"start_time_unix_nano": START}, {"time_unix_nano": END}
    cumulative = {"aggregation_temporality": "AGGREGATION_TEMPORALITY_CUMULATIVE"}
    orders = {"as_int": 3, "attributes": {"plan": "pro"}, **since, **until_now}
    seconds = {
        "count": 7,
        "sum": 1.7,
        "bucket_counts": [2, 1, 4],
        "explicit_bounds": [0.1, 1.0],
        "exemplars": [{"time_unix_nano": HALF, "as_double": 0.7, "span_id": SPAN_ID, "trace_id": TRACE_ID}],
        "attributes": {"route": "/"},
        **since,
        **until_now,
    }
    (scope,) = send("metrics", send.exporter.encode_metrics(families))
    assert scope["scope"] == {"name": "insitu"}
    assert scope["metrics"] == [
        {
            "name": "orders",
            "description": "Orders placed.",
            "unit": "{order}",
            "sum": {"data_points": [orders], "is_monotonic": True, **cumulative},
        },
        {"name": "queue", "sum": {"data_points": [{"as_int": -2, **since, **until_now}], **cumulative}},
        {"name": "cpu", "gauge": {"data_points": [{"as_double": 0.25, "attributes": {"core": 0}, **until_now}]}},
        {"name": "latency", "unit": "s", "histogram": {"data_points": [seconds], **cumulative}},
    ]
