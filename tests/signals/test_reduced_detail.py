"""What the steps of the budget's ladder leave out of traces and logs, and that counts stay exact on each of them."""

import logging

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import SpanProcessor

import insitu
from insitu.core import context
from insitu.core.budget import EVERYTHING, LADDER
from insitu.runtime import Runtime, requests
from insitu.signals.tracing import provider
from insitu.testing import recording

RAW = ("http", "/items/3", b"", "1.1", b"shop", b"", None, None)
REMOTE = (0xAF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1, "")


@pytest.fixture
def recorded():
    with recording() as made:
        yield made
        Runtime._reduce(EVERYTHING)


def serve(above=None):
    span = requests.begin("GET", RAW, above, -1)
    token = context.enter(span)
    try:
        with (
            insitu.span("load", tier="gold") as own,
            api.get_tracer("a").start_as_current_span("read", attributes={"k": 1}) as read,
        ):
            own.set(items=3)
            read.set_attribute("more", 2)
            logging.getLogger("shop").warning("loaded")
            return own.get_span_context(), read.get_span_context(), span
    finally:
        span.response_status = 200
        requests.finish(span, "/items/{id}")
        context.leave(token)


def counted(recorded, name):
    recorded.runtime.pipeline.drain(5)
    return sum(
        sum(point.buckets) if point.buckets else point.value
        for family in recorded.runtime.collect()
        if family.name == name
        for point in family.points
    )


def test_without_attributes_the_spans_are_there_and_say_what_they_lack(recorded):
    Runtime._reduce(LADDER[1])
    serve()
    (trace,) = recorded.traces
    own = {span.name: dict(span.own or {}) for span in trace.spans}
    assert own["load"] == own["read"] == {}
    assert own["GET /items/{id}"]["http.route"] == "/items/{id}"
    assert {span.name: span.dropped for span in trace.spans if span.dropped} != {}


def test_without_child_spans_what_others_do_and_what_is_logged_hangs_on_the_request(recorded):
    Runtime._reduce(LADDER[2])
    load, read, root = serve()
    (trace,) = recorded.traces
    assert [span.name for span in trace.spans] == ["GET /items/{id}"]
    assert {load.span_id, read.span_id} == {root.span_id}
    assert {load.trace_id, read.trace_id} == {trace.trace_id}
    (record,) = recorded.logs
    assert (record.trace_id, record.span_id) == (trace.trace_id, root.span_id)


@pytest.mark.parametrize("step", [3, 4, 5])
@pytest.mark.parametrize("above", [False, True], ids=["roots", "below a sampled remote parent"])
def test_a_share_of_the_traces_is_recorded_and_all_are_counted(recorded, step, above):
    Runtime._reduce(LADDER[step])
    served = 4_000
    for number in range(served):
        remote = ((number * 0x9E3779B97F4A7C15 + 1) % (1 << 64) or 1, *REMOTE[1:]) if above else None
        serve(remote)
    expected = served * LADDER[step].share
    assert len(recorded.traces) == pytest.approx(expected, abs=6 * expected**0.5)
    assert counted(recorded, "http.server.request.duration") == served


def test_a_sampled_remote_parents_flag_goes_on_to_others_whatever_we_record(recorded):
    Runtime._reduce(LADDER[-1])
    load, _, _ = serve(REMOTE)
    assert recorded.traces == []
    assert load.trace_flags.sampled
    assert load.trace_id == REMOTE[0]


def test_at_the_end_of_the_ladder_everything_is_counted_still(recorded):
    Runtime._reduce(LADDER[-1])
    for _ in range(500):
        serve()
    assert recorded.traces == []
    assert recorded.logs == []
    assert counted(recorded, "http.server.request.duration") == 500
    assert counted(recorded, "insitu.log_records") == 500
    assert counted(recorded, "insitu.skipped_log_records") == 500


def test_the_way_back_up_records_everything_again(recorded):
    Runtime._reduce(LADDER[-1])
    serve()
    Runtime._reduce(EVERYTHING)
    serve()
    (trace,) = recorded.traces
    assert {span.name: (span.own or {}).get("tier") for span in trace.spans}["load"] == "gold"
    assert len(recorded.logs) == 1


def test_a_processor_of_the_users_sees_spans_on_every_step_that_has_them(recorded):
    class Seen(SpanProcessor):
        names = []

        def on_end(self, span):
            self.names.append(span.name)

    provider.add_span_processor(Seen())
    for step in LADDER:
        Runtime._reduce(step)
        serve()
    provider.processors = ()
    assert Seen.names.count("load") == 2
    assert 3 <= Seen.names.count("GET /items/{id}") <= 6
