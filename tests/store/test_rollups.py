from hypothesis import given
from hypothesis import strategies as st

from insitu.core.histogram import Histogram
from insitu.core.records import Interval, RouteTotals
from insitu.store.rollups import HOUR, LENGTHS, MINUTE, TEN_SECONDS, Rollups, added, cover, length_for


def an_interval(start, count):
    durations = Histogram()
    for _ in range(count):
        durations.record(0.1)
    return Interval(start, TEN_SECONDS, {"GET /": RouteTotals(count, 1, durations)})


def rows_of(intervals):
    return {
        (each.length, each.start, name): (each.start, name, totals.count, totals.errors, totals.durations.to_bytes())
        for each in intervals
        for name, totals in each.routes.items()
    }


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 5)), max_size=80))
def test_every_length_adds_up_to_the_same_and_a_cover_takes_each_request_once(steps):
    rollups, written, start, total = Rollups(), {}, 0, 0
    for pause, count in steps:
        start += pause * TEN_SECONDS
        total += count
        written |= rows_of(rollups.add([an_interval(start, count)]))
    written |= rows_of(rollups.rest())
    for length in LENGTHS:
        assert sum(row[2] for (each, _, _), row in written.items() if each == length) == total

    def read(length, begin, end):
        return [row for (each, at, _), row in sorted(written.items()) if each == length and begin <= at < end]

    found = list(cover(read, 0, start + TEN_SECONDS))
    assert sum(row[2] for row in found) == total
    assert (dict(added(found))["GET /"].count if found else 0) == total


def test_a_long_period_is_drawn_in_coarser_intervals():
    assert [length_for(span) for span in (MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, 48 * HOUR)] == [
        TEN_SECONDS, TEN_SECONDS, MINUTE, MINUTE, HOUR,
    ]  # fmt: skip
