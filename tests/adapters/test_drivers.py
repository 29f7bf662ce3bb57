"""One statement is one span, where SQLAlchemy or Django sends it through a driver that is watched as well."""

import asyncio
import sqlite3

import aiosqlite
import asyncpg
import django.db.backends.signals
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db.utils import ConnectionHandler
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import insitu
from insitu.adapters import asyncpg as asyncpg_adapter
from insitu.adapters import dbapi, django_orm, drivers
from insitu.adapters import psycopg as psycopg_adapter
from insitu.adapters.statements import Database
from insitu.testing import recording
from tests.adapters.databases import restored, sqlalchemy_hooked, where
from tests.adapters.django_settings import configure

configure()


@pytest.fixture
def recorded(monkeypatch):
    """Everything that may see a statement is hooked."""
    restored(monkeypatch)
    monkeypatch.setattr(psycopg2, "connect", psycopg2.connect)
    for hook, module in (
        (dbapi.hook_aiosqlite, aiosqlite),
        (dbapi.hook_sqlite3, sqlite3),
        (dbapi.hook_psycopg2, psycopg2),
        (psycopg_adapter.hook, psycopg),
        (asyncpg_adapter.hook, asyncpg),
        (django_orm.hook, django.db.backends.signals),
    ):
        hook(module)
    with sqlalchemy_hooked(monkeypatch), recording() as started:
        yield started
    django.db.backends.signals.connection_created.disconnect(dispatch_uid="insitu")


def seen(recorded):
    return [(span.scope.name, span.name) for span in recorded.spans]


@pytest.mark.parametrize("name", ["sqlite", "postgresql+psycopg", "postgresql+psycopg2"])
def test_sqlalchemys_statements_are_told_by_sqlalchemy_alone(recorded, request, tmp_path, name):
    postgresql = name != "sqlite" and request.getfixturevalue("postgresql")
    engine = sqlalchemy.create_engine(f"{name}://{postgresql.address if postgresql else f'/{tmp_path}/shop.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE t (a integer)"))
        connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
        assert len(connection.execute(text("SELECT a FROM t")).all()) == 2
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.execute(text("SELECT * FROM nowhere"))
    engine.dispose()
    expected = ["CREATE TABLE t", "INSERT t", "SELECT t", "SELECT nowhere"]
    assert seen(recorded) == [("insitu.sqlalchemy", each) for each in expected]
    code = recorded.spans[-1].attributes["db.response.status_code"]
    assert code == ("42P01" if postgresql else "SQLITE_ERROR")


@pytest.mark.parametrize("name", ["sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg"])
def test_statements_of_an_async_engine_are_told_by_sqlalchemy_alone(recorded, request, tmp_path, name):
    postgresql = name.startswith("postgresql") and request.getfixturevalue("postgresql")

    async def run():
        engine = create_async_engine(f"{name}://{postgresql.address if postgresql else f'/{tmp_path}/shop.db'}")
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE t (a integer)"))
            await connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
            assert len((await connection.execute(text("SELECT a FROM t"))).all()) == 2
            async for row in await connection.stream(text("SELECT a FROM t WHERE a > 1")):
                assert row.a == 2
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT * FROM nowhere"))
        await engine.dispose()

    asyncio.run(run())
    expected = ["CREATE TABLE t", "INSERT t", "SELECT t", "SELECT t", "SELECT nowhere"]
    assert seen(recorded) == [("insitu.sqlalchemy", each) for each in expected]
    code = recorded.spans[-1].attributes["db.response.status_code"]
    assert code == ("42P01" if postgresql else "SQLITE_ERROR")


@pytest.fixture(params=["sqlite3", "postgresql"])
def connection(request, recorded, tmp_path):
    """A connection of Django's to a database of its own."""
    settings = {"ENGINE": f"django.db.backends.{request.param}", "NAME": str(tmp_path / "shop.db")}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        settings |= {"NAME": server.database, "USER": server.user, "HOST": server.host, "PORT": str(server.port)}
    made = ConnectionHandler({"default": settings})["default"]
    made.ensure_connection()
    recorded.records.clear()
    yield made
    made.close()


def test_djangos_statements_are_told_by_django_alone(recorded, connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE t (a integer)")
        cursor.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
        cursor.execute("SELECT a FROM t")
        assert len(cursor.fetchall()) == 2
        with pytest.raises(django.db.ProgrammingError if connection.vendor == "postgresql" else django.db.Error):
            cursor.execute("SELECT * FROM nowhere")
    expected = ["CREATE TABLE t", "INSERT t", "SELECT t", "SELECT nowhere"]
    assert seen(recorded) == [("insitu.django", each) for each in expected]
    code = recorded.spans[-1].attributes["db.response.status_code"]
    assert code == ("42P01" if connection.vendor == "postgresql" else "SQLITE_ERROR")


def test_a_cursor_of_the_server_is_told_by_django_alone(recorded, connection):
    with connection.chunked_cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchmany(10) == [(1,)]
    assert seen(recorded) == [("insitu.django", "SELECT")]


def test_a_connection_beside_them_is_told_by_its_driver(recorded, postgresql):
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://{postgresql.address}")
    with engine.connect() as owned, psycopg.connect(postgresql.url) as own:
        owned.execute(text("SELECT 1"))
        own.execute("SELECT 2")
    engine.dispose()
    assert seen(recorded) == [("insitu.sqlalchemy", "SELECT"), ("insitu.psycopg", "SELECT")]


def test_connections_that_sqlalchemy_had_before_the_hooks_are_its_own_as_well(recorded, postgresql):
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://{postgresql.address}")
    with engine.connect() as connection:
        del connection.connection.driver_connection._insitu_place
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    assert seen(recorded) == [("insitu.sqlalchemy", "SELECT")]


def test_a_driver_that_fails_to_say_where_a_connection_leads_is_traced_all_the_same(recorded):
    driver = drivers.Driver("any", "AnyInstrumentor", "any", lambda connection: connection.nothing)

    class Connection:
        """No driver's."""

    with driver.begin(Connection(), ("SELECT 1",), {}):
        pass
    assert [where(span) for span in recorded.spans] == [("any", None, None, None)]


def test_what_is_known_of_a_connection_goes_with_it(recorded):
    class Connection:
        """As asyncpg's, it takes no attribute."""

        __slots__ = ("__weakref__",)

    made, before = Connection(), len(drivers._places)
    driver = drivers.Driver("any", "AnyInstrumentor", "any", lambda _: Database("any", "shop"))
    for _ in range(2):
        with driver.begin(made, ("SELECT 1",), {}):
            pass
    assert [where(span) for span in recorded.spans] == [("any", "shop", None, None)] * 2
    assert len(drivers._places) == before + 1
    del made
    assert len(drivers._places) == before


def test_a_statement_inside_of_one_is_the_drivers_own_affair(recorded):
    made = sqlite3.connect(":memory:")
    made.create_function("twice", 0, lambda: made.execute("SELECT 1").fetchone()[0])
    with insitu.span("work"):
        assert made.execute("SELECT twice()").fetchone() == (1,)
    made.close()
    assert [span.name for span in recorded.spans] == ["SELECT", "work"]


def test_aiosqlite_alone_is_seen_below_the_current_span(recorded, tmp_path):
    async def run():
        async with aiosqlite.connect(tmp_path / "shop.db") as made:
            with insitu.span("work"):
                await made.execute("SELECT 1")

    asyncio.run(run())
    assert recorded.span("SELECT").parent_id == recorded.span("work").span_id
