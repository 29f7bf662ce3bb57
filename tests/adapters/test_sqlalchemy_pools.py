import asyncio

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from insitu.adapters import pools
from insitu.testing import recording
from tests.adapters.databases import sqlalchemy_hooked

NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(pools, "_watched", type(pools._watched)())
    with sqlalchemy_hooked(monkeypatch), recording() as started:
        yield started


def engine(tmp_path, **options):
    made = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=QueuePool, pool_size=2, **options)
    with made.connect() as connection:
        connection.execute(text("SELECT 1"))
    return made


def connections(recorded):
    return {point.labels[STATE]: point.value for point in recorded.family("db.client.connection.count").points}


def test_connections_are_counted_by_state(recorded, tmp_path):
    made = engine(tmp_path, max_overflow=3)
    assert connections(recorded) == {"used": 0, "idle": 1}
    with made.connect(), made.connect():
        assert connections(recorded) == {"used": 2, "idle": 0}
    assert recorded.point("db.client.connection.max").value == 5
    assert recorded.point("db.client.connection.max").labels == {NAME: f"{tmp_path}/shop.db"}
    made.dispose()


def test_a_pool_that_takes_the_place_of_another_is_counted_in_its_stead(recorded, tmp_path):
    made = engine(tmp_path)
    made.dispose()
    with made.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert connections(recorded)["used"] == 1
    made.dispose()


def test_without_a_limit_none_is_told(recorded, tmp_path):
    made = engine(tmp_path, max_overflow=-1)
    assert "db.client.connection.max" not in {family.name for family in recorded.runtime.collect()}
    made.dispose()


def test_waits_are_measured_and_vain_ones_counted(recorded, tmp_path):
    made = engine(tmp_path, max_overflow=0, pool_timeout=0.01)
    with made.connect(), made.connect(), pytest.raises(sqlalchemy.exc.TimeoutError):
        made.connect()
    assert sum(recorded.point("db.client.connection.wait_time").buckets) == 2
    assert recorded.point("db.client.connection.timeouts").value == 1
    made.dispose()


def test_a_pool_that_keeps_no_connections_has_nothing_to_count(recorded):
    made = sqlalchemy.create_engine("sqlite://")
    with made.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert not [name for name in (family.name for family in recorded.runtime.collect()) if "connection" in name]
    made.dispose()


def test_the_pool_of_an_async_engine_is_counted(recorded, tmp_path):
    async def run():
        made = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db", poolclass=AsyncAdaptedQueuePool)
        for _ in range(2):
            async with made.connect() as connection:
                await connection.execute(text("SELECT 1"))
                counted = connections(recorded)
        await made.dispose()
        return counted

    assert asyncio.run(run()) == {"used": 1, "idle": 0}
    assert sum(recorded.point("db.client.connection.wait_time").buckets) == 1
