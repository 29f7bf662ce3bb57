import threading
import time

import pytest
from opentelemetry import context as otel_context

from insitu.core import guard
from insitu.core.budget import Meter
from insitu.core.clock import SYSTEM
from insitu.core.context import SUPPRESS_KEY
from insitu.core.threads import Background, Slices
from tests.servers import until


@pytest.fixture
def start():
    made = []

    def make(step, name="worker"):
        thread = Background(name, step, Meter(SYSTEM), SYSTEM)
        made.append(thread)
        return thread

    yield make
    for thread in made:
        thread.stop(5.0)


class Steps:
    def __init__(self, pause=60.0):
        self.count = 0
        self.pause = pause
        self.free = threading.Event()
        self.free.set()

    def __call__(self):
        self.count += 1
        self.free.wait(10.0)
        return self.pause


def names():
    return [thread.name for thread in threading.enumerate()]


def test_a_thread_starts_when_it_is_asked_for_and_only_once(start):
    steps = Steps()
    thread = start(steps, "test-once")
    assert not thread.running
    assert thread.ensure()
    assert thread.ensure()
    until(lambda: steps.count)
    assert names().count("insitu-test-once") == 1
    assert thread.running


def test_many_threads_that_ask_at_once_start_one(start):
    thread = start(Steps(), "test-race")
    askers = [threading.Thread(target=thread.ensure) for _ in range(16)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert names().count("insitu-test-race") == 1


def test_a_thread_of_ours_never_keeps_the_process(start):
    thread = start(Steps(), "test-daemon")
    thread.ensure()
    (found,) = [each for each in threading.enumerate() if each.name == "insitu-test-daemon"]
    assert found.daemon


def test_stopping_ends_the_sleep_and_the_thread(start):
    steps = Steps()
    thread = start(steps)
    thread.ensure()
    until(lambda: steps.count)
    began = time.monotonic()
    assert thread.stop(5.0)
    assert time.monotonic() - began < 1.0
    assert not thread.running
    assert thread.stop(0.0)


def test_a_stopped_thread_starts_again(start):
    steps = Steps()
    thread = start(steps)
    for round_ in range(1, 4):
        thread.ensure()
        until(lambda expected=round_: steps.count == expected)
        assert thread.stop(5.0)


def test_waking_ends_the_sleep(start):
    steps = Steps()
    thread = start(steps)
    thread.ensure()
    until(lambda: steps.count == 1)
    thread.wake()
    until(lambda: steps.count == 2)


def test_a_step_is_repeated_after_the_pause_that_it_asked_for(start):
    steps = Steps(pause=0.01)
    thread = start(steps)
    thread.ensure()
    until(lambda: steps.count >= 3)


def test_a_thread_that_does_not_end_in_time_goes_on_when_it_is_needed_again(start):
    """It must neither be lost, so that nothing is ever sent again, nor be doubled."""
    steps = Steps()
    steps.free.clear()
    thread = start(steps, "test-slow")
    thread.ensure()
    until(lambda: steps.count == 1)
    assert not thread.stop(0.01)
    assert thread.ensure()
    assert names().count("insitu-test-slow") == 1
    steps.free.set()
    thread.wake()
    until(lambda: steps.count >= 2)
    assert thread.running


def test_a_thread_that_ended_late_starts_again_when_it_is_needed(start):
    steps = Steps()
    steps.free.clear()
    thread = start(steps)
    thread.ensure()
    until(lambda: steps.count == 1)
    assert not thread.stop(0.01)
    steps.free.set()
    until(lambda: not thread.running)
    assert thread.ensure()
    until(lambda: steps.count == 2)


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt(), BaseException()])
def test_a_step_that_raises_anything_does_not_end_the_thread(start, error, monkeypatch):
    """FAULTS 5."""
    monkeypatch.setattr("insitu.core.threads._AFTER_A_FAILURE_SECONDS", 0.001)
    monkeypatch.setattr(guard, "counts", {})
    rounds = []

    def step():
        rounds.append(1)
        raise error

    thread = start(step, "test-raises")
    thread.ensure()
    until(lambda: len(rounds) >= 3)
    assert thread.running
    assert guard.counts["test-raises"] >= 2


def test_what_a_thread_of_ours_does_is_marked_as_ours(start):
    """FAULTS 32: instrumentation of the libraries that we use must not trace us."""
    seen = []

    def step():
        seen.append(otel_context.get_value(SUPPRESS_KEY))
        return 60.0

    start(step).ensure()
    until(lambda: seen)
    assert seen == [True]
    assert otel_context.get_value(SUPPRESS_KEY) is None


def test_a_thread_may_ask_itself_to_stop(start):
    answers = []

    def step():
        answers.append((thread.is_current(), thread.stop(5.0)))
        return 60.0

    thread = start(step)
    thread.ensure()
    until(lambda: not thread.running)
    assert answers == [(True, True)]
    assert not thread.is_current()


def test_a_wait_inside_a_step_ends_with_a_stop(start):
    answers = []
    inside = threading.Event()

    def step():
        inside.set()
        answers.append(thread.wait(30.0))
        return 60.0

    thread = start(step)
    thread.ensure()
    assert inside.wait(5.0)
    assert thread.stop(5.0)
    assert answers == [True]


def test_where_no_thread_can_be_started_the_answer_says_so(start, monkeypatch):
    """FAULTS 26: at interpreter shutdown."""

    def refuse(_self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    steps = Steps()
    thread = start(steps)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not thread.ensure()
    assert not thread.running
    assert thread.ensure()
    until(lambda: steps.count)


def test_a_forgotten_thread_is_replaced(start):
    """In a forked child the parent's thread is an object without a thread."""
    steps = Steps()
    thread = start(steps)
    thread._thread = threading.Thread()  # as the child finds it
    thread.stopping = True
    thread.forget()
    assert thread.ensure()
    until(lambda: steps.count)


def test_long_work_naps_when_a_slice_is_over_and_not_before():
    naps, now = [], [0.0]
    for _ in Slices(lambda: now[0], naps.append).over(range(10)):
        now[0] += 0.0004
    assert len(naps) == 3
