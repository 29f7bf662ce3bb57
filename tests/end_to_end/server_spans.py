"""What one way of watching says of the same requests to the same FastAPI application, as JSON on standard output.

    python -m tests.end_to_end.server_spans insitu
    python -m tests.end_to_end.server_spans opentelemetry

Each runs in a process of its own, since both become what the whole process goes by. A real uvicorn serves.
"""

import contextlib
import json
import sys

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry.trace import SpanKind

from insitu.core.stacktrace import attributes_of
from insitu.testing import recording
from tests.adapters.serving import served
from tests.servers import until

REQUESTS = {
    "found": ("GET", "/items/3", {}),
    "query": ("GET", "/items/3?colour=red&page=2", {}),
    "unmatched": ("GET", "/nothing/here", {}),
    "wrong method": ("DELETE", "/items/3", {}),
    "invalid": ("GET", "/items/three", {}),
    "raises": ("GET", "/raises", {}),
    "unavailable": ("GET", "/unavailable", {}),
    "body": ("POST", "/orders", {"json": {"item": 3}}),
    "streamed": ("GET", "/streamed", {}),
    "head": ("HEAD", "/items/3", {}),
    "unknown method": ("PROPFIND", "/items/3", {}),
}
"""By what is special about it: method, path and what else httpx is told."""

METRICS = ("http.server.request.duration", "http.server.active_requests")


def application():
    """The application, which nobody watches yet."""
    app = FastAPI()

    @app.api_route("/items/{number}", methods=["GET", "HEAD"])
    async def item(number: int):
        return {"number": number}

    @app.get("/raises")
    async def raises():
        raise ValueError("out of stock")

    @app.get("/unavailable")
    async def unavailable():
        raise HTTPException(503, "come back later")

    @app.post("/orders", status_code=201)
    async def order(placed: dict):
        return placed

    @app.get("/streamed")
    async def streamed():
        async def pieces():
            yield b"one"
            yield b"two"

        return StreamingResponse(pieces())

    return app


@contextlib.contextmanager
def watched_by_insitu(app):
    """Watches with insitu; gives what returns the spans and the metrics so far."""
    with recording(threads=True) as recorded:
        recorded.runtime.instrument(app)
        yield lambda: ([ours(span) for span in recorded.spans], [our_metric(recorded.family(name)) for name in METRICS])


def ours(span):
    events = [(event.name, attributes_of(event.error) | dict(event.attributes or {})) for event in span.events or ()]
    attributes = dict(span.settle())
    if len(attributes.get("insitu.fingerprint", "")) == 16:
        attributes["insitu.fingerprint"] = "16 hexadecimal digits"
    return described(span.name, span.kind, span.status_code, span.status_text, attributes, events)


def our_metric(family):
    points = [(point.labels, sum(point.buckets or ())) for point in family.points]
    return {"name": family.name, "unit": family.unit, "bounds": list(family.bounds), "points": points}


@contextlib.contextmanager
def watched_by_opentelemetry(app):
    """Watches with opentelemetry-instrumentation-fastapi and the SDK; gives the same."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing, metering = TracerProvider(), MeterProvider([reader])
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    # Not as the global providers, or FastAPI would begin to trace itself.
    FastAPIInstrumentor.instrument_app(app, tracer_provider=tracing, meter_provider=metering)

    def seen():
        metrics = [
            metric
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        spans = [theirs(span) for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
        return spans, [their_metric(metric) for name in METRICS for metric in metrics if metric.name == name]

    yield seen
    tracing.shutdown()
    metering.shutdown()


def theirs(span):
    events = [(event.name, event.attributes) for event in span.events]
    status = span.status
    return described(span.name, span.kind, status.status_code.value, status.description, dict(span.attributes), events)


def their_metric(metric):
    points = [(dict(point.attributes), getattr(point, "count", 0)) for point in metric.data.data_points]
    bounds = getattr(metric.data.data_points[0], "explicit_bounds", ())
    return {"name": metric.name, "unit": metric.unit, "bounds": list(bounds), "points": points}


def described(name, kind, status, text, attributes, events):
    """A span's fields by name; those of its attributes and events by theirs."""
    same = dict.fromkeys({"client.port", "network.peer.port"} & attributes.keys(), 50000)  # each connection has its own
    fields = {"name": name, "kind": kind.name, "status": ["UNSET", "OK", "ERROR"][status], "status text": text or ""}
    inside = {f"event {event}": ", ".join(sorted(values)) for event, values in events}
    return fields | attributes | same | inside


WATCHED = {"insitu": watched_by_insitu, "opentelemetry": watched_by_opentelemetry}


def observe(by):
    """The span of each request, and the two metrics."""
    app = application()
    found = {}
    with WATCHED[by](app) as seen, served(app) as port:
        # Behind an exception uvicorn closes the connection, so that the next request would meet a reset.
        headers = {"user-agent": "visitor/1", "connection": "close"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            for name, (method, path, more) in REQUESTS.items():
                client.request(method, path, **more)
                spans = until(lambda: len(seen()[0]) > len(found) and seen()[0], what=name)
                found[name] = json.loads(json.dumps(spans[-1]).replace(str(port), "8000"))
        metrics = seen()[1]
    return {"spans": found, "metrics": {metric["name"]: metric for metric in metrics}}


if __name__ == "__main__":
    json.dump(observe(sys.argv[1]), sys.stdout)
