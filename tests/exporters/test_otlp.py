import gzip
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from insitu.core import guard
from insitu.core.clock import SYSTEM
from insitu.core.ports import Delivery, ExporterContext
from insitu.core.ports import Exporter as ExporterProtocol
from insitu.core.records import ErrorRecord, Family, LogRecord, Point, Resource, Scope, SpanEvent
from insitu.exporters import otlp
from insitu.exporters.otlp_encoding import request
from insitu.exporters.otlp_options import Options, Target
from insitu.store.spool import Spool
from tests.exporters.facts import a_span, a_trace

RESOURCE = Resource({"service.name": "shop", "process.pid": 42}, "https://schema.example/1")


class Receiver:
    """A real HTTP server that keeps what it got and answers as it is told to."""

    def __init__(self):
        self.requests = []
        self.answer = (200, {}, b"")
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                status, headers, content = receiver.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def warnings_are_fresh(monkeypatch):
    monkeypatch.setattr(guard, "_last_logged", {})


def never(_seconds):
    return False


def exporter_for(url, wait=never, spool=None, **environ):
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **environ}
    return otlp.create(ExporterContext(variables, RESOURCE, time.monotonic, wait, lambda _: spool))


def tally(parts):
    totals = Counter()
    for part in parts:
        totals[part.signal] += part.items
    return totals


def test_it_is_an_exporter_and_delivers_the_request_that_the_parts_make(receiver):
    exporter = exporter_for(
        receiver.url, OTEL_EXPORTER_OTLP_HEADERS="api-key=abc%20d", OTEL_EXPORTER_OTLP_COMPRESSION="gzip"
    )
    assert isinstance(exporter, ExporterProtocol)
    scopes = Scope("fastapi", "1.2", "https://scope.example"), Scope("sqlalchemy")
    trace = a_trace([a_span(name=f"s{n}", scope=scopes[n % 2], span_id=n + 1) for n in range(10)])
    parts = list(exporter.encode([trace, a_trace([a_span(name="other", scope=scopes[0])])]))
    assert [(part.signal, part.items) for part in parts] == [("traces", 6), ("traces", 5)]
    assert all(part.weight >= len(part.data) for part in parts)
    assert exporter.send("traces", parts, 5.0) == Delivery(11)
    exporter.close()
    ((path, headers, body),) = receiver.requests
    assert path == "/v1/traces"
    assert (headers["Content-Type"], headers["Content-Encoding"], headers["api-key"]) == (
        "application/x-protobuf",
        "gzip",
        "abc d",
    )
    assert headers["User-Agent"].startswith("insitu-otlp-python/")
    (whole,) = ExportTraceServiceRequest.FromString(gzip.decompress(body)).resource_spans
    assert {pair.key for pair in whole.resource.attributes} == {"service.name", "process.pid"}
    assert whole.schema_url == "https://schema.example/1"
    assert [(scope.scope.name, scope.scope.version, scope.schema_url) for scope in whole.scope_spans] == [
        ("fastapi", "1.2", "https://scope.example"),
        ("sqlalchemy", "", ""),
    ]
    assert [[span.name for span in scope.spans] for scope in whole.scope_spans] == [
        ["s0", "s2", "s4", "s6", "s8", "other"],
        ["s1", "s3", "s5", "s7", "s9"],
    ]


def test_a_trace_that_is_not_sampled_is_not_exported():
    assert list(exporter_for("http://localhost").encode([a_trace([a_span()], flags=0)])) == []


def test_signals_that_are_off_are_not_encoded():
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "LOGS", "METRICS")}
    exporter = exporter_for("http://localhost", **off)
    assert exporter.metrics_interval is None
    assert list(exporter.encode([a_trace([a_span()]), LogRecord(1, 9, "INFO", "a", "b"), ErrorRecord("E", "m")])) == []


class NoNumber:
    pass


POISON = {
    "name": "\ud800",
    "end_time": -5,
    "start_time": 1.5,
    "span_id": "no id",
    "kind": None,
    "own": {"big": 2**70},
    "events": [SpanEvent("e", 1, {"a": NoNumber()}), "no event"],
    "links": [NoNumber()],
    "dropped": [1],
    "status_code": NoNumber(),
    "parent_id": 2**70,
}


@pytest.mark.parametrize("field", POISON)
def test_a_poison_span_costs_at_most_itself(field):
    spans = [a_span(span_id=n + 1) for n in range(100)]
    setattr(spans[50], field, POISON[field])
    parts = list(exporter_for("http://localhost").encode([a_trace(spans)]))
    encoded = sum(part.items for part in parts if part.data is not None)
    print(f"{field}: {encoded} of 100")
    assert encoded >= 99
    assert tally(parts) == {"traces": 100}


def test_a_trace_whose_id_is_no_number_is_counted_as_lost_and_the_next_one_is_not(receiver):
    exporter = exporter_for(receiver.url)
    parts = list(exporter.encode([a_trace([a_span(), a_span()], trace_id="x"), a_trace([a_span()])]))
    assert exporter.send("traces", parts, 5.0) == Delivery(1, 2, "error")
    assert exporter.send("traces", [part for part in parts if part.data is None], 5.0) == Delivery(0, 2, "error")
    assert len(receiver.requests) == 1


def test_a_log_record_that_cannot_be_encoded_costs_itself(receiver):
    exporter = exporter_for(receiver.url)
    logs = [LogRecord(n, 9, "INFO", "shop", f"line {n}") for n in range(10)]
    logs[5].trace_id = "no id"
    parts = list(exporter.encode([*logs, ErrorRecord("E", "m", trace_id="x"), ErrorRecord("E", "m")]))
    assert exporter.send("logs", parts, 5.0) == Delivery(10, 2, "error")
    ((path, _, body),) = receiver.requests
    assert path == "/v1/logs"
    (whole,) = ExportLogsServiceRequest.FromString(body).resource_logs
    assert [len(scope.log_records) for scope in whole.scope_logs] == [9, 1]


def test_a_large_trace_is_cut_into_parts_that_fit_a_batch_and_large_batches_into_requests(receiver):
    exporter = exporter_for(receiver.url, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100")
    spans = [
        a_span(span_id=n + 1, own={f"k{m}": "x" * 8_000 for m in range(10)} if n < 100 else None) for n in range(1_000)
    ]
    parts = list(exporter.encode([a_trace(spans)]))
    assert max(part.items for part in parts) <= 100
    assert max(len(part.data) for part in parts) < 1.1 * otlp.PART_BYTES
    assert tally(parts) == {"traces": 1_000}
    assert exporter.send("traces", parts, 20.0) == Delivery(1_000)
    assert len(receiver.requests) > 1
    assert max(len(body) for _, _, body in receiver.requests) <= otlp.REQUEST_BYTES
    names = Counter()
    for _, _, body in receiver.requests:
        for whole in ExportTraceServiceRequest.FromString(body).resource_spans:
            names.update(int.from_bytes(span.span_id, "big") for scope in whole.scope_spans for span in scope.spans)
    assert names == Counter(range(1, 1_001))


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "insitu"]


def test_a_partial_success_is_counted_and_said(receiver, caplog):
    answer = trace_service_pb2.ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = 3, "too\nold \x1b[31m" + "x" * 1_000
    receiver.answer = (200, {}, answer.SerializeToString())
    exporter = exporter_for(receiver.url.replace("//", "//user:hunter2@"))
    parts = list(exporter.encode([a_trace([a_span() for _ in range(10)])]))
    assert exporter.send("traces", parts, 5.0) == Delivery(7, 3, "partial")
    (message,) = said(caplog)
    assert "refused 3 of 10 items: too old  [31mxxx" in message
    assert "hunter2" not in message
    assert len(message) < 400


def test_a_warning_without_rejections_drops_nothing(receiver, caplog):
    answer = trace_service_pb2.ExportTraceServiceResponse()
    answer.partial_success.error_message = "please slow down"
    receiver.answer = (200, {}, answer.SerializeToString())
    exporter = exporter_for(receiver.url)
    assert exporter.send("traces", list(exporter.encode([a_trace([a_span()])])), 5.0) == Delivery(1)
    assert "please slow down" in said(caplog)[0]


@pytest.mark.parametrize(
    "body",
    [b"{}", b"\xff" * 40, b"\x0a\x7f", b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x02\x12\xff"],
)
def test_a_strange_answer_counts_as_delivered(receiver, body):
    receiver.answer = (200, {}, body)
    exporter = exporter_for(receiver.url)
    assert exporter.send("traces", list(exporter.encode([a_trace([a_span()])])), 5.0) == Delivery(1)


def test_a_refusal_is_not_tried_again_and_its_reason_is_said(receiver, caplog):
    receiver.answer = (400, {}, b"\x08\x03\x12\x0bbad request")  # google.rpc.Status
    exporter = exporter_for(receiver.url)
    assert exporter.send("traces", list(exporter.encode([a_trace([a_span()])])), 5.0) == Delivery(0, 1, "refused")
    assert len(receiver.requests) == 1
    assert "took none of 1 items" in said(caplog)[0]
    assert "bad request" in said(caplog)[0]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_receiver_is_asked_again_after_the_time_it_names(receiver, status):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        receiver.answer = (200, {}, b"")
        return False

    receiver.answer = (status, {"Retry-After": "2"}, b"")
    exporter = exporter_for(receiver.url, wait)
    assert exporter.send("traces", list(exporter.encode([a_trace([a_span()])])), 5.0) == Delivery(1)
    assert waits == [2.0]
    assert len({body for _, _, body in receiver.requests}) == 1


def test_nobody_there_is_unreachable_and_an_ending_process_stops(caplog):
    parts = list(exporter_for("http://127.0.0.1:9").encode([a_trace([a_span()])]))
    assert exporter_for("http://127.0.0.1:9").send("traces", parts, 0.5) == Delivery(0, 1, "unreachable")
    assert exporter_for("http://127.0.0.1:9", lambda _: True).send("traces", parts, 5.0) == Delivery(0, 1, "stopped")
    assert exporter_for("http://127.0.0.1:9").send("traces", parts, 0.0) == Delivery(0, 1, "unreachable")
    assert len(said(caplog)) == 1


def test_what_nobody_takes_waits_on_disk_for_the_next_process(receiver, tmp_path):
    spool = Spool(tmp_path, SYSTEM)
    here = exporter_for(receiver.url, lambda _: True, spool)
    spans = list(here.encode([a_trace([a_span(), a_span()])]))
    receiver.answer = (503, {}, b"")
    assert here.send("traces", spans, 5.0) == Delivery(0, kept=2)
    assert here.send("metrics", list(here.encode_metrics([Family("cpu", "gauge", [Point({}, 1)])])), 5.0).kept == 0
    refused = receiver.requests[0]
    assert here.resend(5.0) is None
    receiver.answer = (200, {}, b"")
    there = exporter_for(receiver.url, lambda _: True, spool)
    assert there.resend(5.0) == ("traces", Delivery(2))
    assert receiver.requests[-1][2] == refused[2]
    assert there.resend(5.0) is None


def test_what_is_refused_later_is_lost_and_counted(receiver, tmp_path):
    exporter = exporter_for(receiver.url, lambda _: True, Spool(tmp_path, SYSTEM))
    assert exporter.send("traces", list(exporter.encode([a_trace([a_span()])])), 0.0).kept == 1
    receiver.answer = (400, {}, b"")
    assert exporter.resend(5.0) == ("traces", Delivery(0, 1, "refused"))
    assert exporter.resend(5.0) is None


def test_metrics_of_one_scope_make_one_part_and_each_point_counts(receiver):
    families = [
        Family("orders", "counter", [Point({"plan": plan}, 3) for plan in "abc"], start=1, time=2),
        Family("cpu", "gauge", [Point({}, 0.5)], start=1, time=2),
        Family("mine", "counter", [Point({}, 1)], scope=Scope("my.app"), start=1, time=2),
        Family("empty", "counter", []),
    ]
    exporter = exporter_for(receiver.url)
    parts = list(exporter.encode_metrics(families))
    assert [(part.signal, part.items) for part in parts] == [("metrics", 4), ("metrics", 1)]
    assert exporter.send("metrics", parts, 5.0) == Delivery(5)
    ((path, _, body),) = receiver.requests
    assert path == "/v1/metrics"
    (whole,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    names = {scope.scope.name: [metric.name for metric in scope.metrics] for scope in whole.scope_metrics}
    assert names == {"insitu": ["orders", "cpu"], "my.app": ["mine"]}


def test_a_scope_whose_attributes_have_no_hash_is_a_scope_like_any_other():
    strange = Scope("my.app", attributes=(("list", [1]),))
    families = [
        Family(name, "gauge", [Point({}, 1)], scope=scope) for name in "ab" for scope in (strange, Scope("other"))
    ]
    exporter = exporter_for("http://localhost")
    assert [part.items for part in exporter.encode_metrics(families)] == [2, 2]
    assert [part.items for part in exporter.encode([a_trace([a_span(scope=strange)])])] == [1]


def test_many_series_become_several_parts():
    points = [Point({"route": f"/{n}/" + "x" * 200}, n) for n in range(500)]
    families = [Family(f"f{n}", "counter", points, start=1, time=2) for n in range(20)]
    parts = list(exporter_for("http://localhost").encode_metrics(families))
    assert len(parts) > 1
    assert tally(parts) == {"metrics": 10_000}
    assert max(len(part.data) for part in parts) <= 1.1 * otlp.PART_BYTES


def test_a_family_that_cannot_be_encoded_is_counted_and_the_others_survive():
    families = [
        Family("good", "gauge", [Point({}, 1)]),
        Family("bad", "histogram", [Point({}, 1, [1], [])], bounds=["x"]),
    ]
    parts = list(exporter_for("http://localhost").encode_metrics(families))
    assert [(part.items, part.data is None) for part in parts] == [(1, False), (1, True)]


def test_differences_begin_anew_after_close():
    exporter = exporter_for("http://localhost", OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")
    family = Family("orders", "counter", [Point({}, 3)], start=1, time=2)
    assert sum(part.items for part in exporter.encode_metrics([family])) == 1
    assert list(exporter.encode_metrics([family])) == []
    exporter.close()
    assert sum(part.items for part in exporter.encode_metrics([family])) == 1


def test_options_by_hand_need_no_environment():
    only_logs = Options(traces=None, metrics=None, logs=Target("http://localhost:1/v1/logs"))
    exporter = otlp.Exporter(only_logs, RESOURCE, monotonic=time.monotonic, wait=never)
    parts = list(
        exporter.encode([a_trace([a_span()]), LogRecord(1, 9, "INFO", "a", "b"), LogRecord(1, 9, "INFO", "c", "d")])
    )
    assert [part.signal for part in parts] == ["logs", "logs"]
    (whole,) = ExportLogsServiceRequest.FromString(request(b"", [part.data for part in parts])).resource_logs
    assert [scope.scope.name for scope in whole.scope_logs] == ["a", "c"]
