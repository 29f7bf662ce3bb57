import itertools
import threading
import time

import pytest

from insitu.core.budget import LADDER, PREEMPTED, WINDOW_SECONDS, Ladder, Meter, unseen
from insitu.core.clock import SYSTEM
from insitu.core.records import METERED
from insitu.core.threads import Background
from insitu.testing import FakeClock
from tests.servers import until


def test_a_timing_of_the_hot_path_stands_for_all_that_are_not_timed():
    meter = Meter(FakeClock())
    meter.hot(1_000)
    meter.hot(2_000)
    assert meter.seconds()["request"] == 3_000 * METERED / 1e9


def test_a_timing_with_another_threads_work_in_it_is_cut():
    meter = Meter(FakeClock())
    meter.hot(50_000_000)
    assert meter.seconds()["request"] == PREEMPTED * METERED / 1e9


def test_a_timing_has_what_the_call_around_it_takes():
    meter = Meter(SYSTEM)
    meter.hot(0)
    added = meter.seconds()["request"] * 1e9 / METERED
    print(f"a call takes {added:.0f} ns more than it sees")
    assert 0 < added < 10_000


def test_a_clock_that_is_slow_to_answer_takes_nothing_off():
    class Slow(FakeClock):
        def monotonic(self):
            self.advance(0.001)
            return super().monotonic()

    assert unseen(Slow()) == unseen(FakeClock()) == 0


def test_threads_are_entered_under_their_part():
    meter = Meter(FakeClock())
    meter.add("worker", 1_000_000_000)
    meter.add("sender-otlp", 2_000_000_000)
    meter.add("sender-console", 3_000_000_000)
    meter.add("worker", 1_000_000_000)
    assert meter.seconds() == {"request": 0.0, "worker": 2.0, "sender": 5.0}


def test_the_ledger_is_a_counter_by_part():
    clock = FakeClock()
    meter = Meter(clock)
    meter.add("reader", 500_000_000)
    (family,) = meter.collect()
    assert (family.name, family.kind, family.unit, family.start) == ("insitu.cpu", "counter", "s", clock.wall())
    assert [(point.labels["part"], point.value) for point in family.points] == [("reader", 0.5), ("request", 0.0)]


def test_a_reset_starts_a_new_counter():
    clock = FakeClock()
    meter = Meter(clock)
    meter.add("worker", 1)
    meter.hot(1)
    clock.advance(5)
    meter.reset()
    (family,) = meter.collect()
    assert meter.seconds() == {"request": 0.0}
    assert family.start == clock.wall()


def test_two_threads_of_one_part_lose_nothing():
    meter = Meter(SYSTEM)

    def work(name):
        for _ in range(20_000):
            meter.add(name, 1)

    threads = [threading.Thread(target=work, args=(f"sender-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.seconds()["sender"] == 80_000 / 1e9


def test_the_cpu_time_of_our_own_threads_is_measured():
    meter = Meter(SYSTEM)

    def burn():
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
        return 60.0

    thread = Background("worker", burn, meter, SYSTEM)
    thread.ensure()
    until(lambda: meter.seconds().get("worker"))
    thread.stop(5.0)
    print(f"measured {meter.seconds()['worker']:.3f} s of 0.05 s")
    assert 0.05 <= meter.seconds()["worker"] < 0.1


# --- the ladder ---


class Process:
    """A process whose insitu costs what a test says, at each step of the ladder."""

    def __init__(self, limit, *costs):
        self.clock = FakeClock()
        self.meter = Meter(self.clock)
        self.busy = 0
        self.ladder = Ladder(limit, self.meter, self.clock, lambda: self.busy)
        self.costs = costs

    @property
    def cost(self):
        """Share of a core at the step that it is on."""
        return self.costs[min(self.ladder.step, len(self.costs) - 1)]

    def run(self, seconds, cores=0.5):
        """Returns the steps of these seconds."""
        steps = []
        for _ in range(seconds):
            self.clock.advance(1)
            self.busy += round(cores * 1e9)
            self.meter.add("worker", round(self.cost * 1e9))
            self.ladder.look()
            steps.append(self.ladder.step)
        return steps


def gauges(ladder):
    return {family.name: (family.points[0].value, dict(family.points[0].labels)) for family in ladder.collect()}


def test_the_cost_is_measured_over_the_window():
    process = Process(None, 0.03)
    process.run(30)
    assert process.ladder.used == pytest.approx(0.03)
    process.costs = (0.0,)
    process.run(round(WINDOW_SECONDS) // 2)
    assert process.ladder.used == pytest.approx(0.015, abs=0.004)
    process.run(round(WINDOW_SECONDS))
    assert process.ladder.used == 0


def test_without_a_limit_it_only_measures():
    process = Process(None, 0.9)
    assert set(process.run(60)) == {0}
    assert gauges(process.ladder) == {"insitu.budget.utilization": (pytest.approx(0.9), {})}


def test_a_process_of_many_cores_may_be_measured_by_its_own_cpu_time():
    process = Process(0.01, 0.03)
    assert set(process.run(60, cores=4)) == {0}
    assert process.ladder.used == pytest.approx(0.03 / 4)


def test_what_costs_too_much_walks_down_until_it_fits_and_stays_there():
    process = Process(0.01, 0.10, 0.08, 0.05, 0.02, 0.008)
    steps = process.run(20)
    assert steps[-1] == 4
    assert process.ladder.used <= 0.01
    assert set(process.run(120)) == {4}
    assert gauges(process.ladder)["insitu.budget.step"] == (4, {"detail": "1 trace in 16"})
    assert gauges(process.ladder)["insitu.budget.limit"] == (0.01, {})


def test_the_whole_ladder_takes_less_than_twenty_seconds():
    process = Process(0.01, 0.5)
    assert process.run(20)[-1] == len(LADDER) - 1
    assert set(process.run(60)) == {len(LADDER) - 1}


def test_when_the_load_has_gone_it_walks_back_up():
    process = Process(0.01, 0.5)
    process.run(20)
    process.costs = (0.001,)
    steps = process.run(90)
    assert steps[-1] == 0
    assert steps == sorted(steps, reverse=True)


def test_a_step_back_that_had_to_be_taken_again_is_tried_less_and_less_often():
    process = Process(0.01, 0.10, 0.004)  # below half of the budget, and far above it one step up
    steps = process.run(4_000)
    back = [at for at, (before, here) in enumerate(itertools.pairwise(steps)) if here < before]
    waits = [later - earlier for earlier, later in itertools.pairwise(back)]
    assert waits == sorted(waits)
    assert waits[0] < 30
    assert waits[-1] > 600
    assert sum(step == 0 for step in steps) < 0.01 * len(steps)


def test_each_step_leaves_out_more_and_all_of_them_count():
    for before, here in itertools.pairwise(LADDER):
        assert (here.attributes, here.children, here.share, here.logs) < (
            before.attributes,
            before.children,
            before.share,
            before.logs,
        )
    assert LADDER[-1].share == 0


def test_a_forked_child_begins_at_the_first_step():
    process = Process(0.01, 0.5)
    process.run(20)
    process.ladder.reset()
    assert (process.ladder.step, process.ladder.used) == (0, 0.0)
