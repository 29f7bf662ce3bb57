"""The kit that tests use: its clock, its sink, and what it does when something went wrong."""

import threading
import time

import pytest

import insitu
from insitu import runtime
from insitu.core import guard
from insitu.core.clock import Clock
from insitu.testing import FakeClock, MemorySink, recording


def test_a_fake_clock_stands_until_it_is_moved():
    clock = FakeClock()
    before = clock.wall(), clock.monotonic()
    time.monotonic()
    assert (clock.wall(), clock.monotonic()) == before
    clock.advance(1.5)
    assert (clock.wall() - before[0], clock.monotonic() - before[1]) == (1_500_000_000, 1_500_000_000)


def test_a_fake_clock_may_tick_at_each_reading():
    clock = FakeClock(tick=10)
    assert clock.monotonic() - clock.monotonic() == -10


def test_setting_the_clock_back_leaves_monotonic_time_alone():
    clock = FakeClock()
    wall, monotonic = clock.wall(), clock.monotonic()
    clock.set_back(3600)
    assert clock.wall() == wall - 3600 * 10**9
    assert clock.monotonic() == monotonic


def test_durations_are_those_of_the_tests_clock():
    clock = FakeClock()
    with recording(clock=clock) as recorded:
        with insitu.span("work"):
            clock.advance(2)
            clock.set_back(100)
        assert recorded.span("work").duration == 2_000_000_000


def test_what_was_recorded_can_be_looked_at_by_kind():
    with recording() as recorded:
        with insitu.span("outer"), insitu.span("inner"):
            insitu.log.info("said")
            insitu.capture(ValueError("inside"))
        insitu.capture(KeyError("outside"))
        insitu.counter("seen_by_test", labels=("kind",)).add(3, kind="x")
        assert [span.name for span in recorded.spans] == ["inner", "outer"]
        assert len(recorded.traces) == 1
        assert [record.body for record in recorded.logs] == ["said"]
        assert [error.type for error in recorded.errors] == ["ValueError", "KeyError"]
        assert recorded.point("seen_by_test", {"kind": "x"}).value == 3


def test_a_look_for_what_is_not_there_names_what_is():
    with recording() as recorded:
        with insitu.span("one"):
            pass
        with pytest.raises(AssertionError, match=r"0 spans are named 'two'; there are \['one'\]"):
            recorded.span("two")
        with pytest.raises(AssertionError, match="no metric 'nothing'; there are"):
            recorded.family("nothing")
        with pytest.raises(AssertionError, match="0 series"):
            recorded.point("insitu.records", {"signal": "smoke"})


def test_two_spans_of_one_name_are_not_one():
    with recording() as recorded:
        for _ in range(2):
            with insitu.span("twice"):
                pass
        with pytest.raises(AssertionError, match="2 spans"):
            recorded.span("twice")


def test_it_shows_what_would_be_exported():
    with recording() as recorded:
        with insitu.span("work", password="hunter2"):
            pass
        assert recorded.span("work").attributes == {"password": "[redacted]"}


def test_what_insitu_swallows_fails_the_test_when_strict():
    with pytest.raises(AssertionError, match="swallowed") as caught, recording():
        guard.call("here", int, "x")
    assert isinstance(caught.value.__cause__, ValueError)
    with recording(strict=False) as recorded:
        guard.call("here", int, "x")
        assert recorded.point("insitu.internal_errors", {"where": "here"}).value == 1


def test_an_error_of_the_test_itself_comes_through_and_insitu_is_shut_down():
    with pytest.raises(ZeroDivisionError), recording():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        runtime.current()


def test_nothing_runs_behind_the_tests_back():
    before = threading.active_count()
    with recording() as recorded:
        for number in range(1_000):
            insitu.log.info("busy", number=number)
        assert threading.active_count() == before
        assert len(recorded.logs) == 1_000


def test_threads_run_when_the_test_asks_for_them():
    before = set(threading.enumerate())
    with recording(threads=True) as recorded:
        insitu.log.info("x")
        assert any(thread.name == "insitu-worker" for thread in threading.enumerate())
        assert len(recorded.logs) == 1
    assert not any(thread.name.startswith("insitu") for thread in set(threading.enumerate()) - before)


def test_options_and_environment_are_the_tests_own(monkeypatch):
    monkeypatch.setenv("INSITU_SAMPLE", "0")
    with recording() as recorded:
        assert recorded.runtime.options.tracing.sample == 1
    with recording(environ={"INSITU_SAMPLE": "0.5"}, service="shop") as recorded:
        assert recorded.runtime.options.tracing.sample == 0.5
        assert recorded.runtime.resource.attributes["service.name"] == "shop"
        assert isinstance(recorded.clock, Clock)


def test_one_recording_starts_from_zero_after_another():
    counter = insitu.counter("again_and_again")
    for _ in range(2):
        with recording() as recorded:
            counter.add(1)
            assert recorded.point("again_and_again").value == 1
            assert recorded.spans == []


def test_a_memory_sink_keeps_what_reaches_it():
    sink = MemorySink()
    sink.accept([1, 2])
    sink.accept([3])
    assert sink.records == [1, 2, 3]
