import tracemalloc

import pytest

from insitu.core.records import ERROR_BYTES, SPAN_BYTES, TRACE_BYTES, ErrorRecord, LogRecord, Resource, Scope, size
from insitu.signals.block import span
from insitu.testing import recording
from tests.exporters.facts import a_span, a_trace


def test_the_loss_of_a_record_is_counted_in_spans_and_log_records():
    assert size(a_trace([a_span(), a_span()])) == ("traces", 2)
    assert size(a_trace([a_span()], flags=0)) == ("traces", 0)
    assert size(LogRecord(1, 9, "INFO", "app", "text")) == ("logs", 1)
    assert size(ErrorRecord("ValueError", "x")) == ("logs", 1)


def test_a_duration_is_never_negative():
    assert a_span(start_time=1_000, end_time=3_500).duration == 2_500
    assert a_span(start_time=3_500, end_time=1_000).duration == 0


def test_settled_attributes_hold_what_was_bound_and_the_spans_own_win():
    made = a_span(own={"a": 1, "user.id": "mine"})
    a_trace([made], bound={"user.id": "bound", "tenant.id": "t"})
    assert made.settle() == {"a": 1, "user.id": "mine", "tenant.id": "t"}
    assert made.settle() is made.own


def test_settling_does_not_write_into_what_was_bound():
    bound = {"user.id": "u"}
    made = a_span(own={"a": 1})
    a_trace([made], bound=bound)
    made.settle()
    assert bound == {"user.id": "u"}


def test_a_span_without_attributes_settles_to_an_empty_dict():
    made = a_span()
    a_trace([made])
    assert made.settle() == {}


def test_a_split_takes_what_has_ended_and_leaves_the_trace_to_go_on():
    trace = a_trace([a_span(name="first")], trace_id=7, flags=3, state="foo=1", bound={"user.id": "u"})
    trace.errors, trace.weight = {1: ErrorRecord("ValueError", "x")}, 50
    part = trace.split()
    assert ([span.name for span in part.spans], list(part.errors), part.weight) == (["first"], [1], 50)
    assert (trace.spans, trace.errors, trace.weight) == ([], None, 0)
    assert (part.trace_id, part.flags, part.state, part.bound) == (7, 3, "foo=1", {"user.id": "u"})
    assert (part.sampled, part.recording, part.closed, part.offset) == (True, True, True, trace.offset)
    assert not trace.closed


@pytest.mark.parametrize("make", [lambda trace: trace.split(), lambda trace: trace.alone(a_span())])
def test_a_part_is_recorded_and_sampled_as_the_whole_is(make):
    trace = a_trace([a_span()], flags=0)
    trace.recording = True  # a sampler's RECORD_ONLY
    part = make(trace)
    assert (part.recording, part.sampled) == (True, False)


def test_a_late_span_travels_alone():
    """What the worker has, or had, must not be sent again with it."""
    trace = a_trace([a_span(name="root")])
    late = trace.alone(a_span(name="late"))
    assert [span.name for span in late.spans] == ["late"]
    assert [span.name for span in trace.spans] == ["root"]


def test_a_record_weighs_its_spans_its_errors_and_its_long_texts():
    trace = a_trace([a_span(), a_span()])
    trace.weight = 1_000
    assert trace.size() == TRACE_BYTES + 2 * SPAN_BYTES + 1_000
    trace.errors = {1: ErrorRecord("ValueError", "x")}
    assert trace.size() == TRACE_BYTES + 2 * SPAN_BYTES + 1_000 + ERROR_BYTES


def test_facts_in_common_are_values():
    assert Scope("a", "1") == Scope("a", "1")
    assert hash(Scope("a")) != hash(Scope("b"))
    with pytest.raises(AttributeError):
        Resource({}).attributes = {}


def test_a_span_weighs_in_memory_about_what_the_queue_counts():
    """Where this fails the queue's cap no longer says what insitu may take."""
    with recording() as recorded:
        for _ in range(100):
            with span("warm up", a=1, b="x", c=2.0):
                pass
        recorded.runtime.pipeline.drain(5.0)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2_000):
            with span("load cart", a=number, b="text", c=2.0):
                pass
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        held = recorded.runtime.pipeline._held
    real = (after - before) / 2_000
    print(f"a local root with 3 attributes: {real:.0f} bytes in memory, {held / 2_000:.0f} counted")
    assert real <= 1.25 * held / 2_000
