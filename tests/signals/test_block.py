import logging

import pytest
from opentelemetry import context as otel_context

import insitu
from insitu.core.budget import EVERYTHING, LADDER, METERED
from insitu.runtime import Runtime
from insitu.testing import FakeClock, recording

TICK = 1_000
"""Nanoseconds that each look at the clock takes."""
WORK = {
    "a span that is made": lambda: insitu.span("load", tier="gold"),
    "a log record": lambda: insitu.log.info("loaded"),
    "a record of the standard library": lambda: logging.getLogger("tests.block").warning("loaded"),
}


@pytest.fixture
def recorded():
    with recording(clock=FakeClock(tick=TICK)) as started:
        yield started
        Runtime._reduce(EVERYTHING)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_one_in_sixteen_is_timed_for_the_ledger(recorded, work):
    meter = recorded.runtime.meter
    before = meter.nanoseconds
    for _ in range(2 * METERED):
        work()
    timed = (meter.nanoseconds - before) / METERED
    assert timed in (2 * TICK, 4 * TICK)  # a log record looks at the clock itself


def test_what_takes_turns_is_timed_each_for_itself(recorded):
    """Sixteen operations a round: with one count for all, the same one would always have its turn."""
    meter = recorded.runtime.meter
    before = meter.nanoseconds
    for _ in range(METERED):
        for _ in range(METERED - 1):
            insitu.span("load")
        insitu.log.info("loaded")
    spans, logs = METERED - 1, 1
    assert meter.nanoseconds - before == (spans + 2 * logs) * METERED * TICK


@pytest.mark.parametrize("step", [2, 6], ids=["child spans", "traces"])
def test_a_span_that_is_left_out_changes_no_context(recorded, step):
    with insitu.span("request"):
        Runtime._reduce(LADDER[step])
        before = otel_context.get_current()
        with insitu.span("load") as load:
            assert otel_context.get_current() is before
            with insitu.span("read") as read:
                assert otel_context.get_current() is before
        assert load.get_span_context() == read.get_span_context()
    assert [span.name for span in recorded.spans] == ["request"]


def test_a_span_that_is_left_out_lets_an_exception_through(recorded):
    Runtime._reduce(LADDER[2])
    with pytest.raises(ZeroDivisionError), insitu.span("request"), insitu.span("load"):
        _ = 1 / 0
    (error,) = recorded.errors
    assert (error.type, recorded.span("request").status_text) == (
        "ZeroDivisionError",
        "ZeroDivisionError: division by zero",
    )
