"""sqlite3 on files, psycopg2 against a real PostgreSQL."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg2
import psycopg2.extras
import psycopg2.sql
import pymysql
import pytest
from fastapi import FastAPI
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

import insitu
from insitu import runtime
from insitu.adapters import dbapi
from insitu.core import context
from insitu.testing import recording
from tests.adapters.databases import restored, where
from tests.adapters.serving import call


@pytest.fixture
def recorded(monkeypatch):
    restored(monkeypatch)
    dbapi.hook_sqlite3(sqlite3)
    with recording() as started:
        yield started


@pytest.fixture
def file(tmp_path, recorded):
    connection = sqlite3.Connection(tmp_path / "shop.db")
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    connection.close()
    return str(tmp_path / "shop.db")


@pytest.fixture
def connection(file):
    made = sqlite3.connect(file)
    yield made
    made.close()


def names(recorded):
    return [span.name for span in recorded.spans]


def test_a_statement_is_a_client_span_without_its_values(connection, recorded, file):
    with insitu.span("work"):
        connection.cursor().execute("SELECT name FROM users WHERE name = 'alice' AND id = ?", (7,))
    span, work = recorded.span("SELECT users"), recorded.span("work")
    assert (span.kind.name, span.parent_id, span.status_code) == ("CLIENT", work.span_id, 0)
    assert span.attributes == {
        "db.system.name": "sqlite",
        "db.query.text": "SELECT name FROM users WHERE name = ? AND id = ?",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT users",
        "db.namespace": file,
    }
    assert span.scope.name == "insitu.sqlite3"


def test_the_shortcuts_of_a_connection_are_seen_like_cursors(connection, recorded):
    connection.execute("INSERT INTO users (name) VALUES ('alice')")
    connection.executemany("INSERT INTO users (name) VALUES (?)", [("bob",), ("carol",)])
    connection.executescript("DELETE FROM users WHERE name = 'bob'; SELECT 1;")
    assert connection.execute("SELECT count(*) FROM users").fetchone() == (2,)
    assert names(recorded) == ["INSERT users", "INSERT users", "DELETE users SELECT", "SELECT users"]
    batches = [span.attributes.get("db.operation.batch.size") for span in recorded.spans]
    assert batches == [None, 2, None, None]
    assert "alice" not in repr([span.attributes for span in recorded.spans])


def test_rows_that_come_one_by_one_are_all_written(connection, recorded):
    connection.executemany("INSERT INTO users (name) VALUES (?)", ((str(number),) for number in range(3)))
    assert connection.execute("SELECT count(*) FROM users").fetchone() == (3,)
    assert "db.operation.batch.size" not in recorded.span("INSERT users").attributes


def test_an_error_is_the_databases_own_and_marks_the_span_with_its_code(connection, recorded):
    connection.execute("INSERT INTO users VALUES (1, 'alice')")
    with pytest.raises(sqlite3.IntegrityError), insitu.span("work"):
        connection.execute("INSERT INTO users VALUES (1, 'bob')")
    (span,) = [span for span in recorded.spans if span.status_code and span.name != "work"]
    assert span.attributes["error.type"] == "sqlite3.IntegrityError"
    assert span.attributes["db.response.status_code"] == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert [error.type for error in recorded.errors] == ["sqlite3.IntegrityError"]


@pytest.mark.parametrize(
    "wrong", [lambda made: made.execute(), lambda made: made.execute(7), lambda made: made.cursor("no factory")]
)
def test_a_call_that_is_wrong_fails_as_it_does_without_us(connection, file, wrong):
    plain = sqlite3.Connection(file)
    with pytest.raises(TypeError) as expected:
        wrong(plain)
    plain.close()
    with pytest.raises(TypeError) as got:
        wrong(connection)
    assert str(got.value) == str(expected.value)


def test_classes_are_what_they_were(connection):
    assert isinstance(connection, sqlite3.Connection)
    assert isinstance(connection.cursor(), sqlite3.Cursor)
    assert (type(connection).__name__, type(connection).__module__) == ("Connection", "sqlite3")
    assert type(sqlite3.connect.__wrapped__).__name__ == "builtin_function_or_method"


class Rows(sqlite3.Cursor):
    """The application's own cursor, which says of each statement that it was here."""

    seen = []

    def execute(self, statement, *parameters):
        self.seen.append(statement)
        return super().execute(statement, *parameters)


class Bank(sqlite3.Connection):
    """The application's own connection."""

    __slots__ = ("name",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.name = "bank"
        self.execute("PRAGMA user_version")

    def cursor(self):
        return super().cursor(Rows)

    def execute(self, *given):
        return self.cursor().execute(*given)


@pytest.mark.parametrize("how", ["keyword", "position"])
@pytest.mark.filterwarnings("ignore:Passing more than 1 positional:DeprecationWarning")
def test_classes_of_the_application_keep_working_and_a_statement_through_them_is_one_span(recorded, file, how):
    Rows.seen = []
    made = sqlite3.connect(file, factory=Bank) if how == "keyword" else sqlite3.connect(file, 5, 0, "", True, Bank)
    assert made.execute("SELECT 'x' FROM users").fetchall() == []
    assert (type(made).__name__, made.name, isinstance(made, Bank)) == ("Bank", "bank", True)
    assert isinstance(made.cursor(), Rows)
    assert Rows.seen == ["PRAGMA user_version", "SELECT 'x' FROM users"]
    made.close()
    assert names(recorded) == ["PRAGMA", "SELECT users"]


def test_one_class_of_the_application_becomes_one_class(recorded, file):
    kinds = []
    for _ in range(2):
        made = sqlite3.connect(file, factory=Bank)
        kinds.append(type(made))
        made.close()
    assert kinds[0] is kinds[1]


def test_a_factory_that_is_no_class_is_left_alone(recorded, file):
    made = sqlite3.connect(file, factory=lambda *args, **kwargs: sqlite3.Connection(file))
    made.execute("SELECT 1")
    made.close()
    assert recorded.spans == []


@pytest.mark.parametrize("given", [lambda file: os.fsencode(file), lambda file: f"file:{file}?mode=ro&key=secret"])
def test_a_database_is_told_by_its_file_however_it_is_given(recorded, file, given):
    made = sqlite3.connect(database=given(file), uri=True)
    made.execute("SELECT 1")
    made.close()
    assert where(recorded.spans[0]) == ("sqlite", file, None, None)


def test_statements_of_a_request_are_below_it(recorded, file):
    app = FastAPI()

    @app.get("/users")
    def users():
        made = sqlite3.connect(file)
        rows = made.execute("SELECT name FROM users").fetchall()
        made.close()
        return rows

    asyncio.run(call(runtime.current().instrument(app), "/users"))
    assert recorded.span("SELECT users").parent_id == recorded.span("GET /users").span_id


def test_what_is_suppressed_is_not_traced(connection, recorded):
    token = attach(set_value(context.SUPPRESS_KEY, value=True))
    connection.execute("SELECT 1")
    detach(token)
    assert recorded.spans == []


def test_after_shutdown_statements_run_untouched(connection, recorded):
    insitu.shutdown()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_opentelemetrys_instrumentation_of_sqlite3_replaces_ours(recorded, file):
    SQLite3Instrumentor().instrument()
    try:
        made = sqlite3.connect(file)
        made.cursor().execute("SELECT name FROM users")
        made.close()
    finally:
        SQLite3Instrumentor().uninstrument()
    assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.sqlite3"]


STORE = """
import asyncio, sqlite3, sys
import insitu
from insitu.adapters import libraries
from insitu.signals.tracing import provider
from tests.adapters.serving import call, status

class Seen:
    names = []
    on_end = shutdown = force_flush = lambda self, *_: True

    def on_start(self, span, parent_context=None):
        self.names.append(span.name)

async def app(scope, receive, send):
    made = sqlite3.connect(":memory:")
    made.execute("SELECT 'the one of the application'")
    made.close()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

insitu.init(service="own", exporters=(), store=sys.argv[1])
provider.add_span_processor(Seen())
served = insitu.instrument(app)
for path in ("/", "/monitoring/overview", "/monitoring/traces", "/monitoring/logs", "/monitoring/metrics"):
    assert status(asyncio.run(call(served, path))) == 200, path
    assert insitu.flush(10)
insitu.shutdown()
print(libraries.found["sqlite3"].state, Seen.names)
"""


def test_the_store_of_insitu_is_never_traced_neither_by_the_page_nor_on_its_own_threads(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INSITU", "OTEL"))}
    done = subprocess.run(
        [sys.executable, "-c", STORE, str(tmp_path)],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "instrumented ['GET', 'SELECT']\n", done.stderr


# -- psycopg2


@pytest.fixture
def hooked(monkeypatch, recorded):
    monkeypatch.setattr(psycopg2, "connect", psycopg2.connect)
    dbapi.hook_psycopg2(psycopg2)
    return recorded


@pytest.fixture
def other(hooked, postgresql):
    made = psycopg2.connect(postgresql.url)
    yield made
    made.close()


def test_a_statement_of_psycopg2_is_a_client_span_that_says_where_it_went(other, hooked, postgresql):
    with insitu.span("work"), other.cursor() as cursor:
        cursor.execute("SELECT %s FROM pg_class WHERE relname = 'secret' LIMIT 1", ("secret",))
    span = hooked.span("SELECT pg_class")
    assert (span.kind.name, span.parent_id) == ("CLIENT", hooked.span("work").span_id)
    assert where(span) == ("postgresql", "postgres", "127.0.0.1", postgresql.port)
    assert span.scope.name == "insitu.psycopg2"
    assert "secret" not in repr(span.attributes)


def test_texts_of_psycopg2_may_be_bytes_or_composed(other, hooked):
    with other.cursor() as cursor:
        cursor.execute(b"SELECT 'bytes' FROM pg_class")
        cursor.execute(
            psycopg2.sql.SQL("SELECT {} FROM {}").format(
                psycopg2.sql.Literal("secret"), psycopg2.sql.Identifier("pg_type")
            )
        )
    assert [span.attributes["db.query.text"] for span in hooked.spans] == [
        "SELECT ? FROM pg_class",
        'SELECT ? FROM "pg_type"',
    ]


def test_cursors_and_connections_of_ones_own_keep_working_in_psycopg2(hooked, postgresql):
    made = psycopg2.connect(
        postgresql.url,
        connection_factory=psycopg2.extras.MinTimeLoggingConnection,
        cursor_factory=psycopg2.extras.RealDictCursor,
    )
    made.initialize(sys.stderr, mintime=1_000_000)
    assert isinstance(made, psycopg2.extras.MinTimeLoggingConnection)
    with made.cursor() as cursor:
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchall() == [{"one": 1}]
        cursor.executemany("SELECT %s", [(1,), (2,)])
    with made.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor) as cursor:
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone().one == 1
    with made.cursor("named") as cursor:
        cursor.execute("SELECT 1 AS one FROM pg_class")
        assert cursor.fetchone() == {"one": 1}
    made.close()
    assert names(hooked) == ["SELECT", "SELECT", "SELECT", "SELECT pg_class"]
    assert hooked.spans[1].attributes["db.operation.batch.size"] == 2


def test_an_error_of_psycopg2_has_its_sqlstate(other, hooked):
    with pytest.raises(psycopg2.errors.UndefinedTable), other.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")
    assert hooked.span("SELECT nowhere").attributes["db.response.status_code"] == "42P01"


# -- PyMySQL


@pytest.fixture
def mysql(recorded, mariadb_port):
    made = pymysql.connect(host="127.0.0.1", port=mariadb_port, user="tester", database="shop")
    with made.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE users (id integer PRIMARY KEY, name text)")
    dbapi.hook_pymysql(pymysql)
    yield made
    made.close()


def test_a_statement_of_pymysql_is_a_client_span_that_says_where_it_went(mysql, recorded, mariadb_port):
    with insitu.span("work"), mysql.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute('SELECT name FROM users WHERE name = "alice" AND id = %s', (7,))
    span = recorded.span("SELECT users")
    assert (span.kind.name, span.parent_id) == ("CLIENT", recorded.span("work").span_id)
    assert where(span) == ("mysql", "shop", "127.0.0.1", mariadb_port)
    assert span.attributes["db.query.text"] == "SELECT name FROM users WHERE name = ? AND id = %s"


def test_many_at_once_are_one_span_in_pymysql_though_it_sends_them_one_by_one(mysql, recorded):
    with mysql.cursor() as cursor:
        cursor.executemany("INSERT INTO users VALUES (%s, 'x')", [(1,), (2,)])
        cursor.executemany("UPDATE users SET name = 'y' WHERE id = %s", args=[(1,), (2,), (3,)])
        cursor.execute("SELECT count(*) FROM users WHERE name = 'y'")
        assert cursor.fetchone() == (2,)
    assert names(recorded) == ["INSERT users", "UPDATE users", "SELECT users"]
    assert [span.attributes.get("db.operation.batch.size") for span in recorded.spans] == [2, 3, None]


def test_an_error_of_pymysql_has_its_number_and_a_closed_cursor_raises_as_before(mysql, recorded):
    with mysql.cursor() as cursor, pytest.raises(pymysql.ProgrammingError):
        cursor.execute("SELECT * FROM nowhere")
    assert recorded.span("SELECT nowhere").attributes["db.response.status_code"] == "1146"
    with pytest.raises(pymysql.ProgrammingError, match="Cursor closed"):
        cursor.execute("SELECT 1")
    assert len(recorded.spans) == 1
