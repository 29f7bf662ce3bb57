"""httpx against a real server."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, context
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

import insitu
from insitu import runtime
from insitu.adapters import httpx as adapter
from insitu.testing import recording
from tests.adapters.serving import call, counted, plain_transports
from tests.servers import free_port


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got; /hop/3 leads there over three redirects."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        hops = int(self.path.partition("/hop/")[2] or 0)
        code = 302 if hops else int(self.path.partition("/status/")[2] or 200)
        content = b"" if self.command == "POST" else json.dumps(self.server.seen[-1][1]).encode()
        self.send_response(code)
        if hops:
            self.send_header("location", f"/hop/{hops - 1}" if hops > 1 else "/end")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_HEAD = do_GET

    def log_message(self, *arguments):
        """Stay silent."""


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(running):
    running.seen = []
    running.url = f"http://127.0.0.1:{running.server_port}"
    return running


@pytest.fixture
def transports(monkeypatch):
    plain_transports(monkeypatch)
    return monkeypatch


@pytest.fixture
def recorded(transports):
    with recording() as started:
        adapter.hook(httpx)
        yield started


def fetch(url, kind="sync", method="GET", **more):
    if kind == "sync":
        with httpx.Client(trust_env=False, **more) as client:
            return client.request(method, url)

    async def run():
        async with httpx.AsyncClient(trust_env=False, **more) as client:
            return await client.request(method, url)

    return asyncio.run(run())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_a_call_is_a_client_span_below_the_current_one_and_counted(recorded, server, kind):
    with insitu.span("work"):
        response = fetch(f"{server.url}/a?x=1", kind)
    call_span, work = recorded.span("GET"), recorded.span("work")
    assert (call_span.kind.name, call_span.parent_id) == ("CLIENT", work.span_id)
    assert call_span.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": server.server_port,
        "url.full": f"{server.url}/a?x=1",
        "http.response.status_code": 200,
    }
    sent = response.json()
    assert sent["traceparent"] == f"00-{work.trace.trace_id:032x}-{call_span.span_id:016x}-03"
    assert counted(recorded, "http.client.request.duration", http_response_status_code=200) == 1
    assert recorded.point("http.client.request.duration").labels == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": server.server_port,
        "http.response.status_code": 200,
    }


@both
def test_baggage_travels_along(recorded, server, kind):
    token = context.attach(baggage.set_baggage("tier", "gold class"))
    try:
        assert fetch(server.url, kind).json()["baggage"] == "tier=gold%20class"
    finally:
        context.detach(token)


@both
def test_each_hop_of_a_redirect_is_a_call_of_its_own(recorded, server, kind):
    with insitu.span("work"):
        fetch(f"{server.url}/hop/2", kind, follow_redirects=True)
    calls = [span for span in recorded.spans if span.name == "GET"]
    assert [span.attributes["http.response.status_code"] for span in calls] == [302, 302, 200]
    assert [headers["traceparent"].split("-")[2] for _, headers in server.seen] == [
        f"{span.span_id:016x}" for span in calls
    ]
    assert {span.parent_id for span in calls} == {recorded.span("work").span_id}


@both
@pytest.mark.parametrize("code", [404, 503])
def test_an_error_status_marks_the_span(recorded, server, kind, code):
    assert fetch(f"{server.url}/status/{code}", kind).status_code == code
    (span,) = recorded.spans
    assert (span.attributes["error.type"], span.status_code) == (str(code), 2)
    assert counted(recorded, "http.client.request.duration", error_type=str(code)) == 1
    assert recorded.errors == []


@both
def test_an_exception_is_the_applications_own_and_marks_the_span(recorded, kind):
    port = free_port()
    with pytest.raises(httpx.ConnectError), insitu.span("work"):
        fetch(f"http://127.0.0.1:{port}/", kind)
    span = recorded.span("GET")
    assert (span.attributes["error.type"], span.status_code) == ("httpx.ConnectError", 2)
    assert [event.name for event in span.events] == ["exception"]
    assert counted(recorded, "http.client.request.duration", error_type="httpx.ConnectError") == 1
    assert [error.type for error in recorded.errors] == ["httpx.ConnectError"]  # once, though two spans saw it


def test_a_cancelled_call_is_nobodys_error(recorded):
    async def run():
        asked = asyncio.Event()

        async def never(reader, writer):
            await reader.readline()
            asked.set()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(never, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            async with httpx.AsyncClient(trust_env=False) as client:
                task = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
                await asked.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    asyncio.run(run())
    (span,) = recorded.spans
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])
    assert counted(recorded, "http.client.request.duration") == 1
    assert "error.type" not in recorded.point("http.client.request.duration").labels


def test_a_password_in_the_url_stays_here(recorded, server):
    fetch(f"http://me:secret@127.0.0.1:{server.server_port}/a")
    assert recorded.spans[0].attributes["url.full"] == f"{server.url}/a"
    assert server.seen[0][1]["authorization"].startswith("Basic ")


def test_methods_keep_their_names(recorded, server):
    for method in ("POST", "HEAD"):
        fetch(server.url, method=method)
    assert [span.name for span in recorded.spans] == ["POST", "HEAD"]


def test_a_trace_that_is_not_sampled_travels_as_such_and_leaves_no_span(server, transports):
    with recording(sample=0) as recorded:
        adapter.hook(httpx)
        with insitu.span("work"):
            assert fetch(server.url).json()["traceparent"].endswith("-02")
        assert recorded.spans == []


def test_after_shutdown_calls_are_untouched(server, transports):
    with recording():
        adapter.hook(httpx)
        insitu.shutdown()
        assert "traceparent" not in fetch(server.url).json()


def test_a_call_inside_a_request_of_fastapi_is_a_child_of_our_server_span(recorded, server):
    app = FastAPI()

    @app.get("/proxy")
    async def proxy():
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(server.url)).json()["traceparent"]

    asyncio.run(call(runtime.current().instrument(app), "/proxy"))
    request, call_span = recorded.span("GET /proxy"), recorded.span("GET")
    assert call_span.parent_id == request.span_id
    assert server.seen[0][1]["traceparent"].split("-")[1:3] == [
        f"{request.trace.trace_id:032x}",
        f"{call_span.span_id:016x}",
    ]


@both
@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_of_httpx_replaces_ours(transports, server, kind, order):
    instrumentor = HTTPXClientInstrumentor()
    switches = [instrumentor.instrument, lambda: adapter.hook(httpx)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            with insitu.span("work"):
                fetch(server.url, kind)
        finally:
            transports.undo()
            instrumentor.uninstrument()
        clients = [span for span in recorded.spans if span.kind.name == "CLIENT"]
        assert [span.scope.name for span in clients] == ["opentelemetry.instrumentation.httpx"]
        assert clients[0].parent_id == recorded.span("work").span_id
        assert server.seen[0][1]["traceparent"].split("-")[2] == f"{clients[0].span_id:016x}"


def test_opentelemetrys_httpx_span_inside_a_request_is_a_child_of_our_server_span(recorded, server):
    app = FastAPI()

    @app.get("/proxy")
    async def proxy():
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(server.url)

    HTTPXClientInstrumentor().instrument()
    try:
        asyncio.run(call(runtime.current().instrument(app), "/proxy"))
    finally:
        HTTPXClientInstrumentor().uninstrument()
    outgoing, request = recorded.spans
    assert (outgoing.scope.name, request.name) == ("opentelemetry.instrumentation.httpx", "GET /proxy")
    assert outgoing.parent_id == request.span_id


def test_one_client_that_opentelemetry_instruments_is_traced_once_and_others_by_us(recorded, server):
    with httpx.Client(trust_env=False) as theirs, httpx.Client(trust_env=False) as ours:
        HTTPXClientInstrumentor.instrument_client(theirs)
        theirs.get(server.url)
        ours.get(server.url)
        HTTPXClientInstrumentor.uninstrument_client(theirs)
    assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.httpx", "insitu.httpx"]


# -- our own export (FAULTS 32)


EXPORT = """
import json, sys
import httpx
import insitu
from insitu.adapters import libraries

wanted = json.loads(sys.argv[1])
insitu.init(service="export", exporters=("otlp",), libraries=["httpx", *wanted])
with insitu.span("the one"):
    pass
for _ in range(3):
    assert insitu.flush(5)
insitu.shutdown()
print(json.dumps({name: found.state for name, found in libraries.found.items()}))
"""


@pytest.mark.parametrize("wanted", [["urllib3"], ["requests"], ["urllib3", "requests", "aiohttp-client"], []], ids=str)
def test_our_own_export_is_not_traced(running, wanted):
    for name in wanted:
        pytest.importorskip(f"opentelemetry.instrumentation.{name.replace('-', '_')}")
    running.seen = []
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{running.server_port}",
    }
    command = [sys.executable, "-c", EXPORT, json.dumps(wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, "instrumented")
    traces = [path for path, _ in running.seen if path == "/v1/traces"]
    print(f"{len(traces)} request for 1 span, with {wanted}")
    assert len(traces) == 1
    assert all("traceparent" not in headers for _, headers in running.seen)
