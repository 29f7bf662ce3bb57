"""What every metric was worth: samples become series, of rates where totals were kept."""

import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.core.records import Family, Point
from insitu.store import samples
from insitu.store.folder import place_for
from insitu.store.rollups import HOUR, LENGTHS, MINUTE, TEN_SECONDS
from tests.store.facts import SECOND, START
from tests.store.test_store import Store


@pytest.fixture(params=["on disk", "in memory"])
def store(request, tmp_path):
    made = Store(place_for(str(tmp_path / "store"), "shop") if request.param == "on disk" else None)
    yield made
    made.writer.close()


def gauge(value, name="queue", **labels):
    return Family(name, "gauge", [Point(labels, value)], "{job}", "Jobs that wait.")


def counter(value, name="orders", **labels):
    return Family(name, "counter", [Point(labels, value)], "{order}", "Orders.")


def histogram(total, *buckets):
    return Family("took", "histogram", [Point({}, total, buckets)], "s", "Took.")


def take(store, *families, after=10):
    store.clock.advance(after)
    list(store.writer.sample(families))
    store.writer.write()


def series(store, name, seconds=900):
    now = store.clock.wall()
    found = store.reader.metric(name, now - seconds * SECOND, now)
    return [(each["labels"], [point[1:] for point in each["points"]]) for each in found["series"]]


def test_a_gauge_is_what_it_was(store):
    for value in (3, 5, 4):
        take(store, gauge(value, pool="a"), gauge(7, pool="b"))
    assert series(store, "queue") == [({"pool": "b"}, [[7], [7], [7]]), ({"pool": "a"}, [[3], [5], [4]])]
    (listed,) = store.reader.metrics()
    assert listed == {"name": "queue", "kind": "gauge", "unit": "{job}", "help": "Jobs that wait.", "series": 2}


def test_a_counter_is_a_rate_and_one_that_began_anew_counts_from_zero(store):
    for value in (100, 150, 150, 20):
        take(store, counter(value))
    assert series(store, "orders") == [({}, [[5.0], [0.0], [2.0]])]


def test_a_histogram_is_a_rate_and_a_mean_of_what_came_in_between(store):
    for total, buckets in ((1.0, (2, 0)), (3.0, (2, 4)), (3.0, (2, 4))):
        take(store, histogram(total, *buckets))
    assert series(store, "took") == [({}, [[0.4, 0.5], [0.0, None]])]


def test_the_longer_the_time_the_fewer_the_points(store):
    for value in range(1, 721):  # two hours
        take(store, gauge(value))
    points = [len(points) for seconds in (900, 7_200, 21_600, 86_400) for _, points in series(store, "queue", seconds)]
    assert points == [91, 121, 41, 3]
    assert series(store, "queue", 21_600)[0][1][-1] == [720]
    assert series(store, "queue", 86_400)[0][1][-1] == [720]


def test_seconds_and_minutes_are_forgotten_and_hours_stay(store):
    for hour in range(30):
        take(store, gauge(hour), after=3_600)
    store.clock.advance(60)
    store.writer.write()
    (rows,) = [dict(source.read("SELECT length, count(*) FROM sample GROUP BY length", ())) for source in opened(store)]
    assert rows[TEN_SECONDS] <= 2
    assert rows[MINUTE] <= 25
    assert rows[HOUR] == 30


def opened(store):
    with store.reader._sources() as sources:
        yield from sources


def test_an_unknown_metric_is_none_and_a_known_one_without_samples_in_the_time_is_empty(store):
    take(store, gauge(1))
    assert store.reader.metric("nothing", 0, store.clock.wall()) is None
    assert store.reader.metric("queue", START - 2 * HOUR, START - HOUR)["series"] == []


def test_the_series_of_several_processes_stand_apart(tmp_path):
    folder = place_for(str(tmp_path / "store"), "shop")
    one, other = Store(folder), Store(folder)
    take(one, gauge(1, pool="a"))
    take(other, gauge(2, pool="a"))
    found = series(one, "queue")
    assert sorted(points for _, points in found) == [[[1]], [[2]]]
    assert {labels["process"] for labels, _ in found} == {"0", "1"}
    assert one.reader.metrics()[0]["series"] == 2
    for each in (one, other):
        each.writer.close()


def test_a_sample_has_a_cap(store):
    many = Family("many", "gauge", [Point({"n": str(number)}, number) for number in range(3_000)])
    take(store, many, gauge(1))
    assert store.reader.metrics() == [
        {"name": "many", "kind": "gauge", "unit": "", "help": "", "series": samples.MOST_SERIES}
    ]


def test_an_answer_shows_the_largest_series_and_counts_the_others(store):
    for time in (1, 2):
        take(store, Family("many", "counter", [Point({"n": str(number)}, number * time) for number in range(60)]))
    now = store.clock.wall()
    found = store.reader.metric("many", now - 900 * SECOND, now)
    assert {int(each["labels"]["n"]) for each in found["series"]} == set(range(60 - samples.MOST_SHOWN, 60))
    assert found["left_out"] == 60 - samples.MOST_SHOWN


@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_what_is_no_number_leaves_a_gap(store, nothing):
    for value in (1, nothing, 3, nothing):
        take(store, gauge(value), gauge(value, name="other"), counter(value))
    assert series(store, "queue") == [({}, [[1], [3]])]
    assert series(store, "orders") == [({}, [[0.1]])]


def test_a_damaged_sample_costs_itself_alone(store):
    take(store, gauge(1))
    take(store, gauge(2))
    store.writer.database()._connection.execute(
        "UPDATE sample SET data = x'00' WHERE time = (SELECT min(time) FROM sample)"
    )
    assert series(store, "queue") == [({}, [[2]])]


def test_one_moment_is_written_for_every_length():
    rows = samples.rows(samples.taken([gauge(1)]), START + 7 * SECOND)
    assert [(row.length, row.start, row.time) for row in rows] == [
        (length, (START + 7 * SECOND) // length * length, START + 7 * SECOND) for length in LENGTHS
    ]


@given(
    st.dictionaries(st.text(max_size=20), st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans())),
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_any_labels_come_back_as_text(labels, value):
    kept = samples.decoded(samples.encoded(samples.taken([Family("any", "gauge", [Point(labels, value)])])))
    ((back, number),) = kept["any"][3]
    assert number == pytest.approx(value)
    assert set(back) == set(labels)
    assert all(isinstance(text, str) for text in back.values())


@given(st.lists(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)), min_size=1), min_size=1))
def test_totals_are_what_all_processes_have_counted(processes):
    counted, newest = Counter(), {}
    for samples_of in processes:
        totals, own = samples.Totals(newest, {}), Counter()
        for grown in samples_of:
            own.update(grown)
            counted.update(grown)
            family = Family("orders", "counter", [Point({"of": name}, value) for name, value in own.items()])
            newest = totals.add(samples.taken([family, gauge(len(own))]))
            assert newest["queue"][3] == [[{}, len(own)]]
    assert {labels["of"]: value for labels, value in newest.get("orders", [0, 0, 0, []])[3]} == counted


def test_a_metric_that_is_of_another_kind_since_a_release_begins_anew():
    before, behind = samples.taken([counter(40, name="took")]), samples.taken([histogram(0.5, 2, 1)])
    for older, newer in ((before, behind), (behind, before)):
        assert samples.Totals(older, {}).add(newer) == newer
        assert samples.Totals(older, older).add(newer) == newer


def test_the_totals_of_the_dead_take_no_more_room_than_there_is():
    full = samples.taken([Family("old", "counter", [Point({"n": str(n)}, 1) for n in range(samples.MOST_SERIES)])])
    kept = samples.Totals(full, {}).add(samples.taken([gauge(1)]))
    assert (len(kept["queue"][3]), len(kept["old"][3])) == (1, samples.MOST_SERIES - 1)


@given(st.binary(max_size=200))
def test_what_is_no_sample_is_a_value_error(data):
    for given_bytes in (data, zlib.compress(data)):
        try:
            samples.decoded(given_bytes)
        except ValueError:
            pass
