"""The servers that other tests rely on do start, take what they are sent, and give it back."""

import http.server
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers import DatadogAgent, backend, get_json, until

pytestmark = pytest.mark.backend


@pytest.fixture
def page() -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"# HELP apples_total Apples.\n# TYPE apples_total counter\napples_total 42\n"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prometheus_scrapes_what_it_is_told_to(prometheus: Callable[..., str], page: str) -> None:
    url = prometheus(page)
    result = until(lambda: get_json(f"{url}/api/v1/query", query="apples_total")["data"]["result"], what="apples_total")
    assert [series["value"][1] for series in result] == ["42"]


def test_promtool_tells_a_good_page_from_a_bad_one(promtool: Path) -> None:
    good = "# HELP apples_total Apples.\n# TYPE apples_total counter\napples_total 42\n"
    assert subprocess.run([promtool, "check", "metrics"], input=good, text=True, check=False).returncode == 0
    assert subprocess.run([promtool, "check", "metrics"], input="apples{ 42\n", text=True, check=False).returncode != 0


def test_the_agent_gives_back_the_span_it_was_sent(ddapm_agent: DatadogAgent) -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = "buy", b"t" * 16, b"s" * 8
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    request = urllib.request.Request(
        f"{ddapm_agent.otlp}/v1/traces",
        data=message.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    urllib.request.urlopen(request, timeout=5).close()
    (received,) = until(lambda: ddapm_agent.received("traces"), what="the trace")
    assert received["resource_spans"][0]["scope_spans"][0]["spans"][0]["name"] == "buy"


def test_chromium_runs_the_script_of_a_page(tmp_path: Path) -> None:
    page = "data:text/html,<h1>hello</h1><script>document.title = document.querySelector('h1').innerText + '!'</script>"
    options = ["--headless", "--no-sandbox", f"--user-data-dir={tmp_path}", "--dump-dom"]
    done = subprocess.run([backend("chromium"), *options, page], capture_output=True, text=True, check=True, timeout=60)
    assert "<title>hello!</title>" in done.stdout


def test_redis_gives_back_what_it_was_told_to_keep(redis_port: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", redis_port), timeout=5) as connection,
        connection.makefile("rb") as said,
    ):
        connection.sendall(b"SET fruit apple\r\nGET fruit\r\n")
        assert [said.readline() for _ in range(3)] == [b"+OK\r\n", b"$5\r\n", b"apple\r\n"]
