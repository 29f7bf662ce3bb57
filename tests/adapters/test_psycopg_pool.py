import asyncio

import psycopg_pool
import pytest

from insitu.adapters import pools
from insitu.adapters import psycopg_pool as adapter
from insitu.testing import recording

pytestmark = pytest.mark.backend

STATE = "db.client.connection.state"


@pytest.fixture
def recorded(monkeypatch):
    for kind in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
        monkeypatch.setattr(kind, "getconn", kind.getconn)
    monkeypatch.setattr(pools, "_watched", type(pools._watched)())
    adapter.hook(psycopg_pool)
    with recording() as started:
        yield started


def check(recorded):
    states = {point.labels[STATE]: point.value for point in recorded.family("db.client.connection.count").points}
    assert states == {"used": 1, "idle": 0}
    assert recorded.point("db.client.connection.max").value == 1
    assert recorded.point("db.client.connection.timeouts").value == 1
    waits = recorded.point("db.client.connection.wait_time")
    assert (sum(waits.buckets), waits.labels) == (1, {"db.client.connection.pool.name": "shop"})


def test_a_pool_tells_what_it_has_and_how_long_one_waits(recorded, postgresql):
    with psycopg_pool.ConnectionPool(postgresql.url, min_size=1, max_size=1, name="shop", open=True) as pool:
        with pool.connection(), pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.01)
        with pool.connection():
            pass
        taken = pool.getconn()
        states = {point.labels[STATE]: point.value for point in recorded.family("db.client.connection.count").points}
        pool.putconn(taken)
    assert states == {"used": 1, "idle": 0}
    assert recorded.point("db.client.connection.timeouts").value == 1
    assert sum(recorded.point("db.client.connection.wait_time").buckets) == 3


def test_an_async_pool_does_as_well(recorded, postgresql):
    async def run():
        made = psycopg_pool.AsyncConnectionPool(postgresql.url, min_size=1, max_size=1, name="shop", open=False)
        async with made as pool, pool.connection():
            with pytest.raises(psycopg_pool.PoolTimeout):
                await pool.getconn(timeout=0.01)
            check(recorded)

    asyncio.run(run())
