import gc
import math
import threading
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import insitu
from insitu.core.records import Resource
from insitu.exporters.prometheus import Format, render
from insitu.signals.metrics import SERIES, registry
from insitu.testing import FakeClock, recording

before_init = insitu.counter("made_before_init", labels=("plan",))


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def resident():
    gc.collect()
    return psutil.Process().memory_info().rss


def scrape(recorded):
    """Return the page and the CPU seconds it took."""
    began = time.thread_time()
    page = render(recorded.runtime.collect(), Resource({}), Format.TEXT)
    return page, time.thread_time() - began


# --- what a handle counts ---


def test_a_counter_counts_by_its_labels(recorded):
    orders = insitu.counter("orders", labels=("plan", "paid"), unit="{order}", help="Orders placed.")
    orders.add(1, plan="pro", paid=True)
    orders.add(2, paid=True, plan="pro")
    orders.add(plan="free")
    family = recorded.family("orders")
    assert {tuple(point.labels.values()): point.value for point in family.points} == {
        ("pro", "true"): 3,
        ("free", ""): 1,
    }
    assert (family.kind, family.unit, family.help) == ("counter", "{order}", "Orders placed.")


def test_a_counter_takes_nothing_negative_and_no_nan(recorded, caplog):
    orders = insitu.counter("only_up")
    for amount in (1, -1, float("nan"), 2.5):
        orders.add(amount)
    assert recorded.point("only_up").value == 3.5
    assert len(caplog.records) == 1


def test_of_a_gauge_of_which_the_last_one_counts_the_moment_is_kept():
    with recording(clock=FakeClock()) as recorded:
        insitu.gauge("mode", merge="last").set(3)
        insitu.gauge("depth", merge="sum").set(3)
        assert recorded.point("mode").time == recorded.clock.wall()
        assert recorded.point("depth").time == 0
        assert (recorded.family("mode").merging, recorded.family("depth").merging) == ("last", "sum")


def test_a_gauge_cannot_be_merged_in_any_other_way_nor_in_two(recorded, caplog):
    insitu.gauge("filling", merge="mean").set(1)
    assert recorded.family("filling").merging == "worker"
    assert "cannot be merged by 'mean'; there are: worker, sum, max, last" in caplog.text
    insitu.gauge("filling", merge="max").set(2)
    assert recorded.family("filling").merging == "worker"
    assert "merged by worker; that declaration stays" in caplog.text


def test_an_updown_counter_falls_and_a_gauge_is_what_it_is(recorded):
    waiting, level = insitu.updown("waiting"), insitu.gauge("level", labels=("tank",))
    waiting.add(5)
    waiting.add(-7)
    waiting.add(float("nan"))
    level.set(3, tank="a")
    level.set(1.5, tank="a")
    assert recorded.point("waiting").value == -2
    assert recorded.point("level", {"tank": "a"}).value == 1.5


def test_a_histogram_puts_a_measurement_into_the_bucket_that_ends_at_it(recorded):
    sizes = insitu.histogram("sizes", bounds=(10, 1, 5))
    for amount in (0, 1, 1.5, 5, 10, 11, float("nan")):
        sizes.record(amount)
    point = recorded.point("sizes")
    assert recorded.family("sizes").bounds == (1, 5, 10)
    assert point.buckets == (2, 2, 1, 1)
    assert point.value == 28.5


def test_seconds_get_the_conventions_bounds(recorded):
    insitu.histogram("took", unit="s").record(1)
    assert recorded.family("took").bounds[0] == 0.005


def test_a_measurement_inside_a_trace_is_an_exemplar(recorded):
    sizes = insitu.histogram("traced_sizes")
    sizes.record(1)
    with insitu.span("a") as span:
        sizes.record(7)
    found = [exemplar for exemplar in recorded.point("traced_sizes").exemplars if exemplar]
    assert [(exemplar.value, exemplar.trace_id, exemplar.span_id) for exemplar in found] == [
        (7, span.trace.trace_id, span.span_id)
    ]


def test_an_unknown_label_is_left_out_and_named_once(recorded, caplog):
    orders = insitu.counter("few_labels", labels=("plan",))
    orders.add(1, plan="pro", coupon="x")
    orders.add(1, plan="pro", coupon="y")
    assert recorded.point("few_labels").labels == {"plan": "pro"}
    assert len(caplog.records) == 1
    assert "coupon" in caplog.text


def test_the_first_declaration_stays_and_the_second_warns(recorded, caplog):
    insitu.counter("declared", labels=("a",)).add(1, a="x")
    insitu.counter("declared", labels=("a",)).add(1, a="x")
    assert caplog.records == []
    other = insitu.counter("declared", labels=("b",))
    other.add(1, b="x")
    assert len(caplog.records) >= 1
    assert sum(point.value for point in recorded.family("declared").points) == 3


def test_a_second_declaration_of_another_kind_does_not_break_the_first(recorded):
    insitu.counter("mixed").add(2)
    insitu.histogram("mixed").record(5)
    insitu.gauge("mixed").set(7)
    assert (recorded.family("mixed").kind, recorded.point("mixed").value) == ("counter", 2)


def test_a_name_that_is_none_is_mended(recorded, caplog):
    insitu.counter("9 lives!").add(1)
    assert recorded.point("_9_lives_").value == 1
    assert "_9_lives_" in caplog.text


# --- before, after, again ---


def test_handles_made_before_init_work_after_it_and_again_after_a_shutdown():
    insitu.shutdown()
    before_init.add(5, plan="lost")
    for _ in range(2):
        with recording() as recorded:
            before_init.add(1, plan="pro")
            assert [point.value for point in recorded.family("made_before_init").points] == [1]
    before_init.add(5, plan="lost")


# --- threads ---


def test_eight_threads_lose_no_increment(recorded):
    orders, sizes = insitu.counter("raced", labels=("plan",)), insitu.histogram("raced_sizes", bounds=(1,))
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(125_000):
            orders.add(1, plan="pro")
        for _ in range(10_000):
            sizes.record(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = recorded.point("raced").value
    print(f"{total:,} of 1,000,000 increments")
    assert total == 1_000_000
    assert recorded.point("raced_sizes").buckets == (80_000, 0)


# --- bounds ---


def test_a_million_label_values_cost_little_and_lose_nothing(recorded):
    hits = insitu.counter("hits", labels=("user",))
    before = resident()
    for number in range(1_000_000):
        hits.add(1, user=str(number))
    grown = (resident() - before) / 2**20
    points = recorded.family("hits").points
    page, seconds = scrape(recorded)
    print(
        f"{len(points)} series, total {sum(point.value for point in points):,}, +{grown:.1f} MB, scrape {seconds:.3f} s"
    )
    assert len(points) <= SERIES + 1
    assert sum(point.value for point in points) == 1_000_000
    (overflow,) = [point for point in points if point.labels == {"otel.metric.overflow": True}]
    assert overflow.value == 1_000_000 - SERIES
    assert b"hits_total" in page
    assert grown <= 20
    assert seconds <= 0.2


def test_two_hundred_thousand_histogram_label_sets_cost_little_and_lose_nothing(recorded):
    sizes = insitu.histogram("answers", labels=("user",), bounds=(0.1, 1, 10))
    before = resident()
    for number in range(200_000):
        sizes.record(1.0, user=str(number))
    grown = (resident() - before) / 2**20
    points = recorded.family("answers").points
    page, seconds = scrape(recorded)
    print(f"{len(points)} series, +{grown:.1f} MB, scrape {seconds:.3f} s, {len(page):,} bytes")
    assert len(points) <= SERIES + 1
    assert sum(sum(point.buckets) for point in points) == 200_000
    assert sum(point.value for point in points) == 200_000
    assert grown <= 20
    assert seconds <= 0.2


def test_metrics_without_number_are_bounded(recorded, monkeypatch):
    monkeypatch.setattr(registry, "instruments", {})
    for number in range(1_100):
        insitu.counter(f"metric_{number}").add(1)
    assert len(registry.instruments) == 1_000


def test_a_huge_label_value_is_cut(recorded):
    insitu.counter("huge_label", labels=("a",)).add(1, a="x" * 1_000_000)
    assert len(recorded.point("huge_label").labels["a"]) == 256


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1e6, 1e6)), max_size=30))
def test_sums_are_those_of_the_measurements(measured):
    with recording() as recorded:
        total, sizes = insitu.updown("summed", labels=("k",)), insitu.histogram("distributed", labels=("k",))
        for key, amount in measured:
            total.add(amount, k=key)
            sizes.record(amount, k=key)
        for key in {key for key, _ in measured}:
            amounts = [amount for other, amount in measured if other == key]
            assert math.isclose(recorded.point("summed", {"k": key}).value, sum(amounts), abs_tol=1e-6)
            assert sum(recorded.point("distributed", {"k": key}).buckets) == len(amounts)
