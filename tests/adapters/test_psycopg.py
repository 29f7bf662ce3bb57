"""psycopg 3 against a real PostgreSQL, sync and async."""

import asyncio
import inspect

import psycopg
import pytest
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from psycopg import sql

import insitu
from insitu.adapters import psycopg as adapter
from insitu.core import context
from insitu.testing import recording
from tests.adapters.databases import restored, where


@pytest.fixture
def recorded(monkeypatch):
    restored(monkeypatch)
    adapter.hook(psycopg)
    with recording() as started:
        yield started


@pytest.fixture
def connection(postgresql, recorded):
    with psycopg.connect(postgresql.url) as made:
        made.execute("CREATE TEMPORARY TABLE users (id integer PRIMARY KEY, name text)")
        forget(recorded)
        yield made


def forget(recorded):
    recorded.records.clear()


def names(recorded):
    return [span.name for span in recorded.spans]


def run_async(postgresql, work):
    """Runs `work(connection)` on an AsyncConnection."""

    async def run():
        async with await psycopg.AsyncConnection.connect(postgresql.url) as made:
            return await work(made)

    return asyncio.run(run())


def test_a_statement_is_a_client_span_that_says_where_it_went_and_not_its_values(connection, recorded, postgresql):
    with insitu.span("work"):
        connection.execute("SELECT name FROM users WHERE name = 'alice' AND id = %s", (7,))
    span, work = recorded.span("SELECT users"), recorded.span("work")
    assert (span.kind.name, span.parent_id, span.status_code) == ("CLIENT", work.span_id, 0)
    assert span.attributes == {
        "db.system.name": "postgresql",
        "db.query.text": "SELECT name FROM users WHERE name = ? AND id = %s",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT users",
        "db.namespace": "postgres",
        "server.address": "127.0.0.1",
        "server.port": postgresql.port,
    }
    assert span.scope.name == "insitu.psycopg"


def test_an_async_statement_is_the_same(postgresql, recorded):
    async def work(made):
        with insitu.span("work"):
            async with made.cursor() as cursor:
                await cursor.execute("SELECT 'alice' FROM pg_class")
                await cursor.executemany("SELECT %s", [(1,), (2,), (3,)])
            await made.execute(query="SELECT 1 FROM pg_type")

    run_async(postgresql, work)
    *statements, above = recorded.spans
    assert names(recorded) == ["SELECT pg_class", "SELECT", "SELECT pg_type", "work"]
    assert {span.parent_id for span in statements} == {above.span_id}
    assert statements[1].attributes["db.operation.batch.size"] == 3
    assert where(statements[0]) == ("postgresql", "postgres", "127.0.0.1", postgresql.port)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'secret' FROM users",
        b"SELECT 'secret' FROM users",
        sql.SQL("SELECT 'secret' FROM users"),
        sql.SQL("SELECT {} FROM {}").format("secret", sql.SQL("users")),
    ],
    ids=lambda statement: type(statement).__name__,
)
def test_a_statement_may_be_text_bytes_or_composed(connection, recorded, statement):
    connection.execute(statement)
    assert recorded.span("SELECT users").attributes["db.query.text"] == "SELECT ? FROM users"


def test_a_composition_that_cannot_be_made_fails_in_the_driver_with_its_own_error(connection, recorded):
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type"):
        connection.execute(sql.SQL("SELECT {}").format(object()))
    assert [span.status_code for span in recorded.spans] == [2]


def test_many_at_once_are_one_span_with_their_number(connection, recorded):
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO users VALUES (%s, 'x')", [(number,) for number in range(50)])
    assert recorded.span("INSERT users").attributes["db.operation.batch.size"] == 50


def test_a_cursor_of_the_server_is_one_span_however_many_rows_are_fetched(connection, recorded, postgresql):
    with connection.cursor("named") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT oid FROM pg_class LIMIT 50")
        assert len(list(cursor)) == 50

    async def work(made):
        async with made.cursor("named") as cursor:
            await cursor.execute("SELECT oid FROM pg_type LIMIT 5")
            return await cursor.fetchall()

    assert len(run_async(postgresql, work)) == 5
    assert names(recorded) == ["SELECT pg_class", "SELECT pg_type"]


def test_cursors_of_the_application_are_seen(connection, recorded):
    class Mine(psycopg.ClientCursor):
        def execute(self, *args, **kwargs):
            return super().execute(*args, **kwargs)

    connection.cursor_factory = Mine
    connection.execute("SELECT %s FROM users", (1,))
    psycopg.RawCursor(connection).execute("SELECT $1::int FROM users", [1])
    assert names(recorded) == ["SELECT users", "SELECT users"]


def test_a_pipeline_goes_on_working(connection, recorded):
    with connection.pipeline(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO users VALUES (1, 'a')")
        other = connection.execute("SELECT name FROM users")
    assert other.fetchall() == [("a",)]
    assert names(recorded) == ["INSERT users", "SELECT users"]


def test_copy_goes_on_working(connection, recorded):
    with connection.cursor() as cursor:
        with cursor.copy("COPY users FROM STDIN") as copy:
            copy.write_row((1, "a"))
        assert cursor.execute("SELECT name FROM users").fetchall() == [("a",)]
        assert [row[0] for row in cursor.stream("SELECT generate_series(1, 3)")] == [1, 2, 3]
    assert names(recorded) == ["SELECT users"]


def test_an_error_is_the_drivers_own_and_marks_the_span_with_its_sqlstate(connection, recorded, postgresql):
    with pytest.raises(psycopg.errors.UndefinedTable) as raised, insitu.span("work"):
        connection.execute("SELECT * FROM nowhere")
    assert raised.value.sqlstate == "42P01"
    span = recorded.span("SELECT nowhere")
    assert (span.status_code, span.attributes["error.type"]) == (2, "psycopg.errors.UndefinedTable")
    assert span.attributes["db.response.status_code"] == "42P01"
    assert [error.type for error in recorded.errors] == ["psycopg.errors.UndefinedTable"]  # once, though two saw it
    forget(recorded)

    async def work(made):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await made.execute("SELECT 1 / 0 FROM pg_class")

    run_async(postgresql, work)
    assert recorded.span("SELECT pg_class").attributes["db.response.status_code"] == "22012"


def test_a_cancelled_statement_is_nobodys_error(postgresql, recorded):
    async def work(made):
        task = asyncio.create_task(made.execute("SELECT pg_sleep(60)"))
        async with await psycopg.AsyncConnection.connect(postgresql.url, autocommit=True) as other:
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            async with asyncio.timeout(30):
                while not (await (await other.execute(sleeping)).fetchone())[0]:
                    await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(postgresql, work)
    (span,) = [span for span in recorded.spans if "pg_sleep" in span.attributes["db.query.text"]]
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])


def test_a_closed_connection_raises_as_before(postgresql, recorded):
    made = psycopg.connect(postgresql.url)
    cursor = made.cursor()
    made.close()
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        cursor.execute("SELECT 1")
    assert [where(span) for span in recorded.spans] == [("postgresql", None, None, None)]


def test_wrapped_methods_still_look_like_what_they_are(recorded):
    assert inspect.iscoroutinefunction(psycopg.AsyncCursor.execute)
    assert list(inspect.signature(psycopg.Cursor.execute).parameters)[:3] == ["self", "query", "params"]


def test_what_is_suppressed_is_not_traced_and_after_shutdown_nothing_is(connection, recorded):
    token = attach(set_value(context.SUPPRESS_KEY, value=True))
    connection.execute("SELECT 1")
    detach(token)
    assert recorded.spans == []
    insitu.shutdown()
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_of_psycopg_replaces_ours(monkeypatch, postgresql, order):
    restored(monkeypatch)
    switches = [PsycopgInstrumentor().instrument, lambda: adapter.hook(psycopg)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            with psycopg.connect(postgresql.url) as made:
                made.execute("SELECT 1 FROM pg_class")
        finally:
            PsycopgInstrumentor().uninstrument()
        assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.psycopg"]


def test_one_connection_that_opentelemetry_instruments_is_traced_once_and_others_by_us(recorded, postgresql):
    with psycopg.connect(postgresql.url) as theirs, psycopg.connect(postgresql.url) as ours:
        PsycopgInstrumentor.instrument_connection(theirs)
        theirs.execute("SELECT 1")
        ours.execute("SELECT 1")
    assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.psycopg", "insitu.psycopg"]
