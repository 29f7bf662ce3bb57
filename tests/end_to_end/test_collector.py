"""What an OTLP receiver written by others has of a real application's requests, field by field."""

import json
import re

import pytest

from insitu.signals.metrics import DURATION_BOUNDS
from tests.end_to_end.serving import SECRET, serving
from tests.exporters.test_otlp_receiver import simple

pytestmark = pytest.mark.backend

REMOTE_UNKNOWN, REMOTE = 0x100, 0x300
"""Above the trace's own flags: the parent is not remote; it is."""
SAMPLED = 0x03
"""The flags of a trace that begins here: sampled, and its id is random."""
REQUESTS = (
    ("GET", f"/items/3?token={SECRET}&page=2", 200),
    ("POST", "/orders/3?value=20", 201),
    ("GET", "/relay/4", 200),
    ("GET", "/fails", 500),
    ("GET", "/busy", 503),
    ("GET", "/nothing", 404),
)
FIELDS = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
OLDER = "insitu.cgroup."
"""Counted since the container began, and nobody tells us when that was."""
OUT_OF_STOCK = "tests.end_to_end.application.OutOfStock"


@pytest.fixture(name="application")
def _application(ddapm_agent, tmp_path):
    """The application after all requests and its end by SIGTERM, which delivers what is left."""
    resource = "service.version=1.0,team=web"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ddapm_agent.otlp, "OTEL_RESOURCE_ATTRIBUTES": resource}
    with serving(tmp_path, OTEL_SERVICE_NAME="shop", **environ) as application:
        with application.client() as client:
            for method, path, status in REQUESTS:
                assert client.request(method, path).status_code == status
        application.process.terminate()
        application.process.wait(10)
        yield application


def scopes(agent, application, signal):
    """The scopes by name, each with all its items, of a resource that is the application's."""
    resources, groups, items = FIELDS[signal]
    told = {"service.name": "shop", "service.version": "1.0", "team": "web", "telemetry.sdk.language": "python"}
    told["process.pid"] = application.process.pid
    found = {}
    for request in simple(agent.received(signal)):
        (whole,) = request[resources]
        assert told.items() <= whole["resource"]["attributes"].items()
        for group in whole[groups]:
            found.setdefault((group["scope"]["name"], group["scope"].get("version", "")), []).extend(group[items])
    return found


def test_spans_arrive_with_ids_parents_kinds_statuses_events_and_links(application, ddapm_agent):
    found = scopes(ddapm_agent, application, "traces")
    assert found.keys() == {("insitu", ""), ("shop.stock", "1.2"), ("insitu.httpx", "")}
    spans = {(span["name"], span["attributes"].get("url.path", "")): span for each in found.values() for span in each}
    assert len(spans) == sum(map(len, found.values())) == 11
    assert all(0 < span["end_time_unix_nano"] - span["start_time_unix_nano"] < 5e9 for span in spans.values())
    assert len({span["span_id"] for span in spans.values()}) == len(spans)
    assert len({span["trace_id"] for span in spans.values()}) == len(REQUESTS)

    port = int(application.url.rpartition(":")[2])
    served = spans["GET /items/{number}", "/items/3"]
    assert served.keys() == {
        *("trace_id", "span_id", "name", "kind", "start_time_unix_nano", "end_time_unix_nano", "attributes", "flags")
    }
    assert (served["kind"], served["flags"]) == ("SPAN_KIND_SERVER", REMOTE_UNKNOWN | SAMPLED)
    caller = served["attributes"].pop("client.port")
    assert served["attributes"] == {
        "http.request.method": "GET",
        "http.route": "/items/{number}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/items/3",
        "url.query": "token=[redacted]&page=2",
        "server.address": "127.0.0.1",
        "server.port": port,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": caller,
        "network.protocol.version": "1.1",
        "user_agent.original": "visitor/1",
    }

    ordered, placing = spans["POST /orders/{number}", "/orders/3"], spans["place order", ""]
    reading, taking = spans["read stock", ""], spans["take stock", ""]
    assert {span["trace_id"] for span in (placing, reading, taking)} == {ordered["trace_id"]}
    assert placing["parent_span_id"] == ordered["span_id"]
    assert reading["parent_span_id"] == taking["parent_span_id"] == placing["span_id"]
    assert placing["kind"] == reading["kind"] == "SPAN_KIND_INTERNAL"
    assert placing["attributes"] == {
        "user.id": "u1",
        "number": 3,
        "password": "[redacted]",
        "note": "token=[redacted]",
    }
    (reserved,) = placing["events"]
    assert (reserved["name"], reserved["attributes"]) == ("reserved", {"shelf": 7})
    assert placing["start_time_unix_nano"] <= reserved["time_unix_nano"] <= placing["end_time_unix_nano"]

    assert reading["attributes"] == {"user.id": "u1", "ok": True, "share": 0.5}
    assert reading["links"] == [{"trace_id": 0xAA, "span_id": 0xBB, "attributes": {"why": "retry"}, "flags": REMOTE}]

    message = "item 3, password=[redacted]"
    assert taking["kind"] == "SPAN_KIND_PRODUCER"
    assert taking["status"] == {"code": "STATUS_CODE_ERROR", "message": f"{OUT_OF_STOCK}: {message}"}
    assert_an_exception(taking, OUT_OF_STOCK, message)

    failed = spans["GET /fails", "/fails"]
    message = "no warehouse, secret=[redacted]"
    assert failed["status"] == {"code": "STATUS_CODE_ERROR", "message": f"ValueError: {message}"}
    assert (failed["attributes"]["http.response.status_code"], failed["attributes"]["error.type"]) == (
        500,
        "ValueError",
    )
    assert_an_exception(failed, "ValueError", message)

    busy = spans["GET /busy", "/busy"]
    assert (busy["status"], busy["attributes"]["error.type"]) == ({"code": "STATUS_CODE_ERROR"}, "503")
    missing = spans["GET", "/nothing"]
    assert "status" not in missing
    assert "http.route" not in missing["attributes"]


def assert_an_exception(span, kind, message):
    (event,) = span["events"]
    assert event["name"] == "exception"
    trace = event["attributes"].pop("exception.stacktrace")
    assert len(event["attributes"].pop("insitu.fingerprint")) == 16
    assert event["attributes"] == {"exception.type": kind, "exception.message": message}
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith(f"{kind}: {message}\n")
    assert re.search(r'application\.py", line \d+, in (order|fails)\n', trace)


def test_a_call_to_another_service_continues_its_trace_there(application, ddapm_agent):
    found = scopes(ddapm_agent, application, "traces")
    (calling,) = found["insitu.httpx", ""]
    own = {span["attributes"].get("url.path"): span for span in found["insitu", ""]}
    relaying, called = own["/relay/4"], own["/items/4"]
    assert relaying["trace_id"] == calling["trace_id"] == called["trace_id"]
    assert (calling["parent_span_id"], called["parent_span_id"]) == (relaying["span_id"], calling["span_id"])
    assert (calling["kind"], called["kind"]) == ("SPAN_KIND_CLIENT", "SPAN_KIND_SERVER")
    assert (calling["flags"], called["flags"]) == (REMOTE_UNKNOWN | SAMPLED, REMOTE | SAMPLED)
    assert calling["attributes"]["url.full"] == f"{application.url}/items/4"
    assert relaying["start_time_unix_nano"] <= calling["start_time_unix_nano"] <= called["start_time_unix_nano"]


def test_logs_arrive_with_their_trace_and_without_secrets(application, ddapm_agent):
    spans = scopes(ddapm_agent, application, "traces")
    (reading,) = (span for span in spans["shop.stock", "1.2"] if span["name"] == "read stock")
    found = scopes(ddapm_agent, application, "logs")
    (warning,) = found["shop.orders", ""]
    assert warning["time_unix_nano"] == warning["observed_time_unix_nano"]
    assert reading["start_time_unix_nano"] <= warning["time_unix_nano"] <= reading["end_time_unix_nano"]
    assert {
        key: warning[key] for key in ("severity_number", "severity_text", "body", "trace_id", "span_id", "flags")
    } == {
        "severity_number": "SEVERITY_NUMBER_WARN",
        "severity_text": "WARNING",
        "body": "only 2 left, api_key=[redacted]",
        "trace_id": reading["trace_id"],
        "span_id": reading["span_id"],
        "flags": SAMPLED,
    }
    assert warning["attributes"].pop("code.file.path").endswith("application.py")
    assert warning["attributes"].pop("code.line.number") > 0
    assert warning["attributes"] == {
        "user.id": "u1",
        "number": 3,
        "password": "[redacted]",
        "code.function.name": "order",
    }
    (failure,) = found["uvicorn.error", ""]
    assert (failure["severity_number"], failure["severity_text"]) == ("SEVERITY_NUMBER_ERROR", "ERROR")
    assert failure["attributes"]["exception.type"] == "ValueError"
    for signal in ("traces", "metrics", "logs"):
        assert SECRET not in json.dumps(ddapm_agent.received(signal))


def test_metrics_arrive_with_counts_bounds_sums_exemplars_and_times(application, ddapm_agent):
    (metrics,) = scopes(ddapm_agent, application, "metrics").values()
    last = {metric["name"]: metric for metric in metrics}
    duration = last["http.server.request.duration"]
    assert duration["unit"] == "s"
    assert duration["histogram"]["aggregation_temporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"
    points = {
        (point["attributes"]["http.request.method"], point["attributes"].get("http.route", "")): point
        for point in duration["histogram"]["data_points"]
    }
    assert {series: point["count"] for series, point in points.items()} == {
        ("GET", "/items/{number}"): 2,
        ("POST", "/orders/{number}"): 1,
        ("GET", "/relay/{number}"): 1,
        ("GET", "/fails"): 1,
        ("GET", "/busy"): 1,
        ("GET", ""): 1,
    }
    spans = {span["span_id"]: span for each in scopes(ddapm_agent, application, "traces").values() for span in each}
    for series, point in points.items():
        assert point["explicit_bounds"] == list(DURATION_BOUNDS)
        assert sum(point["bucket_counts"]) == point["count"]
        # One exemplar a bucket: two requests of one route may lie in two.
        assert len(point["exemplars"]) == sum(count > 0 for count in point["bucket_counts"])
        for exemplar in point["exemplars"]:
            span = spans[exemplar["span_id"]]
            assert (exemplar["trace_id"], series[1]) == (span["trace_id"], span["attributes"].get("http.route", ""))
            seconds = (span["end_time_unix_nano"] - span["start_time_unix_nano"]) / 1e9
            assert exemplar["as_double"] == pytest.approx(seconds)
            assert point["sum"] >= exemplar["as_double"]
    assert points["GET", "/fails"]["attributes"]["error.type"] == "ValueError"

    (placed,) = last["orders"]["sum"]["data_points"]
    assert (placed["as_int"], placed["attributes"], last["orders"]["unit"]) == (1, {"plan": "pro"}, "{order}")
    assert last["orders"]["sum"]["is_monotonic"] is True
    (basket,) = last["basket.value"]["histogram"]["data_points"]
    assert (basket["count"], basket["sum"], basket["bucket_counts"]) == (1, 20.0, [0, 1, 0])
    (counted,) = (point for point in last["insitu.errors"]["sum"]["data_points"] if "OutOf" in str(point["attributes"]))
    assert (counted["as_int"], counted["attributes"]) == (1, {"error.type": OUT_OF_STOCK})
    body = last["http.server.response.body.size"]["histogram"]["data_points"]
    assert sum(point["count"] for point in body) == 7


def test_every_point_of_a_metric_says_when_it_was_taken_and_since_when_it_counts(application, ddapm_agent):
    (metrics,) = scopes(ddapm_agent, application, "metrics").values()
    timeless = set()
    for metric in metrics:
        (kind,) = metric.keys() & {"sum", "gauge", "histogram"}
        counts = metric[kind].get("is_monotonic") and not metric["name"].startswith(OLDER)
        for point in metric[kind]["data_points"]:
            taken, since = point.get("time_unix_nano", 0), point.get("start_time_unix_nano", 0)
            if not taken or (counts and not 0 < since <= taken):
                timeless.add(metric["name"])
    assert not timeless, f"without a time or a start: {sorted(timeless)}"
