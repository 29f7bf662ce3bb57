"""Secrets planted at every door of insitu do not come out at any exit: OTLP, JSON lines, console, /metrics."""

import asyncio
import contextlib
import gzip
import http.server
import io
import logging
import threading
from urllib.parse import quote, quote_plus

import pytest
from opentelemetry import baggage, context
from opentelemetry import trace as otel_trace

import insitu
from insitu.core import guard
from insitu.testing import recording
from tests.core.test_redact import BY_KEY, IN_TEXT, SECRET

PLANTED = {name: (shape.format(secret), secret) for name, (shape, secret) in IN_TEXT.items()}
BY_NAME = {key: f"{SECRET}{number}" for number, key in enumerate(BY_KEY)}


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(
            (self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
        )
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(name="receiver")
def _receiver():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Refused(Exception):
    pass


def plant(text):
    """One secret through every door but metric labels, under names that tell nothing."""
    tracer = otel_trace.get_tracer("shop")
    with insitu.span(f"span {text}", note=text, notes=[text, {"inner": text}], raw=text.encode()) as span:
        span.add_event(f"event {text}", {"note": text})
        span.update_name(f"renamed {text}")
        link = otel_trace.SpanContext(1, 2, is_remote=True)
        span.add_link(link, {"note": text})
        insitu.bind(hint=text)
        insitu.log.info(text, note=text)
        logging.getLogger("shop").warning("said %s", text, extra={"note": text})
        insitu.message(text, note=text)
        with contextlib.suppress(Refused), tracer.start_as_current_span(f"inner {text}", attributes={"note": text}):
            raise Refused(text) from ValueError(text)
        insitu.capture(ExceptionGroup(text, [ValueError(text)]), note=text)
        with tracer.start_as_current_span("statused") as statused:
            statused.set_status(otel_trace.StatusCode.ERROR, text)
    insitu.capture(Refused(text), note=text)
    try:
        raise Refused(text)
    except Refused:
        logging.getLogger("shop").exception(text)


def plant_by_name(name, value):
    """One secret under its telling name."""
    fields = {name: value}
    with insitu.span("named", **fields) as span:
        span.add_event("event", fields)
        insitu.bind(**fields)
        insitu.log.info("named", **fields)
        logging.getLogger("shop").warning("named", extra=fields)
        insitu.capture(Refused("named"), **fields)
        token = context.attach(baggage.set_baggage(name, value))
        insitu.log.info("with baggage")
        context.detach(token)


def requests_with_secrets():
    """Requests whose URL, header or failure holds a secret."""

    async def shop(scope, receive, send):
        if scope["path"] == "/fails":
            raise Refused(scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = insitu.instrument(shop)

    async def ask(path, query, header):
        async def send(message):
            pass

        headers = [(b"host", b"127.0.0.1"), (b"authorization", header), (b"cookie", header), (b"user-agent", header)]
        headers.append((b"baggage", b"token=" + quote(header).encode()))
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": headers}
        await app(scope, None, send)

    async def all_of_them():
        for text, secret in PLANTED.values():
            for path in ("/works", "/fails"):
                with contextlib.suppress(Refused):
                    await ask(path, f"q={text}".encode(), text.encode())
                for query in (f"page=1&token={quote_plus(secret)}", f"%74oken={quote_plus(secret)}"):
                    await ask("/works", query.encode(), text.encode())

    asyncio.run(all_of_them())


def around(data, found):
    at = data.index(found)
    return data[max(0, at - 60) : at + len(found) + 10]


def leaks(exits, secrets):
    """Names of exits with the secrets found there, in any of the forms that a format gives them."""
    found = []
    for name, data in exits.items():
        for secret in secrets:
            forms = {secret, secret.replace("\n", "\\n"), secret.replace('"', '\\"'), quote_plus(secret), quote(secret)}
            found += [(name, form, around(data, form.encode())) for form in forms if form.encode() in data]
    return found


def test_no_planted_secret_reaches_an_exit(receiver, tmp_path, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        "OTEL_RESOURCE_ATTRIBUTES": f"db.password={SECRET},dsn=postgres://app:{SECRET}@db/shop",
    }
    options = {"exporters": ("otlp", "console"), "log_output": str(tmp_path / "lines")}
    with recording(environ=environ, **options) as recorded:
        for text, _ in PLANTED.values():
            plant(text)
        for name, value in BY_NAME.items():
            plant_by_name(name, value)
        requests_with_secrets()
        recorded.runtime.pipeline.drain(30)
        insitu.flush(timeout=2)
        page = b"".join(
            recorded.runtime.api()._pages["/metrics"](accept)[1] for accept in ("", "application/openmetrics-text")
        )
        spans, logs = len(recorded.spans), len(recorded.logs)
    exits = {
        "otlp": b"".join(body for _, body in receiver.seen),
        "json lines": (tmp_path / "lines").read_bytes(),
        "console": out.getvalue().encode(),
        "/metrics": page,
    }
    print({name: len(data) for name, data in exits.items()}, f"{spans} spans, {logs} log records")
    assert {path for path, _ in receiver.seen} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert all(len(data) > 10_000 for data in exits.values())
    assert b"[redacted]" in exits["otlp"]
    assert b"renamed" in exits["otlp"]
    assert b"renamed" in exits["console"]
    assert leaks(exits, [secret for _, secret in PLANTED.values()] + list(BY_NAME.values())) == []
    assert len(PLANTED) >= 40


def test_a_secret_in_a_metric_label_does_not_reach_metrics():
    guard._last_logged.clear()
    calls = insitu.counter("calls_of_test", labels=("api_key", "note"))
    with recording() as recorded:
        for text, secret in PLANTED.values():
            calls.add(1, api_key=secret, note=text)
        page = recorded.runtime.api()._pages["/metrics"]("")[1]
        assert sum(point.value for point in recorded.family("calls_of_test").points) == len(PLANTED)
    assert leaks({"/metrics": page}, [secret for _, secret in PLANTED.values()]) == []
