"""Real engines on SQLite, sync and async."""

import asyncio
import threading

import pytest
import sqlalchemy
from fastapi import FastAPI
from opentelemetry.context import attach, detach, set_value
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

import insitu
from insitu import runtime
from insitu.adapters import sqlalchemy as adapter
from insitu.core import context
from insitu.testing import recording
from tests.adapters.databases import sqlalchemy_hooked
from tests.adapters.serving import call


@pytest.fixture
def recorded(monkeypatch):
    with sqlalchemy_hooked(monkeypatch), recording() as started:
        yield started


@pytest.fixture
def engine(tmp_path):
    made = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=QueuePool, pool_size=4)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"))
    yield made
    made.dispose()


def test_a_statement_is_a_client_span_without_its_values(engine, recorded, tmp_path):
    with insitu.span("work"), engine.connect() as connection:
        connection.execute(text("SELECT name FROM users WHERE name = 'alice' AND id = 7"))
    span, work = recorded.span("SELECT users"), recorded.span("work")
    assert (span.kind.name, span.parent_id, span.status_code) == ("CLIENT", work.span_id, 0)
    assert span.attributes == {
        "db.system.name": "sqlite",
        "db.query.text": "SELECT name FROM users WHERE name = ? AND id = ?",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT users",
        "db.namespace": f"{tmp_path}/shop.db",
    }
    assert work.start_time <= span.start_time <= span.end_time <= work.end_time


def test_parameters_never_stand_on_a_span(engine, recorded):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (name) VALUES (:name)"), {"name": "alice"})
    span = recorded.span("INSERT users")
    assert "alice" not in repr(span.attributes)
    assert "db.operation.batch.size" not in span.attributes


def test_many_at_once_are_one_span_with_their_number(engine, recorded):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (name) VALUES (:name)"), [{"name": str(n)} for n in range(50)])
    assert recorded.span("INSERT users").attributes["db.operation.batch.size"] == 50


def test_an_error_is_the_databases_own_and_marks_the_span(engine, recorded):
    with pytest.raises(sqlalchemy.exc.OperationalError), insitu.span("work"), engine.connect() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    span = recorded.span("SELECT nowhere")
    assert span.status_code == 2
    assert span.attributes["error.type"] == "sqlite3.OperationalError"
    assert [occurred.name for occurred in span.events] == ["exception"]
    assert span.end_time


def test_a_constraint_that_fails_inside_of_many_ends_the_span(engine, recorded):
    rows = [{"id": 1}, {"id": 1}]
    with pytest.raises(sqlalchemy.exc.IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id) VALUES (:id)"), rows)
    assert recorded.span("INSERT users").attributes["error.type"] == "sqlite3.IntegrityError"


def test_a_database_that_cannot_be_reached_raises_as_before(recorded):
    broken = sqlalchemy.create_engine("sqlite:////nowhere/at/all.db")
    with pytest.raises(sqlalchemy.exc.OperationalError), broken.connect():
        pass
    broken.dispose()
    assert recorded.spans == []


def test_each_thread_of_a_pool_has_its_own_spans(engine, recorded):
    def work(number):
        with insitu.span(f"work {number}"):
            for _ in range(5):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorded.traces) == 4
    for trace in recorded.traces:
        *statements, root = trace.spans
        assert [span.parent_id for span in statements] == [root.span_id] * 5


def test_the_orm_is_seen_as_what_it_sends(engine, recorded):
    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    with insitu.span("work"), Session(engine) as session:
        session.add_all([User(name="alice"), User(name="bob")])
        session.commit()
        assert {user.name for user in session.scalars(sqlalchemy.select(User))} == {"alice", "bob"}
    names = [span.name for span in recorded.spans if span.name != "work"]
    assert set(names) == {"INSERT users", "SELECT users"}
    assert "alice" not in repr([span.attributes for span in recorded.spans])


def test_an_async_engine_is_traced_below_the_current_span(recorded, tmp_path):
    async def run():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
        with insitu.span("work"):
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE t (a)"))
                await connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
                result = await connection.execute(text("SELECT a FROM t WHERE a > 0"))
                assert len(result.all()) == 2
            with pytest.raises(sqlalchemy.exc.OperationalError):
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT * FROM nowhere"))
        await engine.dispose()

    asyncio.run(run())
    work = recorded.span("work")
    below = {span.name: span for span in recorded.spans if span is not work}
    assert list(below) == ["CREATE TABLE t", "INSERT t", "SELECT t", "SELECT nowhere"]
    assert {span.parent_id for span in below.values()} == {work.span_id}
    assert below["INSERT t"].attributes["db.operation.batch.size"] == 2
    assert below["SELECT nowhere"].status_code == 2


def test_interleaved_statements_of_async_requests_do_not_mix(recorded, tmp_path):
    app = FastAPI()
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/mixed.db")

    @app.get("/users/{number}")
    async def user(number: int):
        insitu.bind(user=number)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await asyncio.sleep(0)
            await connection.execute(text("SELECT 2"))

    async def run():
        wrapped = runtime.current().instrument(app)
        await asyncio.gather(*(call(wrapped, f"/users/{number}") for number in range(30)))
        await engine.dispose()

    asyncio.run(run())
    assert len(recorded.traces) == 30
    for trace in recorded.traces:
        first, second, request = trace.spans
        assert first.parent_id == second.parent_id == request.span_id
        assert request.attributes["url.path"] == f"/users/{first.attributes['user.id']}"


def test_a_statement_without_parameters_is_a_span(engine, recorded):
    with insitu.span("work"), engine.connect() as connection:
        connection.execution_options(no_parameters=True).exec_driver_sql("SELECT '%'")
    assert recorded.span("SELECT").status_code == 0


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("handles", [False, True])
def test_the_applications_own_listener_of_the_dialect_has_its_say(engine, recorded, insert, handles):
    said = []

    def listener(cursor, statement, parameters, execution):
        said.append(statement)
        if handles:
            cursor.execute("SELECT 'theirs'")
        return handles

    event.listen(engine, "do_execute", listener, insert=insert)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 'ours'")).scalar() == ("theirs" if handles else "ours")
    event.remove(engine, "do_execute", listener)
    assert said == ["SELECT 'ours'"]


def test_what_is_suppressed_is_not_traced(engine, recorded):
    token = attach(set_value(context.SUPPRESS_KEY, value=True))
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        detach(token)
    assert recorded.spans == []


def test_after_shutdown_statements_run_untouched(engine, recorded):
    insitu.shutdown()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://me:secret@db.example:5432/shop", ("postgresql", "shop", "db.example", 5432)),
        ("mssql+pyodbc://me:secret@db.example/shop", ("microsoft.sql_server", "shop", "db.example", None)),
        ("mysql+pymysql://me:secret@db.example/", ("mysql", None, "db.example", None)),
    ],
)
def test_where_a_statement_goes_is_told_without_the_password(recorded, url, expected):
    class Stub:
        """The part of an execution that is read: no driver of these databases need be installed."""

        def __init__(self, url):
            self.url = sqlalchemy.make_url(url)
            self.root_connection = self.engine = self.dialect = self.pool = self
            self._dbapi_connection = None
            self.name = self.url.get_backend_name()

    adapter._statement(Stub(url), "SELECT 1", 1, None).end()
    (span,) = recorded.spans
    keys = ("db.system.name", "db.namespace", "server.address", "server.port")
    assert tuple(span.attributes.get(key) for key in keys) == expected
    assert "secret" not in repr(span.attributes)
