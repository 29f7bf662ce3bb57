"""What is found about the statements of a trace, through the whole of insitu."""

import asyncio

import pytest
from opentelemetry import trace as api

import insitu
from insitu.testing import FakeClock, recording


def asks(clock, text="SELECT name FROM author WHERE id = ?", seconds=0.001, **attributes):
    given = {"db.system.name": "sqlite", "db.query.text": text, "db.query.summary": "SELECT author", **attributes}
    tracer = api.get_tracer("driver")
    with tracer.start_as_current_span("SELECT author", kind=api.SpanKind.CLIENT, attributes=given):
        clock.advance(seconds)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def recorded(clock):
    with recording(clock=clock) as started:
        yield started


def test_every_statement_is_measured(recorded, clock):
    with insitu.span("request"):
        for _ in range(3):
            asks(clock, seconds=0.02, **{"db.namespace": "blog"})
    point = recorded.point("db.client.operation.duration", {"db.query.summary": "SELECT author"})
    assert (sum(point.buckets), point.labels["db.namespace"]) == (3, "blog")
    assert point.value == pytest.approx(0.06)


def test_a_statement_that_takes_long_is_slow(recorded, clock):
    with insitu.span("request"):
        asks(clock, seconds=0.5)
    assert recorded.span("SELECT author").attributes["insitu.slow"] is True
    assert recorded.point("insitu.statement.findings", {"kind": "slow"}).value == 1


def test_what_is_slow_is_an_option(clock):
    with recording(clock=clock, slow_statement="1s") as recorded:
        with insitu.span("request"):
            asks(clock, seconds=0.5)
        assert "insitu.slow" not in recorded.span("SELECT author").attributes


def test_a_statement_for_each_thing_in_a_list_is_told_on_the_root(recorded, clock):
    with insitu.span("request", page=1):
        asks(clock, text="SELECT id FROM post")
        for _ in range(20):
            asks(clock)
    root = recorded.span("request").attributes
    assert (root["insitu.repeated.statement"], root["insitu.repeated.times"], root["page"]) == ("SELECT author", 20, 1)
    labels = {"kind": "repeated", "db.query.summary": "SELECT author"}
    assert recorded.point("insitu.statement.findings", labels).value == 1


def test_many_statements_that_differ_are_no_repetition(recorded, clock):
    with insitu.span("request"):
        for number in range(30):
            asks(clock, text=f"SELECT * FROM table_{number // 9}")
    assert "insitu.repeated.times" not in recorded.span("request").attributes


def test_a_trace_without_statements_is_left_as_it_is(recorded):
    with insitu.span("request"), insitu.span("inside"):
        pass
    assert recorded.span("request").attributes == {}


def test_a_fault_in_looking_costs_no_count_of_requests(clock, monkeypatch):
    def fail(trace):
        raise LookupError(trace)

    with recording(clock=clock, strict=False) as recorded:
        monkeypatch.setattr(recorded.runtime.statements, "look", fail)
        app = insitu.instrument(answering)
        for _ in range(3):
            asyncio.run(app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, nothing))
        assert sum(recorded.point("http.server.request.duration").buckets) == 3


async def answering(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def nothing(message):
    """Send it nowhere."""
