import threading
import time

from insitu.core.budget import PREEMPTED, Meter
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
