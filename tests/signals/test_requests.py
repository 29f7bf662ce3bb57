import asyncio
import contextlib
import threading

import pytest
from opentelemetry import trace as api

import insitu
from insitu.core import context
from insitu.core.records import Error, Resource, Unset
from insitu.exporters.prometheus import Format, render
from insitu.runtime import requests
from insitu.signals.meter import MeterProvider
from insitu.signals.metrics import SERIES, registry
from insitu.signals.requests import fail
from insitu.signals.tracing import provider
from insitu.testing import FakeClock, recording

DURATION = "http.server.request.duration"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def recorded(clock):
    with recording(clock=clock, exclude=["/internal/*", "/users/{id}/secret"]) as started:
        yield started


def begin(method="GET", path="/items/3", **given):
    facts = {
        "scheme": "http",
        "path": path,
        "query": b"",
        "version": "1.1",
        "host": b"shop.example:8080",
        "agent": b"curl/8",
        "client": ("10.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
    }
    above, request_size = given.pop("above", None), given.pop("request_size", -1)
    return requests.begin(method, tuple({**facts, **given}.values()), above, request_size)


@contextlib.contextmanager
def request(method="GET", path="/items/3", route="/items/{id}", status=200, size=10, **given):
    """One request as an adapter plays it."""
    span = begin(method, path, **given)
    token = context.enter(span)
    try:
        with span:
            yield span
        span.response_status = status
    finally:
        context.leave(token)
        span.response_size = size
        requests.finish(span, route)


def test_a_request_is_one_server_span_and_one_count(recorded, clock):
    with request(query=b"q=1") as span:
        assert api.get_current_span() is span
        with insitu.span("inner"):
            clock.advance(0.2)
    assert api.get_current_span() is api.INVALID_SPAN
    found = recorded.span("GET /items/{id}")
    assert (found.kind, found.status_code, found.duration) == (api.SpanKind.SERVER, Unset, 200_000_000)
    assert found.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/items/3",
        "url.query": "q=1",
        "server.address": "shop.example",
        "server.port": 8080,
        "client.address": "10.0.0.1",
        "client.port": 5000,
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 5000,
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
    }
    assert recorded.span("inner").parent_id == found.span_id
    point = recorded.point(DURATION)
    assert (point.value, sum(point.buckets)) == (0.2, 1)
    assert point.labels == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"shop", "shop", 80),
        (b"shop:99", "shop", 99),
        (b"[::1]:8000", "::1", 8000),
        (b"[::1]", "::1", 80),
        (b"a:b", "a:b", 80),
        (b"shop:", "shop:", 80),
        (b"\xff\xfe", "��", 80),
        (b"", "127.0.0.1", 8000),
        (b"shop:" + b"9" * 5_000, "shop", 999_999),
    ],
)
def test_the_host_header_names_the_server(recorded, host, address, port):
    with request(host=host):
        pass
    found = recorded.span("GET /items/{id}").attributes
    assert (found["server.address"], found["server.port"]) == (address, port)


def test_a_request_that_fails_is_an_error_of_its_type(recorded):
    error = LookupError("nothing there")
    with pytest.raises(LookupError) as caught, request():
        raise error
    assert caught.value is error
    span = recorded.span("GET /items/{id}")
    assert (span.status_code, span.status_text) == (Error, "LookupError: nothing there")
    assert span.attributes["error.type"] == "LookupError"
    assert recorded.point(DURATION).labels["error.type"] == "LookupError"
    assert len(recorded.errors) == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(200, Unset, None), (404, Unset, None), (499, Unset, None), (500, Error, "500"), (503, Error, "503")],
)
def test_only_the_servers_errors_are_errors(recorded, status, code, kind):
    with request(status=status):
        pass
    assert recorded.span("GET /items/{id}").status_code == code
    assert recorded.point(DURATION).labels.get("error.type") == kind


def test_a_cancelled_request_is_ended_and_no_error(recorded):
    with pytest.raises(asyncio.CancelledError), request(status=0):
        raise asyncio.CancelledError
    span = recorded.span("GET /items/{id}")
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (Unset, [])


def test_an_error_after_the_end_is_not_lost(recorded):
    with request() as span:
        pass
    fail(span, ValueError("late"))
    assert [error.message for error in recorded.errors] == ["late"]
    assert sum(recorded.point(DURATION).buckets) == 1


def test_only_the_first_finish_counts(recorded):
    with request() as span:
        pass
    requests.finish(span, "/other")
    assert sum(recorded.point(DURATION).buckets) == 1
    assert len(recorded.spans) == 1


def test_an_unknown_method_is_other(recorded):
    with request("BREW"):
        pass
    span = recorded.span("HTTP /items/{id}")
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_a_remote_parent_is_followed_and_its_decision_too(recorded):
    with request(above=(0xABC, 0xDEF, 1, "a=1")), request(above=(0xABC, 0xDEF, 0, ""), route="/unsampled") as silent:
        assert not silent.is_recording()
    (span,) = recorded.spans
    assert (span.trace.trace_id, span.parent_id, span.parent_remote, span.local_root) == (0xABC, 0xDEF, True, True)
    assert sum(sum(point.buckets) for point in recorded.family(DURATION).points) == 2


def test_requests_that_are_not_sampled_are_counted_and_their_errors_too():
    with recording(sample=0.0) as recorded:
        for _ in range(150):
            with request():
                pass
        with pytest.raises(ValueError, match="text"), request():
            raise ValueError("text")
        assert recorded.spans == []
        assert sum(sum(point.buckets) for point in recorded.family(DURATION).points) == 151
        assert [(error.type, error.trace_id) for error in recorded.errors] == [("ValueError", 0)]


def test_unsampled_requests_of_several_threads_are_all_counted():
    def serve():
        for _ in range(500):
            with request():
                pass

    with recording(sample=0.0) as recorded:
        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(sum(point.buckets) for point in recorded.family(DURATION).points) == 2_000


def test_what_is_under_way_is_counted_as_active(recorded):
    one, two = begin(), begin("POST")
    assert recorded.point("http.server.active_requests", {"http.request.method": "POST"}).value == 1
    for span in (one, two):
        requests.finish(span, "")
    assert recorded.runtime is not None
    assert not requests.active


@pytest.mark.parametrize(
    ("path", "excluded"),
    [
        ("/internal/a", True),
        ("/internal", False),
        ("/users/5/secret", True),
        ("/users/5/6/secret", False),
        ("/", False),
    ],
)
def test_routes_can_be_taken_out(recorded, path, excluded):
    assert bool(requests.excluded(path)) is excluded


def test_inside_an_excluded_request_nothing_is_recorded(recorded):
    token = requests.hide()
    with insitu.span("a") as span, provider.get_tracer("t").start_as_current_span("b"):
        assert not span.is_recording()
        insitu.log.info("text")
    context.leave(token)
    assert recorded.records == []
    with insitu.span("after"):
        pass
    assert [span.name for span in recorded.spans] == ["after"]


@pytest.mark.parametrize(
    "scope", ["fastapi", "opentelemetry.instrumentation.asgi", "opentelemetry.instrumentation.fastapi"]
)
def test_another_instrumentation_inside_a_request_makes_no_second_span_or_count(recorded, scope):
    histogram = MeterProvider(registry).get_meter(scope).create_histogram(DURATION)
    with request(), provider.get_tracer(scope).start_as_current_span("GET /items/3", kind=api.SpanKind.SERVER):
        histogram.record(1.0)
        with insitu.span("inner"):
            pass
    assert [span.name for span in recorded.spans] == ["inner", "GET /items/{id}"]
    assert recorded.spans[0].parent_id == recorded.spans[1].span_id
    assert sum(sum(point.buckets) for point in recorded.family(DURATION).points) == 1


def test_a_scan_of_a_hundred_thousand_paths_is_one_series(recorded):
    for number in range(100_000):
        with request(path=f"/scan/{number}", route="", status=404):
            pass
        if number % 5_000 == 0:
            recorded.runtime.pipeline.drain(5.0)
            names = {span.name for span in recorded.spans}
            recorded.records.clear()
    points = recorded.family(DURATION).points
    print(f"{len(points)} series, {len(names)} span names, {sum(sum(point.buckets) for point in points):,} counted")
    assert (len(points), names) == (1, {"GET"})
    assert sum(points[0].buckets) == 100_000


def test_label_sets_are_bounded_and_the_total_is_exact(recorded):
    for number in range(2_500):
        with request(route=f"/generated/{number}"):
            pass
        if number % 500 == 0:
            recorded.runtime.pipeline.drain(5.0)
    points = recorded.family(DURATION).points
    assert len(points) == SERIES + 1
    assert sum(sum(point.buckets) for point in points) == 2_500
    assert b"http_server_request_duration_seconds" in render(recorded.runtime.collect(), Resource({}), Format.TEXT)


def test_an_exemplar_names_the_request(recorded, clock):
    with request() as span:
        clock.advance(0.03)
    (exemplar,) = [exemplar for exemplar in recorded.point(DURATION).exemplars if exemplar]
    assert (exemplar.trace_id, exemplar.span_id, exemplar.value) == (span.trace.trace_id, span.span_id, 0.03)


def test_what_counting_unsampled_requests_costs_their_threads_is_in_the_ledger_once():
    with recording(clock=FakeClock(tick=1_000), sample=0.0) as recorded:
        before = recorded.runtime.meter.nanoseconds
        for _ in range(6_400):
            requests.finish(
                requests.begin("GET", ("http", "/", b"", "1.1", b"", b"", None, None), None, -1), "/items/{id}"
            )
        spent = recorded.runtime.meter.nanoseconds - before
    assert 90_000 <= spent <= 100_000  # a look at the clock for each 64 of them, but where one is metered itself
