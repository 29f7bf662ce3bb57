"""A bare ASGI callable, over its own interface and over real sockets."""

import asyncio
import contextvars
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry import propagate
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import insitu
from insitu import runtime
from insitu.core import guard
from insitu.testing import FakeClock, recording
from tests.adapters.serving import body, call, counted, raw_status, served, status
from tests.servers import free_port, until


async def answer(send, status=200, text=b"ok", headers=()):
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain"), *headers]}
    )
    await send({"type": "http.response.body", "body": text})


async def bare(scope, receive, send):
    """Answers every path, except those that say otherwise."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/boom":
        raise LookupError("boom")
    await answer(send, 404 if path in {"/metrics", "/missing"} else 503 if path == "/late" else 200)


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def wrap(app=bare):
    return runtime.current().instrument(app)


# -- what instrument returns


def test_a_bare_callable_is_returned_wrapped_and_answers_as_before(recorded):
    wrapped = wrap()
    assert wrapped is not bare
    assert asyncio.run(call(wrapped, "/a")) == asyncio.run(call(bare, "/a"))
    assert recorded.span("GET").attributes["url.path"] == "/a"


def test_a_thing_that_is_no_application_is_returned_as_it_is_with_a_warning(recorded, caplog, monkeypatch):
    monkeypatch.setattr(guard, "_last_logged", {})
    thing = object()
    assert insitu.instrument(thing) is thing
    assert "a object is no application" in caplog.text


def test_instrument_starts_insitu_when_nobody_has(monkeypatch):
    monkeypatch.setenv("INSITU_EXPORTERS", "")
    insitu.shutdown()
    try:
        wrapped = insitu.instrument(bare, service="lazy", libraries=())
        assert runtime.current().options.service.name == "lazy"
        assert status(asyncio.run(call(wrapped))) == 200
    finally:
        insitu.shutdown()


def test_after_shutdown_the_wrapped_application_goes_on_unwatched():
    with recording() as recorded:
        wrapped = wrap()
        asyncio.run(call(wrapped))
        assert len(recorded.spans) == 1
    assert status(asyncio.run(call(wrapped))) == 200
    with recording() as again:
        asyncio.run(call(wrapped))
        assert len(again.spans) == 1


# -- one request


def test_a_request_over_a_real_socket_is_one_span_with_the_attributes_of_the_conventions(recorded):
    with served(wrap()) as port:
        host = b"shop.example:8443"
        request = b"POST /a%20b?x=1&y=2 HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: me/1\r\nContent-Length: 3\r\n"
        assert raw_status(port, request + b"Connection: close\r\n\r\nabc") == 200
        until(lambda: recorded.spans)
    (span,) = recorded.spans
    attributes = dict(span.attributes)
    assert attributes.pop("client.port") == attributes.pop("network.peer.port") > 0
    assert attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/a b",
        "url.query": "x=1&y=2",
        "server.address": "shop.example",
        "server.port": 8443,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "me/1",
    }
    assert (span.name, span.kind.name, span.parent_id) == ("POST", "SERVER", 0)
    assert recorded.point("http.server.request.body.size").value == 3
    assert recorded.point("http.server.response.body.size").value == 2
    assert counted(recorded, http_request_method="POST", http_response_status_code=200) == 1


@pytest.mark.parametrize(("method", "expected"), [("HEAD", "HEAD"), ("BREW", "_OTHER"), ("get", "_OTHER")])
def test_a_method_that_nobody_knows_is_other(recorded, method, expected):
    asyncio.run(call(wrap(), method=method))
    (span,) = recorded.spans
    assert span.attributes["http.request.method"] == expected
    assert span.attributes.get("http.request.method_original") == (method if expected == "_OTHER" else None)
    assert span.name == (expected if expected != "_OTHER" else "HTTP")
    assert counted(recorded, http_request_method=expected) == 1


def test_the_trace_id_goes_out_in_the_header_that_was_asked_for():
    with recording(trace_header="X-Trace-Id") as recorded:
        sent = asyncio.run(call(wrap()))
        (span,) = recorded.spans
    assert dict(sent[0]["headers"])[b"x-trace-id"] == b"%032x" % span.trace.trace_id
    assert dict(sent[0]["headers"])[b"content-type"] == b"text/plain"


def test_without_that_wish_no_header_is_added(recorded):
    assert asyncio.run(call(wrap()))[0]["headers"] == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize(
    ("given", "kept"), [(b"abc-1", "abc-1"), (b"\xff\xfe", "\ufffd\ufffd"), (b"a" * 4000, "a" * 128)]
)
def test_a_request_id_of_the_caller_stands_on_every_signal(recorded, given, kept):
    async def app(scope, receive, send):
        insitu.log.info("inside")
        await answer(send)

    asyncio.run(call(wrap(app), headers=[(b"x-request-id", given)]))
    assert recorded.spans[0].attributes["request.id"] == kept
    assert recorded.logs[0].attributes["request.id"] == kept


@pytest.mark.parametrize("length", [b"", b"-1", b"abc", b"1e3", b"9" * 5000, "٣".encode()])
def test_a_content_length_that_is_no_number_is_not_counted_and_hurts_nobody(recorded, length):
    assert status(asyncio.run(call(wrap(), headers=[(b"content-length", length)]))) == 200
    assert len(recorded.spans) == 1
    assert "http.server.request.body.size" not in {family.name for family in recorded.runtime.collect()}


def test_a_scope_with_nothing_but_the_required_keys_is_enough(recorded):
    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2",
            "method": "GET",
            "path": "/",
            "headers": [],
        }
        await wrap()(scope | {"query_string": b""}, None, send)
        return sent

    assert status(asyncio.run(run())) == 200
    assert recorded.span("GET").attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/",
        "http.response.status_code": 200,
        "network.protocol.version": "2",
    }


# -- errors


def test_the_applications_own_exception_reaches_the_server_unchanged(recorded):
    error = LookupError("mine")
    error.__cause__ = ValueError("why")

    async def app(scope, receive, send):
        raise error

    with pytest.raises(LookupError) as caught:
        asyncio.run(call(wrap(app)))
    assert caught.value is error
    assert str(error.__cause__) == "why"
    assert not hasattr(error, "__notes__")
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "LookupError"
    assert [event.name for event in span.events] == ["exception"]
    assert (span.status_code, span.status_text) == (2, "LookupError: mine")
    assert [(found.type, found.handled) for found in recorded.errors] == [("LookupError", False)]
    assert counted(recorded, error_type="LookupError") == 1


def test_an_exception_whose_str_raises_reaches_the_server_too(recorded):
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError("no")

    async def app(scope, receive, send):
        raise Rude

    with pytest.raises(Rude):
        asyncio.run(call(wrap(app)))
    assert recorded.errors[0].message == "<unprintable Rude>"


def test_a_status_of_500_is_an_error_without_an_exception(recorded):
    asyncio.run(call(wrap(), "/late"))
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "503"
    assert (span.status_code, span.events, recorded.errors) == (2, None, [])


def test_an_exception_after_the_response_is_an_error_of_its_own_and_changes_nothing_of_the_span(recorded):
    async def app(scope, receive, send):
        await answer(send)
        raise OSError("too late")

    with pytest.raises(OSError, match="too late"):
        asyncio.run(call(wrap(app)))
    (span,) = recorded.spans
    assert span.status_code == 0
    assert "error.type" not in span.attributes
    (found,) = recorded.errors
    assert (found.type, found.trace_id) == ("OSError", span.trace.trace_id)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_passes_through(recorded, interrupt):
    async def app(scope, receive, send):
        raise interrupt

    async def run():
        with pytest.raises(interrupt):
            await call(wrap(app))

    asyncio.run(run())
    assert len(recorded.spans) == 1
    assert recorded.errors == []


def test_a_cancelled_request_ends_marked_and_is_nobodys_error(recorded):
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    async def run():
        task = asyncio.create_task(call(wrap(app)))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    (span,) = recorded.spans
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, span.events) == (0, None)
    assert "error.type" not in span.attributes
    assert recorded.errors == []
    assert recorded.point("http.server.active_requests").value == 0


# -- when the span ends


def test_the_span_ends_with_the_body_and_not_when_the_application_returns():
    clock = FakeClock()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.advance(1)
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        clock.advance(2)
        await send({"type": "http.response.body", "body": b"de"})
        clock.advance(100)

    with recording(clock=clock) as recorded:
        asyncio.run(call(wrap(app)))
        (span,) = recorded.spans
        assert span.duration == 3_000_000_000
        assert recorded.point("http.server.response.body.size").value == 5
        assert counted(recorded) == 1


def test_what_runs_after_the_body_is_a_child_and_arrives(recorded):
    async def app(scope, receive, send):
        await answer(send)
        with insitu.span("afterwards"):
            insitu.log.info("still here")

    asyncio.run(call(wrap(app)))
    parent, child = recorded.span("GET"), recorded.span("afterwards")
    assert (child.parent_id, child.trace.trace_id) == (parent.span_id, parent.trace.trace_id)
    assert recorded.logs[0].trace_id == parent.trace.trace_id


def test_the_clock_may_be_set_back_inside_a_request():
    clock = FakeClock()

    async def app(scope, receive, send):
        clock.advance(1)
        clock.set_back(3600)
        await answer(send)

    with recording(clock=clock) as recorded:
        asyncio.run(call(wrap(app)))
        assert recorded.spans[0].duration == 1_000_000_000


def test_the_context_of_the_caller_is_as_it_was(recorded):
    mark = contextvars.ContextVar("mark", default="none")

    async def app(scope, receive, send):
        mark.set("inside")
        await answer(send)

    async def run():
        for _ in range(3):
            await call(wrap(app), headers=[(b"baggage", b"a=b")])
            assert insitu.trace_id() == ""
        return mark.get()

    assert asyncio.run(run()) == "inside"  # pure ASGI: the application runs in the server's own context
    assert len({span.trace.trace_id for span in recorded.spans}) == 3


def test_a_hundred_interleaved_requests_do_not_mix(recorded):
    async def app(scope, receive, send):
        user = scope["path"].strip("/")
        insitu.bind(user=user)
        await asyncio.sleep(0)
        with insitu.span("work", mine=user):
            await asyncio.sleep(0.001 * (int(user) % 7))
            insitu.log.info("working", mine=user)
        await answer(send, text=insitu.trace_id().encode())

    async def run():
        wrapped = wrap(app)
        return await asyncio.gather(*(call(wrapped, f"/{number}") for number in range(100)))

    answers = asyncio.run(run())
    assert len(recorded.traces) == 100
    for trace in recorded.traces:
        work, request = trace.spans
        user = request.attributes["url.path"].strip("/")
        assert request.attributes["user.id"] == work.attributes["user.id"] == work.attributes["mine"] == user
        assert work.parent_id == request.span_id
        assert body(answers[int(user)]) == b"%032x" % trace.trace_id
    by_trace = {trace.trace_id: trace.spans[-1].attributes["user.id"] for trace in recorded.traces}
    assert len(recorded.logs) == 100
    assert all(log.attributes["user.id"] == log.attributes["mine"] == by_trace[log.trace_id] for log in recorded.logs)


# -- WebSockets


async def socket_call(app, *incoming):
    messages = [{"type": "websocket.connect"}, *incoming]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/socket",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "websocket.accept"}, 101),
        ({"type": "websocket.close", "code": 1008}, 403),
        ({"type": "websocket.http.response.start", "status": 401, "headers": []}, 401),
    ],
)
def test_a_websocket_is_one_span_with_the_status_of_its_handshake_and_not_in_red(recorded, message, expected):
    async def app(scope, receive, send):
        await receive()
        await send(message)

    sent = asyncio.run(socket_call(wrap(app)))
    assert [each["type"] for each in sent] == [message["type"]]
    (span,) = recorded.spans
    assert (span.name, span.kind.name) == ("WS", "SERVER")
    assert span.attributes["http.response.status_code"] == expected
    assert span.attributes["url.scheme"] == "ws"
    assert counted(recorded) == 0


def test_closing_an_accepted_websocket_leaves_its_status(recorded):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})

    asyncio.run(socket_call(wrap(app)))
    assert recorded.spans[0].attributes["http.response.status_code"] == 101


# -- exclude


EXCLUDED = ("/health", "/items/{id}", "/static/*")


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/health", True),
        ("/healthy", False),
        ("/items/3", True),
        ("/items/3/parts", False),
        ("/items", False),
        ("/static/a/b.css", True),
        ("/staticfile", False),
    ],
)
def test_an_excluded_route_is_out_of_every_signal(path, hidden):
    seen = []

    async def app(scope, receive, send):
        with insitu.span("inside"):
            insitu.log.info("inside")
            insitu.capture(ValueError("inside"))
            seen.append(insitu.trace_id())
        await answer(send, 500)

    with recording(exclude=EXCLUDED) as recorded:
        assert status(asyncio.run(call(wrap(app), path))) == 500
        counts = [len(recorded.spans), len(recorded.logs), len(recorded.errors), counted(recorded)]
        errors = sum(point.value for point in recorded.family("insitu.errors").points)
        assert [*counts, errors] == ([0] * 5 if hidden else [2, 1, 1, 1, 1])
        assert len(seen) == 1


def test_an_excluded_route_that_raises_still_raises():
    with recording(exclude=("/boom",)) as recorded:
        with pytest.raises(LookupError):
            asyncio.run(call(wrap(), "/boom"))
        assert (recorded.spans, recorded.errors) == ([], [])
        asyncio.run(call(wrap(), "/after"))
        assert len(recorded.spans) == 1


# -- trace context (its table stands in test_trace_context.py)


IDS = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = f"00-{IDS}-{PARENT}-01"


def test_a_caller_that_does_not_sample_is_followed_and_its_request_is_counted(recorded):
    outgoing = {}

    async def app(scope, receive, send):
        propagate.inject(outgoing)
        await answer(send)

    asyncio.run(call(wrap(app), headers=[(b"traceparent", f"00-{IDS}-{PARENT}-00".encode())]))
    assert recorded.spans == []
    assert outgoing["traceparent"].split("-")[1::2] == [IDS, "00"]
    assert counted(recorded) == 1


def test_baggage_of_the_caller_is_there_and_goes_on(recorded):
    outgoing = {}

    async def app(scope, receive, send):
        propagate.inject(outgoing)
        await answer(send)

    headers = [(b"baggage", b"user=al%20ice;p=1"), (b"baggage", b"tier=gold, =bad,\xff=1")]
    asyncio.run(call(wrap(app), headers=headers))
    assert outgoing["baggage"] == "user=al%20ice,tier=gold"


# -- hostile input (FAULTS 39)


BAD = b"\xff\xfe\xc0\x80"
HOSTILE = {
    "path": b"GET /a" + BAD + b" HTTP/1.1\r\nHost: a\r\n",
    "percent path": b"GET /%ff%fe%c0%80 HTTP/1.1\r\nHost: a\r\n",
    "surrogate path": b"GET /%ed%a0%80 HTTP/1.1\r\nHost: a\r\n",
    "query": b"GET /?q=" + BAD + b" HTTP/1.1\r\nHost: a\r\n",
    "percent query": b"GET /?q=%ff%00 HTTP/1.1\r\nHost: a\r\n",
    "header": b"GET / HTTP/1.1\r\nHost: a\r\nX-Thing: " + BAD + b"\r\n",
    "request id": b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + BAD + b"\r\n",
    "host": b"GET / HTTP/1.1\r\nHost: " + BAD + b":" + BAD + b"\r\n",
    "user agent": b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + BAD + b"\r\n",
    "baggage": b"GET / HTTP/1.1\r\nHost: a\r\nBaggage: a=" + BAD + b",b=%ff\r\n",
    "tracestate": b"GET / HTTP/1.1\r\nHost: a\r\nTraceparent: " + GOOD.encode() + b"\r\nTracestate: a=" + BAD + b"\r\n",
    "method": b"BREW / HTTP/1.1\r\nHost: a:99999999999999999999\r\n",
}


@pytest.mark.parametrize("server", ["h11", "httptools"])
def test_twelve_hostile_requests_get_the_same_answer_as_without_us_and_leave_only_valid_text(recorded, server):
    if server == "httptools":
        pytest.importorskip("httptools")
    with served(bare, http=server) as plain, served(wrap(), http=server) as watched:
        answers = {}
        for name, head in HOSTILE.items():
            request = head + b"Connection: close\r\n\r\n"
            answers[name] = (raw_status(plain, request), raw_status(watched, request))
        accepted = sum(pair[1] == 200 for pair in answers.values())
        until(lambda: len(recorded.spans) == accepted)
    assert {name: pair for name, pair in answers.items() if pair[0] != pair[1]} == {}
    assert accepted >= 9
    for span in recorded.spans:
        text = json.dumps([span.name, span.attributes], ensure_ascii=False)
        assert text.encode("utf-8").decode("utf-8") == text
    print(f"{server}: {accepted} of {len(HOSTILE)} accepted, all with the status of a plain application")


# -- our own paths on a bare callable


def test_metrics_are_answered_where_the_application_says_404(recorded):
    wrapped = wrap()
    asyncio.run(call(wrapped, "/a"))
    sent = asyncio.run(call(wrapped, "/metrics"))
    assert status(sent) == 200
    assert b"http_server_request_duration_seconds_count" in body(sent)
    assert len(recorded.spans) == 1
    assert counted(recorded) == 1


def test_an_application_that_has_its_own_metrics_keeps_them(recorded):
    async def app(scope, receive, send):
        await answer(send, text=b"mine")

    assert body(asyncio.run(call(wrap(app), "/metrics"))) == b"mine"


def test_a_missing_page_of_the_application_stays_its_own(recorded):
    assert status(asyncio.run(call(wrap(), "/missing"))) == 404


# -- the lifespan


def test_the_end_of_the_lifespan_flushes_before_the_server_hears_of_it(recorded):
    seen = []

    class Sink:
        def accept(self, records):
            seen.extend(records)

    recorded.runtime.pipeline.sinks.append(Sink())
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append((message["type"], len(seen)))

    async def run():
        wrapped = wrap()
        await call(wrapped)
        await wrapped({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert sent == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


class Counting(BaseHTTPRequestHandler):
    """An OTLP receiver that counts the spans that it is sent."""

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            message = ExportTraceServiceRequest.FromString(sent)
            spans = [
                span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans
            ]
            self.server.spans.extend(spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        """Stay silent."""


@pytest.fixture
def collector():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.spans = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


APPLICATION = """
from fastapi import FastAPI
import insitu

app = FastAPI()
insitu.instrument(app, service="sigterm", exporters=("otlp",))

@app.get("/items/{number}")
async def item(number: int):
    return number
"""


def test_uvicorn_ended_by_sigterm_has_delivered_every_span(tmp_path, collector):
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
    environment["OTEL_EXPORTER_OTLP_COMPRESSION"] = "none"
    command = [sys.executable, "-m", "uvicorn", "application:app", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        try:

            def up():
                with httpx.Client(trust_env=False) as probe:
                    try:
                        return probe.get(f"http://127.0.0.1:{port}/items/0").status_code == 200
                    except httpx.ConnectError:
                        assert process.poll() is None, process.stderr.read().decode()

            until(up, 30, "uvicorn")
            with httpx.Client(trust_env=False) as visitor:
                for number in range(1, 600):
                    assert visitor.get(f"http://127.0.0.1:{port}/items/{number}").status_code == 200
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(15)
            took = time.monotonic() - began
            complaints = process.stderr.read().decode()
        finally:
            process.kill()
    servers = [span for span in collector.spans if span.kind == 2]
    print(f"{len(servers)}/600 spans, ended {took:.2f} s after SIGTERM")
    assert len(servers) == 600
    assert {span.name for span in servers} == {"GET /items/{number}"}
    assert took <= 5
    assert "Traceback" not in complaints


def test_nothing_of_a_request_is_kept_once_it_is_over(recorded):
    import gc
    import weakref

    class Heavy(dict):
        pass

    async def run():
        scope = Heavy(type="http", method="GET", path="/", query_string=b"", headers=[], http_version="1.1")
        reference = weakref.ref(scope)

        async def send(message):
            pass

        await wrap()(scope, None, send)
        return reference

    reference = asyncio.run(run())
    gc.collect()
    assert reference() is None


# -- what it costs


def test_the_ledger_holds_what_is_done_before_during_and_after_the_application_and_not_the_application():
    clock = FakeClock(tick=1_000)
    traceparent = (b"traceparent", b"00-" + b"a" * 31 + b"0-" + b"b" * 16 + b"-01")  # one of sixteen is timed

    async def app(scope, receive, send):
        clock.advance(1)
        await answer(send)

    with recording(clock=clock) as recorded:
        asyncio.run(call(wrap(app), headers=[traceparent]))
        spent = recorded.runtime.meter.seconds()["request"]
    # The beginning, each of two messages and the end: at least one tick each.
    assert 16 * 4e-6 <= spent < 16 * 100e-6
