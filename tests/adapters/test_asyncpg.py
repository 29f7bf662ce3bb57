"""asyncpg against a real PostgreSQL."""

import asyncio
import inspect

import asyncpg
import pytest
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor

import insitu
from insitu.adapters import asyncpg as adapter
from insitu.adapters import pools
from insitu.core import context
from insitu.testing import recording
from tests.adapters.databases import restored, where


@pytest.fixture
def recorded(monkeypatch):
    restored(monkeypatch)
    adapter.hook(asyncpg)
    with recording() as started:
        yield started


def run(postgresql, work):
    """Runs `work(connection)` on a connection that has a table of users, below a span."""

    async def running():
        made = await asyncpg.connect(postgresql.url)
        try:
            await made.execute("CREATE TEMPORARY TABLE users (id integer PRIMARY KEY, name text)")
            with insitu.span("work"):
                return await work(made)
        finally:
            await made.close()

    return asyncio.run(running())


def statements(recorded):
    """The spans below `work`."""
    above = recorded.span("work")
    return [span for span in recorded.spans if span.parent_id == above.span_id]


def names(recorded):
    return [span.name for span in statements(recorded)]


def test_a_statement_is_a_client_span_that_says_where_it_went_and_not_its_values(recorded, postgresql):
    run(postgresql, lambda made: made.fetch("SELECT name FROM users WHERE name = 'alice' AND id = $1", 7))
    (span,) = statements(recorded)
    assert (span.name, span.kind.name, span.status_code) == ("SELECT users", "CLIENT", 0)
    assert span.attributes == {
        "db.system.name": "postgresql",
        "db.query.text": "SELECT name FROM users WHERE name = ? AND id = $1",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT users",
        "db.namespace": "postgres",
        "server.address": "127.0.0.1",
        "server.port": postgresql.port,
    }
    assert span.scope.name == "insitu.asyncpg"


def test_each_way_to_ask_is_one_span(recorded, postgresql):
    async def work(made):
        await made.execute("INSERT INTO users VALUES (1, 'a')")
        await made.execute("INSERT INTO users VALUES ($1, $2)", 2, "b")
        await made.executemany("INSERT INTO users VALUES ($1, $2)", [(3, "c"), (4, "d")])
        assert await made.fetchval(query="SELECT count(*) FROM users") == 4
        assert (await made.fetchrow("SELECT name FROM users ORDER BY id"))["name"] == "a"
        assert len(await made.fetch("SELECT 1 FROM users")) == 4

    run(postgresql, work)
    assert names(recorded) == ["INSERT users"] * 3 + ["SELECT users"] * 3
    batches = [span.attributes.get("db.operation.batch.size") for span in statements(recorded)]
    assert batches == [None, None, 2, None, None, None]


def test_a_prepared_statement_is_a_span_each_time_it_runs(recorded, postgresql):
    async def work(made):
        prepared = await made.prepare("SELECT $1::int FROM pg_class LIMIT 1")
        assert await prepared.fetchval(1) == 1
        assert (await prepared.fetchrow(2))[0] == 2
        assert [row[0] for row in await prepared.fetch(3)] == [3]
        await prepared.executemany([(1,), (2,)])

    run(postgresql, work)
    assert names(recorded) == ["SELECT pg_class"] * 4
    assert statements(recorded)[-1].attributes["db.operation.batch.size"] == 2


def test_a_cursor_is_one_span_however_many_rows_are_fetched(recorded, postgresql):
    async def work(made):
        async with made.transaction():
            found = [row async for row in made.cursor("SELECT oid FROM pg_class LIMIT 50", prefetch=10)]
            assert len(found) == 50
            cursor = await made.cursor("SELECT oid FROM pg_type LIMIT 50")
            assert len(await cursor.fetch(10)) == 10
            assert await cursor.fetchrow() is not None

    run(postgresql, work)
    assert names(recorded) == ["BEGIN", "SELECT pg_class", "SELECT pg_type", "COMMIT"]


def test_connections_of_a_pool_and_classes_of_the_application_are_seen(recorded, postgresql):
    class Mine(asyncpg.Connection):
        async def fetch(self, *args, **kwargs):
            return await super().fetch(*args, **kwargs)

    async def running():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=2, connection_class=Mine) as pool:
            with insitu.span("work"):
                assert await pool.fetchval("SELECT count(*) > 0 FROM pg_class")
                async with pool.acquire() as made:
                    assert isinstance(made, asyncpg.Connection)
                    await made.fetch("SELECT 1 FROM pg_type")

    asyncio.run(running())
    asked = [span for span in statements(recorded) if "pg_advisory_unlock_all" not in span.attributes["db.query.text"]]
    assert [span.name for span in asked] == ["SELECT pg_class", "SELECT pg_type"]
    assert where(asked[0]) == ("postgresql", "postgres", "127.0.0.1", postgresql.port)


def test_an_error_is_the_drivers_own_and_marks_the_span_with_its_sqlstate(recorded, postgresql):
    async def work(made):
        with pytest.raises(asyncpg.UndefinedTableError):
            await made.fetch("SELECT * FROM nowhere")
        with pytest.raises(asyncpg.UniqueViolationError):
            await made.executemany("INSERT INTO users VALUES ($1, 'x')", [(1,), (1,)])
        prepared = await made.prepare("SELECT 1 / $1::int")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await prepared.fetchval(0)

    run(postgresql, work)
    assert {span.status_code for span in statements(recorded)} == {2}
    codes = [span.attributes["db.response.status_code"] for span in statements(recorded)]
    assert codes == ["42P01", "23505", "22012"]
    assert statements(recorded)[0].attributes["error.type"] == "asyncpg.exceptions.UndefinedTableError"


def test_a_cancelled_statement_is_nobodys_error(recorded, postgresql):
    async def work(made):
        task = asyncio.create_task(made.fetch("SELECT pg_sleep(60)"))
        other = await asyncpg.connect(postgresql.url)
        async with asyncio.timeout(30):
            while not await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
                await asyncio.sleep(0.01)
        await other.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(postgresql, work)
    (span,) = [span for span in statements(recorded) if "pg_sleep" in span.attributes["db.query.text"]]
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])


def test_misuse_fails_as_it_does_without_us(recorded, postgresql):
    async def work(made):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'query'"):
            await made.fetch()
        prepared = await made.prepare("SELECT 1")
        await made.close()
        with pytest.raises(asyncpg.InterfaceError, match="the underlying connection is closed"):
            await prepared.fetch()

    run(postgresql, work)


def test_interleaved_statements_of_many_tasks_do_not_mix(recorded, postgresql):
    async def one(pool, number):
        with insitu.span(f"work {number}"):
            await asyncio.gather(*(pool.fetchval(f"SELECT {number} FROM pg_class LIMIT 1") for _ in range(3)))

    async def running():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=4, reset=no_reset) as pool:
            await asyncio.gather(*(one(pool, number) for number in range(10)))

    async def no_reset(_):
        """Leaves a connection as it is when it goes back."""

    asyncio.run(running())
    for trace in recorded.traces:
        *below, root = trace.spans
        assert [span.parent_id for span in below] == [root.span_id] * 3


def test_a_pool_tells_what_it_has_and_how_long_one_waits(recorded, monkeypatch, postgresql):
    monkeypatch.setattr(pools, "_watched", type(pools._watched)())

    async def running():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool:
            await pool.execute("SELECT 1")
            async with pool.acquire():
                with pytest.raises(TimeoutError):
                    await pool.acquire(timeout=0.01)
                return {name: recorded.family(f"db.client.connection.{name}") for name in ("count", "max")}

    told = asyncio.run(running())
    assert [point.value for point in told["count"].points] == [1, 0]
    assert [point.value for point in told["max"].points] == [1]
    assert recorded.point("db.client.connection.timeouts").value == 1
    waits = recorded.point("db.client.connection.wait_time")
    assert sum(waits.buckets) == 1
    assert waits.labels["db.client.connection.pool.name"].endswith(f":{postgresql.port}/postgres")


def test_wrapped_methods_still_look_like_what_they_are(recorded):
    assert inspect.iscoroutinefunction(asyncpg.Connection.fetch)
    assert list(inspect.signature(asyncpg.Connection.fetch).parameters)[:2] == ["self", "query"]


def test_what_is_suppressed_is_not_traced_and_after_shutdown_nothing_is(recorded, postgresql):
    async def work(made):
        token = attach(set_value(context.SUPPRESS_KEY, value=True))
        await made.fetch("SELECT 1")
        detach(token)
        assert statements_so_far() == []
        insitu.shutdown()
        assert await made.fetchval("SELECT 1") == 1

    def statements_so_far():
        return [span.name for span in recorded.spans if span.name == "SELECT"]

    run(postgresql, work)


@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_of_asyncpg_replaces_ours(monkeypatch, postgresql, order):
    restored(monkeypatch)
    switches = [AsyncPGInstrumentor().instrument, lambda: adapter.hook(asyncpg)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            run(postgresql, lambda made: made.fetch("SELECT 1 FROM pg_class"))
        finally:
            monkeypatch.undo()
            AsyncPGInstrumentor().uninstrument()
        assert {span.scope.name for span in statements(recorded)} == {"opentelemetry.instrumentation.asyncpg"}
        assert len(statements(recorded)) == 1
