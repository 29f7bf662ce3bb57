import pytest
from hypothesis import given
from hypothesis import strategies as some

from insitu.core.records import Exemplar, Family, Point
from insitu.store import layout
from insitu.store.cells import Cells, added
from insitu.store.slots import Readings, Slot


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def publish(path, *families, resume=False):
    slot = Slot(path)
    if resume:
        slot.resume(set())
    slot.write(Cells().filled(slot, families), 1)
    return slot


def merged(folder, *slots):
    readings = list(Readings().of(folder, [slot.path for slot in slots]))
    return {
        family.name: {tuple(sorted(point.labels.items())): point for point in family.points}
        for family in added(readings)
    }


def values(folder, name, *slots):
    return {labels: point.value for labels, point in merged(folder, *slots).get(name, {}).items()}


def one(kind, value, merge=None, time=0, **labels):
    return Family("depth", kind, [Point(labels, value, time=time)], merge=merge)


@pytest.mark.parametrize(
    ("merge", "of_three"),
    [
        ("sum", {(): 8}),
        ("max", {(): 5}),
        ("last", {(): 2}),
        ("worker", {(("worker", "0"),): 5, (("worker", "1"),): 1, (("worker", "2"),): 2}),
    ],
)
def test_a_gauge_is_merged_as_it_was_declared(folder, merge, of_three):
    slots = [
        publish(folder / f"00{n}.val", one("gauge", v, merge, t)) for n, (v, t) in enumerate([(5, 1), (1, 2), (2, 3)])
    ]
    assert values(folder, "depth") == of_three
    for slot in slots:
        slot.release()


def test_a_gauge_goes_with_its_worker_and_a_counter_stays(folder):
    publish(folder / "000.val", one("gauge", 5), Family("orders", "counter", [Point({}, 7)])).release()
    living = publish(folder / "001.val", one("gauge", 1), Family("orders", "counter", [Point({}, 1)]))
    assert values(folder, "depth") == {(("worker", "1"),): 1}
    assert values(folder, "orders") == {(): 8}
    living.release()


def test_a_worker_that_is_alone_needs_no_label(folder):
    slot = publish(folder / "000.val", one("gauge", 5))
    assert values(folder, "depth") == {(): 5}
    slot.release()


def test_the_next_worker_has_its_predecessors_counts_but_not_its_gauges(folder):
    publish(folder / "000.val", one("gauge", 5), Family("orders", "counter", [Point({}, 7)])).release()
    slot = publish(folder / "000.val", Family("orders", "counter", [Point({}, 1)]), resume=True)
    assert values(folder, "orders") == {(): 8}
    assert values(folder, "depth") == {}
    slot.release()


def test_histograms_add_up_and_keep_the_newest_exemplar_of_each_bucket(folder):
    def took(buckets, total, *exemplars):
        return Family("took", "histogram", [Point({"route": "/"}, total, buckets, exemplars)], "s", bounds=(0.1,))

    old, new = Exemplar(0.05, 10**18, 2**127 + 5, 2**63 + 1), Exemplar(0.06, 10**18 + 1, 6, 2)
    slots = [
        publish(folder / "000.val", took([1, 2], 3.5, old, None)),
        publish(folder / "001.val", took([1, 0], 0.25, new, None)),
        publish(folder / "002.val", took([0, 1], 2.0, None, old)),
    ]
    point = merged(folder)["took"][("route", "/"),]
    assert (point.value, point.buckets, point.exemplars) == (5.75, [2, 3], [new, old])
    for slot in slots:
        slot.release()


def test_what_all_workers_of_a_host_say_alike_is_not_published(folder):
    slot = publish(folder / "000.val", one("gauge", 5, "host"))
    assert merged(folder) == {}
    slot.release()


def test_two_declarations_that_differ_stay_apart(folder):
    slots = [publish(folder / "000.val", one("gauge", 5, "sum")), publish(folder / "001.val", one("updown", 1))]
    assert len(added(list(Readings().of(folder, ())))) == 2
    for slot in slots:
        slot.release()


def test_beyond_the_cap_label_sets_of_many_workers_share_a_series_and_the_total_is_exact(folder, monkeypatch):
    monkeypatch.setattr(layout, "SERIES", 10)
    for number in range(8):
        points = [Point({"user": f"{number}-{each}"}, 1) for each in range(5)]
        took = [Point({"user": f"{number}-{each}"}, 0.5, [1, 0]) for each in range(5)]
        families = Family("orders", "counter", points), Family("took", "histogram", took, bounds=(1.0,))
        publish(folder / "000.val", *families, resume=True).release()
    orders, took = merged(folder)["orders"], merged(folder)["took"]
    assert len(orders) == len(took) == 11
    assert orders[("otel.metric.overflow", True),].value == 30
    assert sum(point.value for point in orders.values()) == sum(point.buckets[0] for point in took.values()) == 40


@given(some.lists(some.dictionaries(some.sampled_from("abcd"), some.integers(0, 2**40)), max_size=4))
def test_counters_are_the_sum_of_what_each_worker_says(tmp_path_factory, workers):
    folder = tmp_path_factory.mktemp("slots")
    for number, counts in enumerate(workers):
        points = [Point({"plan": plan}, count) for plan, count in counts.items()]
        publish(folder / f"{number:03d}.val", Family("orders", "counter", points)).release()
    expected = {}
    for counts in workers:
        for plan, count in counts.items():
            expected[("plan", plan),] = expected.get((("plan", plan),), 0) + count
    assert values(folder, "orders") == expected
