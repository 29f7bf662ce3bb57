import gc

import pytest

from insitu.adapters import pools
from insitu.adapters.pools import Counts, Wait
from insitu.testing import recording

NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


class Pool:
    """Some library's."""

    def __init__(self, *counts):
        self.counts = Counts(*counts)


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(pools, "_watched", type(pools._watched)())
    with recording() as started:
        yield started


def watch(pool, name="shop"):
    pools.watch(pool, name, lambda each: each.counts)
    return pool


def values(recorded, name):
    family = {family.name: family for family in recorded.runtime.collect()}.get(f"db.client.connection.{name}")
    return {tuple(point.labels.values()): point.value for point in family.points} if family else {}


def test_pools_of_one_name_are_added_up(recorded):
    alive = [watch(Pool(1, 2, 5, 3)), watch(Pool(2, 0, 5, 0)), watch(Pool(4, 4), "other")]
    assert values(recorded, "count") == {
        ("shop", "used"): 3,
        ("shop", "idle"): 2,
        ("other", "used"): 4,
        ("other", "idle"): 4,
    }
    assert values(recorded, "max") == {("shop",): 10}
    assert values(recorded, "pending_requests") == {("shop",): 3}
    assert len(alive) == 3


def test_a_pool_is_counted_once_and_as_long_as_it_lives(recorded):
    pool = watch(watch(Pool(1, 0)))
    assert values(recorded, "count") == {("shop", "used"): 1, ("shop", "idle"): 0}
    del pool
    gc.collect()
    assert values(recorded, "count") == {}


def test_a_pool_that_cannot_be_counted_is_left_out(recorded):
    broken, other = watch(object.__new__(Pool)), watch(Pool(1, 1))
    assert values(recorded, "count") == {("shop", "used"): 1, ("shop", "idle"): 1}
    assert broken is not other


def test_a_wait_that_fails_otherwise_is_neither_measured_nor_one_in_vain(recorded):
    pool = watch(Pool(0, 0))
    with pytest.raises(KeyError), Wait(pool, lambda error: isinstance(error, TimeoutError)):
        raise KeyError
    with pytest.raises(TimeoutError), Wait(pool, lambda error: isinstance(error, TimeoutError)):
        raise TimeoutError
    with Wait(Pool(0, 0), lambda _: True):
        pass  # nobody watches it
    assert recorded.point("db.client.connection.timeouts").labels == {NAME: "shop"}
    assert "db.client.connection.wait_time" not in {family.name for family in recorded.runtime.collect()}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"server.address": "db", "server.port": 5432, "db.namespace": "shop"}, "db:5432/shop"),
        ({"server.address": "/run/redis.sock", "db.namespace": "0"}, "/run/redis.sock/0"),
        ({"db.namespace": "shop.db"}, "shop.db"),
        ({}, "redis"),
    ],
)
def test_a_pool_without_a_name_is_called_by_where_it_leads(where, expected):
    assert pools.name_of(where, "redis") == expected
