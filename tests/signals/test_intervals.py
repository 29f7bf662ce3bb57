import threading

from insitu.signals.intervals import LENGTH, OVERFLOW, ROUTES, Intervals
from insitu.testing import FakeClock


def test_requests_are_counted_by_route_and_interval():
    clock = FakeClock()
    intervals = Intervals(clock.wall)
    for failed in (False, True):
        intervals.count("GET /", 0.25, clock.wall(), failed=failed)
    assert intervals.take() == []
    clock.advance(10)
    intervals.count("GET /", 0.5, clock.wall(), failed=False)
    (closed,) = intervals.take()
    totals = closed.routes["GET /"]
    assert (closed.length, closed.start % LENGTH, totals.count, totals.errors) == (LENGTH, 0, 2, 1)
    assert totals.durations.maximum == 0.25
    assert [each.routes["GET /"].count for each in intervals.take(all_of_them=True)] == [1]


def test_a_clock_that_is_set_back_loses_nothing():
    clock = FakeClock()
    intervals = Intervals(clock.wall)
    intervals.count("GET /", 0.1, clock.wall(), failed=False)
    clock.set_back(3_600)
    intervals.count("GET /", 0.1, clock.wall(), failed=False)
    assert sum(each.routes["GET /"].count for each in intervals.take(all_of_them=True)) == 2


def test_routes_beyond_the_cap_are_counted_together():
    clock = FakeClock()
    intervals = Intervals(clock.wall)
    for number in range(ROUTES + 50):
        intervals.count(f"GET /{number}", 0.1, clock.wall(), failed=False)
    (closed,) = intervals.take(all_of_them=True)
    assert len(closed.routes) == ROUTES + 1
    assert closed.routes[OVERFLOW].count == 50


def test_what_several_threads_count_is_exact():
    clock = FakeClock()
    intervals = Intervals(clock.wall)
    count = lambda: [intervals.count("GET /", 0.1, clock.wall(), failed=False) for _ in range(1_000)]
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (closed,) = intervals.take(all_of_them=True)
    assert closed.routes["GET /"].count == 4_000
