"""httpx, and httpx2, against a real server."""

import asyncio
import os
import subprocess
import sys

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, context
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor

import insitu
from insitu import runtime
from insitu.adapters.libraries import HOOKS
from insitu.testing import recording
from tests.adapters.serving import call, counted, plain_transports
from tests.servers import free_port

INSTRUMENTORS = {httpx: HTTPXClientInstrumentor, httpx2: HTTPX2ClientInstrumentor}


@pytest.fixture(params=INSTRUMENTORS, ids=lambda module: module.__name__)
def library(request):
    return request.param


@pytest.fixture
def transports(library, monkeypatch):
    plain_transports(monkeypatch, library)
    return monkeypatch


@pytest.fixture
def recorded(library, transports):
    with recording() as started:
        hook(library)
        yield started


@pytest.fixture
def fetch(library):
    def request(url, kind="sync", method="GET", **more):
        if kind == "sync":
            with library.Client(trust_env=False, **more) as client:
                return client.request(method, url)

        async def run():
            async with library.AsyncClient(trust_env=False, **more) as client:
                return await client.request(method, url)

        return asyncio.run(run())

    return request


def hook(library):
    HOOKS[library.__name__](library)


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_a_call_is_a_client_span_below_the_current_one_and_counted(recorded, fetch, echo, kind):
    with insitu.span("work"):
        response = fetch(f"{echo.url}/a?x=1", kind)
    call_span, work = recorded.span("GET"), recorded.span("work")
    assert (call_span.kind.name, call_span.parent_id) == ("CLIENT", work.span_id)
    assert call_span.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "url.full": f"{echo.url}/a?x=1",
        "http.response.status_code": 200,
    }
    sent = response.json()
    assert sent["traceparent"] == f"00-{work.trace.trace_id:032x}-{call_span.span_id:016x}-03"
    assert counted(recorded, "http.client.request.duration", http_response_status_code=200) == 1
    assert recorded.point("http.client.request.duration").labels == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "http.response.status_code": 200,
    }


@both
def test_baggage_travels_along(recorded, fetch, echo, kind):
    token = context.attach(baggage.set_baggage("tier", "gold class"))
    try:
        assert fetch(echo.url, kind).json()["baggage"] == "tier=gold%20class"
    finally:
        context.detach(token)


@both
def test_each_hop_of_a_redirect_is_a_call_of_its_own(recorded, fetch, echo, kind):
    with insitu.span("work"):
        fetch(f"{echo.url}/hop/2", kind, follow_redirects=True)
    calls = [span for span in recorded.spans if span.name == "GET"]
    assert [span.attributes["http.response.status_code"] for span in calls] == [302, 302, 200]
    assert [headers["traceparent"].split("-")[2] for _, headers in echo.seen] == [
        f"{span.span_id:016x}" for span in calls
    ]
    assert {span.parent_id for span in calls} == {recorded.span("work").span_id}


@both
@pytest.mark.parametrize("code", [404, 503])
def test_an_error_status_marks_the_span(recorded, fetch, echo, kind, code):
    assert fetch(f"{echo.url}/status/{code}", kind).status_code == code
    (span,) = recorded.spans
    assert (span.attributes["error.type"], span.status_code) == (str(code), 2)
    assert counted(recorded, "http.client.request.duration", error_type=str(code)) == 1
    assert recorded.errors == []


@both
def test_an_exception_is_the_applications_own_and_marks_the_span(recorded, library, fetch, kind):
    port = free_port()
    with pytest.raises(library.ConnectError), insitu.span("work"):
        fetch(f"http://127.0.0.1:{port}/", kind)
    span = recorded.span("GET")
    assert (span.attributes["error.type"], span.status_code) == (f"{library.__name__}.ConnectError", 2)
    assert [event.name for event in span.events] == ["exception"]
    assert counted(recorded, "http.client.request.duration", error_type=f"{library.__name__}.ConnectError") == 1
    (error,) = recorded.errors  # once, though two spans saw it
    assert error.type == f"{library.__name__}.ConnectError"


def test_a_cancelled_call_is_nobodys_error(recorded, library, silent):
    port, asked = silent

    async def run():
        async with library.AsyncClient(trust_env=False) as client:
            task = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            assert await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    (span,) = recorded.spans
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])
    assert counted(recorded, "http.client.request.duration") == 1
    assert "error.type" not in recorded.point("http.client.request.duration").labels


def test_a_password_in_the_url_stays_here(recorded, fetch, echo):
    fetch(f"http://me:secret@127.0.0.1:{echo.server_port}/a")
    assert recorded.spans[0].attributes["url.full"] == f"{echo.url}/a"
    assert echo.seen[0][1]["authorization"].startswith("Basic ")


def test_methods_keep_their_names(recorded, fetch, echo):
    for method in ("POST", "HEAD"):
        fetch(echo.url, method=method)
    assert [span.name for span in recorded.spans] == ["POST", "HEAD"]


def test_a_trace_that_is_not_sampled_travels_as_such_and_leaves_a_count_alone(library, fetch, echo, transports):
    with recording(sample=0) as recorded:
        hook(library)
        with insitu.span("work"):
            assert fetch(echo.url).json()["traceparent"].endswith("-02")
        assert recorded.spans == []
        assert counted(recorded, "http.client.request.duration") == 1


def test_after_shutdown_calls_are_untouched(library, fetch, echo, transports):
    with recording():
        hook(library)
        insitu.shutdown()
        assert "traceparent" not in fetch(echo.url).json()


def test_a_call_inside_a_request_of_fastapi_is_a_child_of_our_server_span(recorded, library, echo):
    app = FastAPI()

    @app.get("/proxy")
    async def proxy():
        async with library.AsyncClient(trust_env=False) as client:
            return (await client.get(echo.url)).json()["traceparent"]

    asyncio.run(call(runtime.current().instrument(app), "/proxy"))
    request, call_span = recorded.span("GET /proxy"), recorded.span("GET")
    assert call_span.parent_id == request.span_id
    assert echo.seen[0][1]["traceparent"].split("-")[1:3] == [
        f"{request.trace.trace_id:032x}",
        f"{call_span.span_id:016x}",
    ]


@both
@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_of_httpx_replaces_ours(library, fetch, transports, echo, kind, order):
    instrumentor = INSTRUMENTORS[library]()
    switches = [instrumentor.instrument, lambda: hook(library)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            with insitu.span("work"):
                fetch(echo.url, kind)
        finally:
            transports.undo()
            instrumentor.uninstrument()
        clients = [span for span in recorded.spans if span.kind.name == "CLIENT"]
        assert [span.scope.name for span in clients] == ["opentelemetry.instrumentation.httpx"]
        assert clients[0].parent_id == recorded.span("work").span_id
        assert echo.seen[0][1]["traceparent"].split("-")[2] == f"{clients[0].span_id:016x}"


def test_opentelemetrys_httpx_span_inside_a_request_is_a_child_of_our_server_span(recorded, library, echo):
    app = FastAPI()

    @app.get("/proxy")
    async def proxy():
        async with library.AsyncClient(trust_env=False) as client:
            await client.get(echo.url)

    INSTRUMENTORS[library]().instrument()
    try:
        asyncio.run(call(runtime.current().instrument(app), "/proxy"))
    finally:
        INSTRUMENTORS[library]().uninstrument()
    outgoing, request = recorded.spans
    assert (outgoing.scope.name, request.name) == ("opentelemetry.instrumentation.httpx", "GET /proxy")
    assert outgoing.parent_id == request.span_id


def test_one_client_that_opentelemetry_instruments_is_traced_once_and_others_by_us(recorded, library, echo):
    with library.Client(trust_env=False) as theirs, library.Client(trust_env=False) as ours:
        INSTRUMENTORS[library].instrument_client(theirs)
        theirs.get(echo.url)
        ours.get(echo.url)
        INSTRUMENTORS[library].uninstrument_client(theirs)
    own = f"insitu.{library.__name__}"
    assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.httpx", own]


# -- our own export (FAULTS 32)


EXPORT = """
import sys
from importlib import metadata
import httpx
import insitu

libraries, *theirs = sys.argv[1:]
insitu.init(service="export", exporters=("otlp",), libraries=("httpx", libraries))
for name in theirs:
    (entry,) = metadata.entry_points(group="opentelemetry_instrumentor", name=name)
    entry.load()().instrument()
with insitu.span("the one"):
    pass
for _ in range(3):
    assert insitu.flush(5)
insitu.shutdown()
"""


@pytest.mark.parametrize("libraries", ["auto", "urllib3"])
@pytest.mark.parametrize("theirs", [["urllib3"], ["requests"], ["urllib3", "requests", "aiohttp-client"], []], ids=str)
def test_our_own_export_is_not_traced(echo, libraries, theirs):
    """By our own hooks, nor by OpenTelemetry's instrumentations, which the application has switched on."""
    for name in theirs:
        pytest.importorskip(f"opentelemetry.instrumentation.{name.replace('-', '_')}")
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{echo.server_port}",
    }
    command = [sys.executable, "-c", EXPORT, libraries, *theirs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    traces = [path for path, _ in echo.seen if path == "/v1/traces"]
    print(f"{len(traces)} request for 1 span, with {libraries} and {theirs}")
    assert len(traces) == 1
    assert all("traceparent" not in headers for _, headers in echo.seen)
