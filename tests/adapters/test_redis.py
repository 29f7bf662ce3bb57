"""redis-py against a real Redis, sync and async."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading

import pytest
import redis
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.redis import RedisInstrumentor

import insitu
from insitu.adapters import redis as adapter
from insitu.adapters import redis_commands
from insitu.core import context, guard
from insitu.testing import recording
from tests.adapters.serving import plain_redis
from tests.servers import free_port, redis_server, until

pytestmark = pytest.mark.backend

both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.fixture
def plain(monkeypatch):
    plain_redis(monkeypatch)
    return monkeypatch


@pytest.fixture
def port(redis_port):
    with redis.Redis(port=redis_port) as client:
        client.flushall()
    return redis_port


@pytest.fixture
def recorded(port, plain):
    with recording() as started:
        adapter.hook(redis)
        yield started


def talk(kind, port, dialogue, cluster=False, **options):
    """Lets a generator talk to Redis: it is sent what each thing that it yields has answered, sync or async."""
    name = "RedisCluster" if cluster else "Redis"
    options = {"host": "127.0.0.1", "port": port, **options}
    if kind == "sync":
        with getattr(redis, name)(**options) as client:
            return drive(dialogue(client))

    async def run():
        async with getattr(redis.asyncio, name)(**options) as client:
            return await drive_async(dialogue(client))

    return asyncio.run(run())


def drive(steps):
    try:
        answer = None
        while True:
            answer = steps.send(answer)
    except StopIteration as end:
        return end.value


async def drive_async(steps):
    step, given = steps.send, None
    while True:
        try:
            yielded = step(given)
        except StopIteration as end:
            return end.value
        try:
            step, given = steps.send, await yielded if inspect.isawaitable(yielded) else yielded
        except Exception as error:
            step, given = steps.throw, error


def counts(recorded):
    """How many keys were there, and how many were not."""
    families = {family.name: family for family in recorded.runtime.collect()}
    points = families["insitu.cache.requests"].points if "insitu.cache.requests" in families else ()
    found = {point.labels["result"]: point.value for point in points if point.labels["cache"] == "redis"}
    return found.get("hit", 0), found.get("miss", 0)


@both
def test_a_command_is_a_client_span_below_the_current_one_without_its_value(recorded, port, kind):
    def dialogue(client):
        with insitu.span("work"):
            yield client.set("user:1", "alice", ex=60)
        return (yield client.get("user:1"))

    assert talk(kind, port, dialogue, db=2) == b"alice"
    span, work = recorded.span("SET"), recorded.span("work")
    assert (span.kind.name, span.parent_id, span.status_code) == ("CLIENT", work.span_id, 0)
    assert span.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "db.query.text": "SET user:1 ? ? ?",
        "db.namespace": "2",
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert work.start_time <= span.start_time <= span.end_time <= work.end_time


@both
@pytest.mark.parametrize(("command", "code"), [(("LPUSH", "text", "1"), "WRONGTYPE"), (("GET",), "ERR")])
def test_an_error_is_the_applications_own_and_marks_the_span(recorded, port, kind, command, code):
    def dialogue(client):
        yield client.set("text", "a")
        with pytest.raises(redis.ResponseError) as raised:
            yield client.execute_command(*command)
        return raised.value

    error = talk(kind, port, dialogue)
    span = recorded.span(command[0])
    assert (span.status_code, span.attributes["db.response.status_code"]) == (2, code)
    assert span.attributes["error.type"] == f"redis.exceptions.{type(error).__name__}"
    assert [event.name for event in span.events] == ["exception"]


@both
def test_a_server_that_cannot_be_reached_raises_as_before_and_has_no_code(recorded, kind):
    def dialogue(client):
        with pytest.raises(redis.ConnectionError):
            yield client.get("a")

    talk(kind, free_port(), dialogue, retry=None)
    (span,) = recorded.spans
    assert (span.name, span.attributes["error.type"]) == ("GET", "redis.exceptions.ConnectionError")
    assert "db.response.status_code" not in span.attributes


@both
def test_a_pipeline_is_one_span_with_all_its_commands(recorded, port, kind):
    def dialogue(client):
        pipeline = client.pipeline(transaction=False)
        pipeline.set("a", "secret").incr("n").get("a")
        return (yield pipeline.execute())

    assert talk(kind, port, dialogue) == [True, 1, b"secret"]
    (span,) = recorded.spans
    assert span.name == span.attributes["db.operation.name"] == "PIPELINE"
    assert span.attributes["db.query.text"] == "SET a ?\nINCRBY n ?\nGET a"
    assert span.attributes["db.operation.batch.size"] == 3


@both
def test_a_transaction_is_called_multi_and_says_what_it_is_made_of_where_all_are_alike(recorded, port, kind):
    def dialogue(client):
        pipeline = client.pipeline()
        for number in range(500):
            pipeline.set(f"key:{number}", "secret")
        yield pipeline.execute()

    talk(kind, port, dialogue)
    (span,) = recorded.spans
    assert (span.name, span.attributes["db.operation.name"]) == ("MULTI", "MULTI SET")
    assert span.attributes["db.operation.batch.size"] == 500
    text = span.attributes["db.query.text"]
    assert text.startswith("SET key:0 ?\nSET key:1 ?\n")
    assert text.endswith("\n…")
    assert len(text) <= redis_commands.TEXT_LENGTH + 2


@both
def test_what_a_pipeline_asks_while_it_watches_has_spans_of_its_own(recorded, port, kind):
    def dialogue(client):
        pipeline = client.pipeline()
        yield pipeline.watch("stock")
        assert (yield pipeline.get("stock")) is None
        pipeline.multi()
        pipeline.set("stock", 1)
        return (yield pipeline.execute())

    assert talk(kind, port, dialogue) == [True]
    assert [span.name for span in recorded.spans] == ["WATCH", "GET", "MULTI"]
    assert "db.operation.batch.size" not in recorded.span("MULTI").attributes  # one is no batch


@both
def test_an_empty_pipeline_sends_nothing_and_has_no_span(recorded, port, kind):
    def dialogue(client):
        return (yield client.pipeline().execute())

    assert talk(kind, port, dialogue) == []
    assert recorded.spans == []


@both
def test_the_error_of_a_command_inside_of_a_pipeline_marks_it(recorded, port, kind):
    def dialogue(client):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            yield client.pipeline(transaction=False).set("a", 1).lpush("a", 2).execute()

    talk(kind, port, dialogue)
    assert recorded.span("PIPELINE").attributes["db.response.status_code"] == "WRONGTYPE"


@both
@pytest.mark.parametrize("command", [("AUTH", "hunter2"), ("HELLO", "3", "AUTH", "me", "hunter2"), ("AUTH hunter2",)])
def test_a_password_is_never_told(recorded, port, kind, command):
    def dialogue(client):
        with pytest.raises(redis.RedisError):
            yield client.execute_command(*command)

    talk(kind, port, dialogue, retry=None)
    (span,) = recorded.spans
    assert span.attributes["db.query.text"] == command[0].split()[0]
    assert "hunter2" not in repr(span.attributes)


@both
@pytest.mark.parametrize(
    ("ask", "expected", "hit"),
    [
        (lambda client: client.get("here"), (1, 0), True),
        (lambda client: client.get("gone"), (0, 1), False),
        (lambda client: client.getex("here", ex=10), (1, 0), True),
        (lambda client: client.getdel("gone"), (0, 1), False),
        (lambda client: client.hget("hash", "field"), (1, 0), True),
        (lambda client: client.hget("hash", "gone"), (0, 1), False),
        (lambda client: client.hgetall("hash"), (1, 0), True),
        (lambda client: client.hgetall("gone"), (0, 1), False),
        (lambda client: client.hexists("hash", "gone"), (0, 1), False),
        (lambda client: client.exists("here"), (1, 0), True),
        (lambda client: client.exists("here", "gone", "gone"), (1, 2), None),
        (lambda client: client.mget("here", "gone", "empty"), (2, 1), None),
        (lambda client: client.hmget("hash", ["field", "gone"]), (1, 1), None),
        (lambda client: client.set("here", "again"), (0, 0), None),
    ],
)
def test_what_is_read_is_a_hit_or_a_miss(recorded, port, kind, ask, expected, hit):
    with redis.Redis(port=port) as plain:
        plain.mset({"here": "a", "empty": ""})
        plain.hset("hash", "field", "a")
    recorded.records.clear()

    def dialogue(client):
        yield ask(client)

    talk(kind, port, dialogue)
    (span,) = recorded.spans
    assert counts(recorded) == expected
    assert span.attributes.get("cache.hit") is hit


@both
@pytest.mark.parametrize("transaction", [True, False])
def test_what_a_pipeline_reads_is_counted_past_what_fails_in_it(recorded, port, kind, transaction):
    def dialogue(client):
        pipeline = client.pipeline(transaction=transaction)
        pipeline.set("a", 1).get("a").get("gone").mget("a", "gone").hget("a", "not a hash")
        return (yield pipeline.execute(raise_on_error=False))

    assert isinstance(talk(kind, port, dialogue)[-1], redis.ResponseError)
    assert counts(recorded) == (2, 2)
    assert "cache.hit" not in recorded.spans[0].attributes


def test_a_trace_that_is_not_sampled_leaves_no_span_and_is_counted(port, plain):
    with recording(sample=0) as recorded:
        adapter.hook(redis)
        with redis.Redis(port=port) as client:
            assert client.get("gone") is None
        assert recorded.spans == []
        assert counts(recorded) == (0, 1)


def test_a_cancelled_command_is_nobodys_error_and_ends(recorded, port):
    async def run():
        async with redis.asyncio.Redis(port=port) as client, redis.asyncio.Redis(port=port) as other:
            task = asyncio.create_task(client.blpop("queue", timeout=0))
            while not any(each["cmd"] == "blpop" for each in await other.client_list()):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    span = recorded.span("BLPOP")
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])


def test_a_command_that_waits_gets_what_it_waits_for(recorded, port):
    got = []
    with redis.Redis(port=port) as waiting, redis.Redis(port=port) as client:
        thread = threading.Thread(target=lambda: got.append(waiting.blpop("queue", timeout=0)))
        thread.start()
        until(lambda: any(each["cmd"] == "blpop" for each in client.client_list()), what="BLPOP")
        client.rpush("queue", "job")
        thread.join(10)
    assert got == [(b"queue", b"job")]
    assert recorded.span("BLPOP").end_time >= recorded.span("RPUSH").start_time
    assert counts(recorded) == (0, 0)


def test_a_listener_gets_its_messages_and_makes_no_span(recorded, port):
    with redis.Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("news")
        until(lambda: client.publish("news", "hello"), what="a subscriber")
        message = until(lambda: listener.get_message(timeout=1), what="the message")
    assert message["data"] == b"hello"
    assert {span.name for span in recorded.spans} == {"PUBLISH"}
    assert recorded.spans[-1].attributes["db.query.text"] == "PUBLISH news ?"


def test_an_async_listener_gets_its_messages_and_makes_no_span(recorded, port):
    async def run():
        async with redis.asyncio.Redis(port=port) as client, client.pubsub() as listener:
            await listener.subscribe("news")
            while not await client.publish("news", "hello"):
                await asyncio.sleep(0)
            return [await anext(listener.listen()) for _ in range(2)]

    assert [message["data"] for message in asyncio.run(run())] == [1, b"hello"]
    assert {span.name for span in recorded.spans} == {"PUBLISH"}


def test_scripts_and_locks_go_on_working(recorded, port):
    with redis.Redis(port=port) as client:
        assert client.register_script("return ARGV[1]")(args=["secret"]) == b"secret"
        with client.lock("door", timeout=10):
            assert client.exists("door") == 1
        assert client.exists("door") == 0
    assert "secret" not in repr([span.attributes for span in recorded.spans])
    unknown = [span for span in recorded.spans if span.attributes.get("db.response.status_code") == "NOSCRIPT"]
    assert {(span.name, span.status_code) for span in unknown} == {("EVALSHA", 0)}
    assert recorded.errors == []
    texts = {span.attributes["db.query.text"] for span in recorded.spans if span.name == "SCRIPT LOAD"}
    assert texts == {"SCRIPT LOAD ?"}


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory):
    """A cluster of one node, which has all slots."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path_factory.mktemp("cluster"), *options) as port:
        with redis.Redis(port=port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            until(lambda: client.cluster("info")["cluster_state"] == "ok", what="the cluster")
        yield port


@both
def test_a_command_to_a_cluster_is_one_span_and_counted_once(recorded, cluster_port, kind):
    def dialogue(client):
        yield client.set("a", 1)
        return (yield client.get("a"))

    assert talk(kind, cluster_port, dialogue, cluster=True) == b"1"
    assert recorded.span("GET").attributes == {
        "db.system.name": "redis",
        "db.operation.name": "GET",
        "db.query.text": "GET a",
        "cache.hit": True,
    }
    assert counts(recorded) == (1, 0)


@both
def test_a_pipeline_to_a_cluster_is_one_span(recorded, cluster_port, kind):
    def dialogue(client):
        return (yield client.pipeline().set("a", 1).get("a").execute())

    assert talk(kind, cluster_port, dialogue, cluster=True) == [True, b"1"]
    assert recorded.span("PIPELINE").attributes["db.operation.batch.size"] == 2
    assert "SET" not in [span.name for span in recorded.spans]


@both
def test_what_is_suppressed_is_not_seen(recorded, port, kind):
    def dialogue(client):
        yield client.get("a")

    token = attach(set_value(context.SUPPRESS_KEY, value=True))
    try:
        talk(kind, port, dialogue)
    finally:
        detach(token)
    assert (recorded.spans, counts(recorded)) == ([], (0, 0))


@both
def test_after_shutdown_commands_run_untouched(recorded, port, kind):
    def dialogue(client):
        yield client.set("a", 1)
        return (yield client.get("a"))

    insitu.shutdown()
    assert talk(kind, port, dialogue) == b"1"


@both
def test_a_failure_of_ours_costs_the_span_alone(port, plain, kind):
    def dialogue(client):
        yield client.set("a", 1)
        return (yield client.get("a"))

    plain.setattr(redis_commands, "describe", lambda command: 1 / 0)
    with recording(strict=False) as recorded:
        adapter.hook(redis)
        assert talk(kind, port, dialogue) == b"1"
        assert guard.counts["redis"] == 2
        assert recorded.spans == []


@both
@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_of_redis_replaces_ours(plain, port, kind, order):
    def dialogue(client):
        yield client.get("a")

    instrumentor = RedisInstrumentor()
    switches = [instrumentor.instrument, lambda: adapter.hook(redis)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            talk(kind, port, dialogue)
        finally:
            plain.undo()
            instrumentor.uninstrument()
        assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.redis"]


def test_a_client_that_opentelemetry_instruments_alone_has_one_span(recorded, port):
    with redis.Redis(port=port) as theirs, redis.Redis(port=port) as ours:
        RedisInstrumentor.instrument_client(theirs)
        theirs.get("a")
        ours.get("a")
    assert [span.scope.name for span in recorded.spans] == ["opentelemetry.instrumentation.redis", "insitu.redis"]


AUTOMATIC = """
import json, sys
import insitu
from insitu.adapters import libraries
insitu.init(service="auto", exporters=())
early = "redis" in sys.modules
import redis
print(json.dumps([early, libraries.found["redis"], type(redis.Redis.execute_command).__name__]))
insitu.shutdown()
"""


def test_redis_is_hooked_when_it_is_imported_whoever_else_could_do_it():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INSITU", "OTEL"))}
    command = [sys.executable, "-W", "error", "-c", AUTOMATIC]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, ["redis", "instrumented", "insitu"], "BoundFunctionWrapper"]
