"""What an application feels of a collector that is down, mute or unwilling: FAULTS rows 7, 8 and 43."""

import contextlib
import socket
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client.parser import text_string_to_metric_families

from insitu.core.transport import BACKOFF
from tests.end_to_end.serving import serving
from tests.servers import free_port, until

ROUNDS, REQUESTS = 5, 150
TRACES_ALONE = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
EAGER = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
"""Milliseconds between exports, so that a short test has many of them."""


@contextlib.contextmanager
def refusing():
    """An address where nobody listens."""
    yield f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def mute():
    """An address that takes connections, and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def p99(client):
    """Of a round of requests, in milliseconds."""
    taken = []
    for _ in range(REQUESTS):
        begin = time.perf_counter()
        assert client.get("/items/3").status_code == 200
        taken.append(time.perf_counter() - begin)
    return statistics.quantiles(taken, n=100)[98] * 1000


def ended(application):
    """Seconds from SIGTERM to the end of the process."""
    begin = time.monotonic()
    application.process.terminate()
    application.process.wait(30)
    assert "Traceback" not in application.log.read_text()
    return time.monotonic() - begin


@pytest.mark.parametrize(("collector", "exit_within"), [(refusing, 2.0), (mute, 5.0)])
def test_requests_and_the_exit_do_not_wait_for_a_collector_that_is(collector, exit_within, tmp_path):
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(collector())
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, **EAGER}
        told = [stack.enter_context(serving(tmp_path, **environ)) for environ in ({}, exporting)]
        clients = [stack.enter_context(httpx.Client(base_url=application.url)) for application in told]
        for client in clients:
            p99(client)
        rounds = [[p99(client) for client in clients] for _ in range(ROUNDS)]
        without, down = map(min, zip(*rounds, strict=True))  # of rounds in turns: a neighbour's load is in neither
        assert ['queue="otlp"' in application.metrics() for application in told] == [False, True]
        exits = [ended(application) for application in told]
    ratio = down / without
    print(f"\np99 {without:.2f} ms without, {down:.2f} ms with a collector that is {collector.__name__}: {ratio:.2f}")
    print(f"exit after {exits[0]:.2f} s without, {exits[1]:.2f} s with it")
    assert ratio <= 1.5
    assert exits[1] <= exit_within


class Collector:
    """An OTLP receiver that gives the answers of a script, then says yes; ``seen``: when, and how many spans."""

    def __init__(self, *answers):
        collector, script = self, list(answers)
        self.seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                spans = sum(len(scope.spans) for whole in request.resource_spans for scope in whole.scope_spans)
                collector.seen.append((time.monotonic(), spans))
                status, headers, content = script.pop(0) if script else (200, {}, b"")
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def waits(self):
        """Seconds between the requests."""
        return [after - before for (before, _), (after, _) in zip(self.seen, self.seen[1:], strict=False)]


@pytest.fixture(name="exporting")
def _exporting(tmp_path):
    """Starts the application with a collector that follows a script; gives both, and a client."""
    with contextlib.ExitStack() as stack:

        def start(*answers):
            collector = stack.enter_context(Collector(*answers))
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "INSITU_EXCLUDE": "/flush"}
            application = stack.enter_context(serving(tmp_path, **environ, **TRACES_ALONE, **EAGER))
            return collector, application, stack.enter_context(httpx.Client(base_url=application.url, timeout=10))

        yield start


def request_and_flush(client):
    """Sends one request, and says what `insitu.flush` answers after it."""
    assert client.get("/items/3").status_code == 200
    return client.get("/flush").json()


def dropped(application):
    """The spans that were lost, by reason."""
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(application.metrics())
        for sample in family.samples
        if sample.name == "insitu_dropped_records_total" and sample.labels.get("exporter") == "otlp"
    }


def warnings(application):
    return [line for line in application.log.read_text().splitlines() if "OTLP receiver" in line]


@pytest.mark.parametrize("status", [429, 503])
def test_the_collectors_retry_after_is_waited_for(exporting, status):
    collector, application, client = exporting((status, {"Retry-After": "1"}, b""))
    assert request_and_flush(client) is True
    assert [spans for _, spans in collector.seen] == [1, 1]
    (wait,) = collector.waits
    print(f"\nwaited {wait:.2f} s after {status} with Retry-After: 1")
    assert 1.0 <= wait <= 1.6
    assert dropped(application) == {}


def test_a_collector_that_is_unavailable_is_asked_again_with_growing_pauses(exporting):
    collector, application, client = exporting(*[(503, {}, b"")] * 2)
    assert request_and_flush(client) is True
    print("\npauses", collector.waits)
    assert [spans for _, spans in collector.seen] == [1, 1, 1]
    assert all(wait <= BACKOFF * 2**attempt + 0.5 for attempt, wait in enumerate(collector.waits))
    assert dropped(application) == {}


def test_what_the_collector_refuses_is_not_sent_again_and_is_counted(exporting):
    collector, application, client = exporting((400, {}, b""))
    assert request_and_flush(client) is False
    assert dropped(application) == {"refused": 1}
    assert request_and_flush(client) is True
    assert [spans for _, spans in collector.seen] == [1, 1]
    (warning,) = warnings(application)
    assert "took none of 1 items (HTTP 400 Bad Request)" in warning


def test_what_a_partial_success_rejects_is_counted_and_logged_once(exporting):
    rejected = ExportTracePartialSuccess(rejected_spans=1, error_message="too old")
    partial = ExportTraceServiceResponse(partial_success=rejected).SerializeToString()
    collector, application, client = exporting(*[(200, {}, partial)] * 2)
    assert [request_and_flush(client) for _ in range(3)] == [False, False, True]
    assert dropped(application) == {"partial": 2}
    assert [spans for _, spans in collector.seen] == [1, 1, 1]
    (warning,) = warnings(application)
    assert warning.endswith("refused 1 of 1 items: too old")


def test_the_exit_does_not_wait_for_a_retry_after(exporting):
    collector, application, client = exporting((429, {"Retry-After": "8"}, b""))
    assert client.get("/items/3").status_code == 200
    until(lambda: collector.seen, what="the first export")
    seconds = ended(application)
    print(f"\nexit after {seconds:.2f} s")
    assert seconds <= 5
    assert len(collector.seen) == 1
