"""Real pools: where they lead, and what they hold."""

import asyncio
import gc

import pytest
import redis

from insitu.adapters import pools as watched
from insitu.adapters import redis as adapter
from insitu.adapters import redis_pools as pools
from insitu.signals.metrics import registry
from insitu.testing import recording
from tests.adapters.serving import plain_redis
from tests.servers import until

NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(pools, "_places", type(pools._places)())
    monkeypatch.setattr(watched, "_watched", type(watched._watched)())
    monkeypatch.setattr(registry, "callbacks", [*registry.callbacks])
    plain_redis(monkeypatch)
    adapter.hook(redis)
    with recording() as started:
        yield started


def connections(recorded):
    """The connections by state, and the most that there may be."""
    families = {family.name: family for family in recorded.runtime.collect()}
    count, limit = families.get("db.client.connection.count"), families.get("db.client.connection.max")
    states = {point.labels[STATE]: point.value for point in count.points} if count else {}
    return states, [point.value for point in limit.points] if limit else []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"url": "redis://cache.example:7000/3"}, ("cache.example", 7000, "3")),
        ({"url": "redis://me:secret@cache.example"}, ("cache.example", 6379, "0")),
        ({"url": "unix:///run/redis.sock?db=2"}, ("/run/redis.sock", None, "2")),
        ({"url": "redis://"}, ("localhost", 6379, "0")),
    ],
)
def test_a_pool_says_where_it_leads(recorded, options, expected):
    place = pools.place(redis.ConnectionPool.from_url(**options))
    assert tuple(place.get(key) for key in ("server.address", "server.port", "db.namespace")) == expected
    assert "secret" not in repr(place)


def test_what_leads_nowhere_in_particular_says_nothing(recorded):
    sentinel = redis.sentinel.Sentinel([("127.0.0.1", 1)])
    assert pools.place(sentinel.master_for("shop").connection_pool) == {}
    assert pools.place(None) == {}


@pytest.mark.backend
@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_connections_are_counted_by_state_for_as_long_as_their_pool_lives(recorded, redis_port, kind):
    pool = kind(host="127.0.0.1", port=redis_port, max_connections=5)
    pools.place(pool)
    with redis.Redis(connection_pool=pool) as client, client.pipeline() as pipeline:
        client.ping()
        assert connections(recorded) == ({"used": 0, "idle": 1}, [5])
        pipeline.watch("a")  # holds its connection
        client.ping()
        assert connections(recorded) == ({"used": 1, "idle": 1}, [5])
        point = recorded.point("db.client.connection.count", {STATE: "used"})
        assert point.labels[NAME] == f"127.0.0.1:{redis_port}/0"
        assert recorded.family("db.client.connection.count").kind == "updown"
    pool.disconnect()
    del pool, client, pipeline
    until(lambda: gc.collect() or connections(recorded) == ({}, []), what="the pool's end")


@pytest.mark.backend
@pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool"])
def test_connections_of_an_async_pool_are_counted_too(recorded, redis_port, kind):
    async def run():
        pool = getattr(redis.asyncio, kind)(host="127.0.0.1", port=redis_port, max_connections=5)
        pools.place(pool)
        async with redis.asyncio.Redis(connection_pool=pool) as client, client.pipeline() as pipeline:
            await pipeline.watch("a")
            await client.ping()
            counted = connections(recorded)
        await pool.disconnect()
        return counted

    assert asyncio.run(run()) == ({"used": 1, "idle": 1}, [5])


@pytest.mark.backend
def test_pools_to_one_place_are_added_up(recorded, redis_port):
    clients = [redis.Redis(host="127.0.0.1", port=redis_port, max_connections=5) for _ in range(3)]
    for client in clients:
        pools.place(client.connection_pool)
        client.ping()
    assert connections(recorded) == ({"used": 0, "idle": 3}, [15])
    for client in clients:
        client.close()


def test_a_pool_of_another_make_is_left_out(recorded):
    class Pool:
        connection_kwargs = {"host": "cache.example", "port": 1}

    pool = Pool()
    assert pools.place(pool)["server.address"] == "cache.example"
    assert connections(recorded) == ({}, [])


def test_of_very_many_pools_no_more_are_kept_than_there_is_room_for(recorded, monkeypatch):
    monkeypatch.setattr(pools, "MOST_POOLS", 2)
    many = [redis.ConnectionPool(host=f"host{number}") for number in range(5)]
    assert [pools.place(pool)["server.address"] for pool in many] == [f"host{number}" for number in range(5)]
    assert len(pools._places) == 2


@pytest.mark.backend
@pytest.mark.parametrize("full", [False, True])
def test_the_wait_for_a_connection_is_measured_and_a_vain_one_counted(recorded, redis_port, full):
    pool = redis.BlockingConnectionPool(host="127.0.0.1", port=redis_port, max_connections=1, timeout=0.01)
    with redis.Redis(connection_pool=pool) as client, client.pipeline() as pipeline:
        client.ping()
        if full:
            pipeline.watch("a")
            with pytest.raises(redis.ConnectionError, match="No connection available"):
                client.ping()
            assert recorded.point("db.client.connection.timeouts").value == 1
    waits = recorded.point("db.client.connection.wait_time")
    assert waits.labels == {NAME: f"127.0.0.1:{redis_port}/0"}
    assert sum(waits.buckets) == 1 + full


@pytest.mark.backend
def test_the_wait_for_a_connection_of_an_async_pool_is_measured_and_a_vain_one_counted(recorded, redis_port):
    async def run():
        pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=redis_port, max_connections=1, timeout=0.01)
        async with redis.asyncio.Redis(connection_pool=pool) as client, client.pipeline() as pipeline:
            await client.ping()
            await pipeline.watch("a")
            with pytest.raises(redis.ConnectionError, match="No connection available"):
                await client.ping()
        await pool.disconnect()

    asyncio.run(run())
    assert recorded.point("db.client.connection.timeouts").value == 1
    assert sum(recorded.point("db.client.connection.wait_time").buckets) == 2


@pytest.mark.backend
def test_a_server_that_is_not_there_is_no_wait_in_vain(recorded):
    pool = redis.BlockingConnectionPool(host="127.0.0.1", port=1)
    with pytest.raises(redis.ConnectionError), redis.Redis(connection_pool=pool) as client:
        client.ping()
    assert not {"db.client.connection.timeouts", "db.client.connection.wait_time"} & {
        family.name for family in recorded.runtime.collect()
    }
