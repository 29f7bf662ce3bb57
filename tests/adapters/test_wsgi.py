"""A bare WSGI callable, over its own interface and over real servers."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import wsgiref.simple_server
from io import BytesIO
from pathlib import Path
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import httpx
import pytest
from opentelemetry import baggage

import insitu
from insitu.contracts import work
from insitu.testing import FakeClock, recording
from tests.adapters.serving import counted
from tests.servers import free_port, get, until

ROOT = Path(__file__).parents[2]


def environment(path="/", **more):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **more,
    }


def call(app, environ):
    """What came: the arguments of start_response, what was written, and the pieces of the body."""
    started, written = [], []
    body = app(environ, lambda *given: started.append(given) or written.append)
    try:
        return started, written, list(body)
    finally:
        getattr(body, "close", list)()


def bare(environ, start_response):
    start_response(
        "404 Not Found" if environ["PATH_INFO"] == "/metrics" else "200 OK", [("content-type", "text/plain")]
    )
    return [b"ok"]


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def test_what_is_returned_is_passed_on_and_a_whole_body_is_untouched(recorded):
    pieces = [b"o", b"k"]

    def app(environ, start_response):
        start_response("201 Created", [("x", "y")])
        return pieces

    body = insitu.instrument(app)(environment(), lambda *given: None)
    assert body is pieces
    assert recorded.span("GET").attributes["http.response.status_code"] == 201
    assert counted(recorded, "http.server.response.body.size") == 1


def test_the_middleware_keeps_the_rules_of_wsgi(recorded):
    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return iter([b"ok"])

    app = validator(insitu.instrument(validator(app)))
    _, _, pieces = call(app, environment("/a", QUERY_STRING="b=1"))
    assert b"".join(pieces) == b"ok"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, ("shop", 80)),
        ({"HTTP_HOST": "shop.example"}, ("shop.example", 80)),
        ({"SERVER_NAME": ""}, (None, None)),
    ],
)
def test_where_a_request_went_is_what_the_client_says_else_what_the_server_does(recorded, more, told):
    call(insitu.instrument(bare), environment(**more))
    attributes = recorded.span("GET").attributes
    assert (attributes.get("server.address"), attributes.get("server.port")) == told


def test_the_facts_of_the_request_are_those_of_the_conventions(recorded):
    environ = environment(
        "/caf\xc3\xa9",
        SCRIPT_NAME="/shop",
        QUERY_STRING="q=\xc3\xa9",
        HTTP_HOST="shop.example:8000",
        HTTP_USER_AGENT="visitor/1",
        REMOTE_ADDR="192.0.2.1",
        REMOTE_PORT="4711",
        CONTENT_LENGTH="12",
    )
    call(insitu.instrument(bare), environ)
    assert recorded.span("GET").attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/shop/café",
        "url.query": "q=é",
        "server.address": "shop.example",
        "server.port": 8000,
        "client.address": "192.0.2.1",
        "client.port": 4711,
        "network.peer.address": "192.0.2.1",
        "network.peer.port": 4711,
        "network.protocol.version": "1.1",
        "user_agent.original": "visitor/1",
        "http.response.status_code": 200,
    }
    assert counted(recorded, "http.server.request.body.size") == 1


@pytest.mark.parametrize("length", ["", "x", "-1", "9" * 30, "²"])
def test_a_content_length_that_is_no_number_is_not_counted_and_hurts_nobody(recorded, length):
    assert call(insitu.instrument(bare), environment(CONTENT_LENGTH=length))[2] == [b"ok"]
    assert counted(recorded, "http.server.request.body.size") == 0


def test_what_an_old_application_writes_is_counted(recorded):
    def app(environ, start_response):
        start_response("200 OK", [])(b"written")
        return [b"returned"]

    _, written, pieces = call(insitu.instrument(app), environment())
    assert (written, pieces) == ([b"written"], [b"returned"])
    assert recorded.spans[0].response_size == 15


def test_a_file_goes_to_the_server_as_it_is(recorded):
    file = FileWrapper(BytesIO(b"12345"))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return file

    assert insitu.instrument(app)(environment(**{"wsgi.file_wrapper": FileWrapper}), lambda *_: None) is file
    assert recorded.spans[0].response_size == 5


def test_an_application_that_starts_late_has_its_status(recorded):
    def app(environ, start_response):
        start_response("503 Service Unavailable", [])
        yield b"later"

    call(insitu.instrument(app), environment())
    (span,) = recorded.spans
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (503, "503")


def test_a_body_that_fails_in_the_middle_is_the_requests_error(recorded):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        raise LookupError("half")

    with pytest.raises(LookupError, match="half"):
        call(insitu.instrument(app), environment())
    (span,), (error,) = recorded.spans, recorded.errors
    assert (span.attributes["error.type"], error.span_id) == ("LookupError", span.span_id)


def test_a_body_that_fails_at_its_close_reaches_the_server(recorded):
    class Body:
        def __iter__(self):
            return iter([b"a"])

        def close(self):
            raise OSError("close")

    with pytest.raises(OSError, match="close"):
        call(insitu.instrument(lambda _, start: (start("200 OK", []), Body())[1]), environment())
    assert len(recorded.spans) == 1


def test_the_end_of_the_process_passes_through(recorded):
    def app(environ, start_response):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        insitu.instrument(app)(environment(), None)
    assert len(recorded.spans) == 1
    assert recorded.errors == []


def test_an_answer_that_replaces_another_has_the_last_status(recorded):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())
        return [b""]

    started, _, _ = call(insitu.instrument(app), environment())
    assert (started[1][0], started[1][2][0]) == ("500 Oops", LookupError)
    assert recorded.spans[0].response_status == 500


def test_the_trace_id_goes_out_in_the_header_that_was_asked_for():
    with recording(trace_header="X-Trace-Id") as recorded:
        started, _, _ = call(insitu.instrument(bare), environment())
        (span,) = recorded.spans
        assert ("X-Trace-Id", f"{span.trace.trace_id:032x}") in started[0][1]


def test_baggage_and_the_callers_request_id_are_there_and_gone_afterwards(recorded):
    seen = []

    def app(environ, start_response):
        start_response("200 OK", [])
        seen.append(baggage.get_baggage("tier"))
        insitu.log.info("seen")
        yield str(baggage.get_baggage("tier")).encode()

    environ = environment(HTTP_BAGGAGE="tier=gold", HTTP_X_REQUEST_ID="r-1")
    assert call(insitu.instrument(app), environ)[2] == [b"gold"]
    assert (seen, baggage.get_all()) == (["gold"], {})
    assert recorded.logs[0].attributes["request.id"] == "r-1"


def test_the_span_ends_with_the_body_and_not_when_the_application_returns():
    clock = FakeClock()

    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(2):
            clock.advance(1)
            yield b"x"

    with recording(clock=clock) as recorded:
        call(insitu.instrument(app), environment())
        (span,) = recorded.spans
        assert span.end_time - span.start_time == 2_000_000_000


def test_an_application_that_has_its_own_metrics_keeps_them(recorded):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"mine"

    assert call(insitu.instrument(app), environment("/metrics"))[2] == [b"mine"]


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", "200 OK"), ("192.0.2.1", "401 Unauthorized"), ("", "401 Unauthorized")]
)
def test_who_may_read_the_metrics(recorded, peer, status):
    started, _, pieces = call(insitu.instrument(bare), environment("/metrics", REMOTE_ADDR=peer, HTTP_HOST="127.0.0.1"))
    assert started[0][0] == status
    assert dict(started[0][1])["content-length"] == str(len(pieces[0]))


def test_a_head_has_no_body(recorded):
    started, _, pieces = call(
        insitu.instrument(bare),
        environment("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_HOST="127.0.0.1", REQUEST_METHOD="HEAD"),
    )
    assert (pieces, int(dict(started[0][1])["content-length"]) > 100) == ([b""], True)


def test_the_ledger_holds_what_is_done_around_the_application_and_not_the_application():
    clock = FakeClock(tick=1_000)

    def app(environ, start_response):
        clock.advance(0.00005)
        start_response("200 OK", [])
        return iter([b"ok"])

    with recording(clock=clock) as recorded:
        wrapped = insitu.instrument(app)
        for _ in range(200):
            call(wrapped, environment())
        spent = recorded.runtime.meter.seconds()["request"] / 200
        assert 1e-6 < spent < 2e-5


@contextlib.contextmanager
def served(app):
    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_):
            pass

    with wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def streaming(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return bare(environ, start_response)
    insitu.log.info("served")
    start_response("200 OK", [("content-type", "text/plain")])
    return work.stream()


def test_over_a_real_socket_everything_arrives(recorded):
    with served(insitu.instrument(streaming)) as url:
        assert get(f"{url}/a") == b"".join(work.stream())
        assert b"http_server_request_duration_seconds_count" in get(f"{url}/metrics")
    (span,) = [span for span in recorded.spans if span.name == "GET"]
    assert span.attributes["client.address"] == "127.0.0.1"
    assert sum(piece.parent_id == span.span_id for piece in recorded.spans) == 3


GUNICORN = """
import insitu
from tests.adapters.test_wsgi import streaming

insitu.init(service="shop", libraries=())
app = insitu.instrument(streaming)
"""


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_gunicorn_that_is_told_to_end_has_delivered_every_request(tmp_path, kind):
    """FAULTS 13, 14."""
    (tmp_path / "served.py").write_text(GUNICORN)
    lines, port = tmp_path / "lines", free_port()
    command = [sys.executable, "-m", "gunicorn", "served:app", f"--bind=127.0.0.1:{port}", f"--worker-class={kind}"]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
        "INSITU_STORE": "none",
        "INSITU_LOG_OUTPUT": str(lines),
    }
    command += ["--threads=4", "--log-level=warning"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            until(lambda: answers(port), what="gunicorn")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                for _ in range(50):
                    assert client.get("/a").status_code == 200
        finally:
            server.send_signal(signal.SIGTERM)
            _, complaints = server.communicate(timeout=20)
    assert (server.returncode, complaints) == (0, "")
    assert sum("served" in line for line in lines.read_text().splitlines()) >= 51


def answers(port):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/a").status_code == 200
    return False
