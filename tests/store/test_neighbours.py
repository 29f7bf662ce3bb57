"""What a store with several services tells about each of them."""

import zlib

import pytest
from opentelemetry.trace import SpanKind

from insitu.core.records import Family, Point
from insitu.store.folder import place_for
from insitu.store.neighbours import Neighbours
from insitu.store.reader import Reader
from insitu.store.writer import Writer
from insitu.testing import FakeClock
from tests.store.facts import SECOND, a_span, a_trace
from tests.store.test_store import Store

PEER = {"server.address": "10.0.0.7", "server.port": 8000}


def took(times, seconds, **labels):
    return Family("http.client.request.duration", "histogram", [Point(labels, seconds, (times,))], "s")


def take(store, family, after=10.0):
    store.clock.advance(after)
    list(store.writer.sample([family]))
    store.writer.write()


@pytest.fixture
def stores(tmp_path):
    made = {name: Store(place_for(str(tmp_path), name)) for name in ("shop", "prices")}
    yield made
    for each in made.values():
        each.writer.close()


@pytest.fixture
def neighbours(stores, tmp_path):
    reader = Reader(tmp_path / "shop", stores["shop"].writer.database)
    return Neighbours("The shop", reader, tmp_path)


def called(neighbours, clock, seconds):
    until = clock.wall()
    told = neighbours.facts(until - round(seconds * SECOND), until)["The shop"]
    return [(call.labels, call.times, call.seconds) for call in told.calls["http.client.request.duration"]]


def test_every_service_of_the_store_is_known_and_the_own_one_by_its_own_name(stores, neighbours):
    for store in stores.values():
        take(store, took(1, 0.1))
    assert sorted(neighbours.facts(0, stores["shop"].clock.wall())) == ["The shop", "prices"]


def test_calls_are_counted_between_two_samples(stores, neighbours):
    shop = stores["shop"]
    for number in range(1, 13):
        take(shop, took(10 * number, number, host="a"))
    ((labels, times, seconds),) = called(neighbours, shop.clock, 60)
    assert (labels, times, seconds) == ({"host": "a"}, pytest.approx(60), pytest.approx(6))


def test_what_is_sent_to_a_queue_is_counted_though_nobody_waits_for_it(stores, neighbours):
    shop = stores["shop"]
    take(shop, Family("insitu.task.published", "counter", [Point({"queue": "pictures"}, 4)]))
    until = shop.clock.wall()
    told = neighbours.facts(until - 60 * SECOND, until)["The shop"]
    assert list(told.calls["insitu.task.published"]) == [({"queue": "pictures"}, 4.0, 0.0)]


def test_what_grew_over_the_begin_of_the_time_counts_in_proportion(stores, neighbours):
    shop = stores["shop"]
    for number in range(1, 13):
        take(shop, took(10 * number, number))
    ((_, times, _),) = called(neighbours, shop.clock, 65)
    assert times == pytest.approx(65)


def test_a_process_that_began_in_the_time_and_one_that_began_anew_count_from_nothing(stores, neighbours):
    shop = stores["shop"]
    for total in (100, 110, 5, 9):
        take(shop, took(total, total / 10))
    ((_, times, _),) = called(neighbours, shop.clock, 100)
    assert times == pytest.approx(119)


@pytest.fixture
def succeed(stores, tmp_path, monkeypatch):
    """Ends the process that writes, and begins one that finds its file."""

    def succeed(seconds=0.0, *, same=False):
        last = stores["shop"]
        last.writer.close()
        if not same:
            monkeypatch.setattr(Writer, "_told", {})
        now = (last.clock.wall() - FakeClock().wall()) / SECOND
        stores["shop"] = Store(place_for(str(tmp_path), "shop"), after=now + seconds)
        return stores["shop"]

    return succeed


@pytest.mark.parametrize("seconds", [0.0, 40.0, 3 * 3_600.0])
def test_a_process_goes_on_where_one_that_is_dead_has_ended(stores, neighbours, succeed, seconds):
    take(stores["shop"], took(40, 4.0, host="a"))
    for counted in (50, 7):
        following = succeed(seconds)
        take(following, took(counted, counted / 10, host="b"), after=1.0)
    others = [("a", 40, 4.0)] if 2 * seconds < 60 else []
    times = 57 if seconds < 60 else 7
    assert sorted((labels["host"], *rest) for labels, *rest in called(neighbours, following.clock, 60)) == [
        *others,
        ("b", pytest.approx(times), pytest.approx(times / 10)),
    ]


@pytest.mark.parametrize("left", [b"", b"no sample", zlib.compress(b'{"http.client.request.duration": 5}')])
def test_what_a_dead_process_has_damaged_costs_its_own_counts_alone(stores, neighbours, succeed, left):
    take(stores["shop"], took(40, 4.0))
    stores["shop"].writer.database()._connection.execute("UPDATE sample SET data = ?", (left,))
    following = succeed(20.0)
    following.put(a_trace(name="kept"))
    take(following, took(50, 5.0), after=1.0)
    assert following.names() == ["kept"]
    assert called(neighbours, following.clock, 15) == [({}, 50, pytest.approx(5.0))]


def test_what_a_process_has_told_before_it_began_anew_is_counted_once(stores, neighbours, succeed):
    take(stores["shop"], took(40, 4.0))
    following = succeed(same=True)
    take(following, took(50, 5.0))
    assert called(neighbours, following.clock, 60) == [({}, 50, pytest.approx(5.0))]


def test_spans_with_another_process_at_their_other_end_are_told(stores, neighbours):
    shop = stores["shop"]
    call = a_span("GET", root=False, own=PEER, at=shop.clock.wall())
    call.kind = SpanKind.CLIENT
    request = a_span("GET /", parent=7, at=shop.clock.wall())
    shop.writer.accept([a_trace(call, request)])
    shop.writer.write()
    told = neighbours.facts(0, shop.clock.wall() + SECOND)["The shop"].remote
    assert {(span.span_id, span.parent_id, span.peer) for span in told} == {
        (f"{call.span_id:016x}", "", "10.0.0.7:8000"),
        (f"{request.span_id:016x}", f"{7:016x}", ""),
    }


def test_a_trace_is_whole_over_all_services(stores, neighbours):
    shop, prices = stores.values()
    call = a_span("GET", root=False, own=PEER, at=shop.clock.wall())
    request = a_span("GET /", at=shop.clock.wall())
    answer = a_span("GET /price", parent=call.span_id, at=shop.clock.wall() + 1)
    trace = a_trace(call, request)
    shop.writer.accept([trace])
    prices.writer.accept([a_trace(answer, trace_id=trace.trace_id)])
    for store in stores.values():
        store.writer.write()
    found = neighbours.trace(f"{trace.trace_id:032x}")
    assert [(span["service"], span["name"]) for span in found["spans"]] == [
        ("The shop", "GET"),
        ("The shop", "GET /"),
        ("prices", "GET /price"),
    ]
    assert neighbours.trace("f" * 32) is None


def test_a_store_in_memory_has_this_service_alone():
    store = Store(None)
    take(store, took(1, 0.1))
    found = Neighbours("shop", Reader(None, store.writer.database), None).facts(0, store.clock.wall())
    assert list(found) == ["shop"]
    store.writer.close()


def test_it_is_known_from_when_to_when_calls_of_a_service_without_requests_are_counted(stores, neighbours):
    shop = stores["shop"]
    shop.clock.advance(100)
    take(shop, took(10, 1.0))
    begun = shop.clock.wall() // (10 * SECOND) * 10 * SECOND
    take(shop, took(20, 1.0))
    counted = shop.clock.wall()
    shop.clock.advance(9)
    told = neighbours.facts(counted - 60 * SECOND, shop.clock.wall())["The shop"]
    assert (told.since, told.until) == (begun, counted)
