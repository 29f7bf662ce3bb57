"""insitu's own paths over ASGI, and streams in particular: they end for whoever leaves, and with the server."""

import asyncio
import signal

import pytest

from insitu.adapters import asgi_answers
from insitu.adapters.asgi_answers import Answers
from insitu.core.questions import Answer
from insitu.testing import recording
from insitu.web.api import Api
from insitu.web.monitoring import Monitoring
from insitu.web.pages import Pages
from insitu.web.streams import MOST
from tests.adapters.serving import body, status

STREAM = "/monitoring/logs/streams"


class Reader:
    """Knows one record, or fails."""

    def __init__(self):
        self.fails = False

    def logs(self, search, period):
        if self.fails:
            raise OSError("the disk is gone")
        return Answer([{"timestamp": period.since, "body": search.text}])


class Visitor:
    """What a browser sends: its request, and nothing more until it leaves."""

    def __init__(self):
        self.messages = [{"type": "http.request", "body": b"", "more_body": False}]
        self.left = asyncio.Event()

    async def receive(self):
        if self.messages:
            return self.messages.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def answers(reader, monkeypatch):
    monkeypatch.setattr(asgi_answers, "_BETWEEN_EVENTS", 0.01)
    with recording(strict=False) as recorded:  # one test has a reader that fails
        monitoring = Monitoring(reader, lambda: 10**18, pages=Pages(), about={"service.name": "shop"}, neighbours=None)
        yield Answers(Api({}, None, monitoring), recorded.runtime.pipeline.read)


async def asked(answers, visitor, method="GET", path=STREAM, sent=None):
    scope = {
        "method": method,
        "path": path,
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 5),
        "query_string": b"text=said",
    }
    sent = [] if sent is None else sent

    async def send(message):
        sent.append(message)

    await answers.send(scope, visitor.receive, send)
    return sent


def headers(sent):
    return dict(sent[0]["headers"])


def run(case):
    return asyncio.run(asyncio.wait_for(case(), 10))


def test_a_stream_is_sent_event_by_event_and_then_ends(answers):
    async def case():
        return await asked(answers, Visitor())

    sent = run(case)
    assert status(sent) == 200
    assert headers(sent)[b"content-type"] == b"text/event-stream"
    assert headers(sent)[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers(sent)
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * 6 + [False]
    assert body(sent).count(b"said") == 1


def test_a_head_is_answered_without_events_and_holds_no_place(answers):
    async def case():
        for _ in range(MOST + 1):
            sent = await asked(answers, Visitor(), "HEAD")
            assert status(sent) == 200
        return sent

    assert body(run(case)) == b""


def test_whoever_leaves_makes_room_at_once(answers, monkeypatch):
    monkeypatch.setattr(asgi_answers, "_BETWEEN_EVENTS", 60)

    async def case():
        visitors = [Visitor() for _ in range(MOST)]
        sent = [[] for _ in visitors]
        streams = [asyncio.create_task(asked(answers, *each)) for each in zip(visitors, ["GET"] * MOST, strict=True)]
        while sum(len(visitor.messages) for visitor in visitors):
            await asyncio.sleep(0)
        refused = await asked(answers, Visitor())
        visitors[0].left.set()
        await streams[0]
        accepted = asyncio.create_task(asked(answers, latest := Visitor(), sent=sent[0]))
        while latest.messages:
            await asyncio.sleep(0)
        for visitor in [*visitors, latest]:
            visitor.left.set()
        await asyncio.gather(accepted, *streams)
        return refused, sent[0]

    refused, accepted = run(case)
    assert status(refused) == 503
    assert headers(refused)[b"content-type"] == b"application/problem+json"
    assert status(accepted) == 200


def test_a_stream_whose_look_fails_ends_and_harms_nothing(answers, reader):
    reader.fails = True

    async def case():
        return await asked(answers, Visitor())

    sent = run(case)
    assert status(sent) == 200
    assert body(sent) == b""
    assert sent[-1] == {"type": "http.response.body", "body": b""}


class Server:
    """As uvicorn's: its method handles the signal, and it knows whether it is to end."""

    should_exit = True

    def handle_exit(self, *_):
        """Never called here."""


def test_a_server_that_is_to_end_does_not_wait_for_the_stream(answers):
    before = signal.signal(signal.SIGTERM, Server().handle_exit)
    try:

        async def case():
            return await asked(answers, Visitor())

        assert len(run(case)) == 3
    finally:
        signal.signal(signal.SIGTERM, before)
