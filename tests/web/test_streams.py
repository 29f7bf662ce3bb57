"""Server-sent events: what is new is told once, and a stream ends before anybody has to wait for it."""

import json

import pytest

from insitu.core.questions import Answer
from insitu.web.messages import Request
from insitu.web.streams import MOST, Streams

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


class Wall:
    """Goes on a second with each look at what is known."""

    def __init__(self):
        self.now = NOW
        self.known = []
        self.asked = []

    def look(self, since):
        self.asked.append(since)
        self.now += SECOND
        found = [each for each in self.known if each["timestamp"] >= since]
        return Answer(sorted(found, key=lambda each: -each["timestamp"]))


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def streams(wall):
    return Streams(lambda: wall.now)


def asking(*, last="", streams=True):
    headers = {"last-event-id": last} if last else {}
    return Request("GET", "/monitoring/logs/streams", headers, "127.0.0.1", streams=streams)


def a_record(at, body="said"):
    return {"timestamp": at, "body": body}


def told(event):
    """What stands in an event, or None for a comment."""
    lines = dict(line.split(": ", 1) for line in event.decode().split("\n") if line and line[0] != ":")
    return json.loads(lines["data"]) if "data" in lines else None


def bodies(event):
    return [each["body"] for each in told(event)["logs"]]


def test_each_record_is_told_once_also_one_that_came_late(wall, streams):
    wall.known = [a_record(NOW - SECOND, "before"), a_record(NOW - SECOND, "like it")]
    response = streams.opened("logs", wall.look, asking())
    assert (response.status, response.content_type, response.body) == (200, "text/event-stream", b"")
    assert sorted(bodies(next(response.events))) == ["before", "like it"]
    wall.known.append(a_record(NOW - 2 * SECOND, "late"))
    assert bodies(next(response.events)) == ["late"]
    assert told(next(response.events)) is None
    wall.known.append(a_record(wall.now, "now"))
    assert bodies(next(response.events)) == ["now"]
    assert told(next(response.events)) is None


def test_a_stream_ends_by_itself_and_the_next_goes_on_where_it_was(wall, streams):
    wall.known = [a_record(NOW)]
    first = list(streams.opened("logs", wall.look, asking()).events)
    assert len(first) == 6
    assert first[0].startswith(b"retry: 1000\nid: %d\ndata: " % NOW)
    assert all(event.endswith(b"\n\n") for event in first)
    wall.now += 60 * SECOND
    next(streams.opened("logs", wall.look, asking(last=str(NOW))).events)
    assert wall.asked[-1] == wall.asked[0] == NOW - 5 * SECOND


@pytest.mark.parametrize("last", ["nonsense", "-1", "9" * 40, "٣", str(NOW + 3600 * SECOND)])
def test_a_last_event_that_cannot_have_been_counts_as_none(wall, streams, last):
    next(streams.opened("logs", wall.look, asking(last=last)).events)
    assert wall.asked == [NOW - 5 * SECOND]


def test_only_so_many_are_open_and_one_that_nobody_holds_makes_room(wall, streams):
    held = [streams.opened("logs", wall.look, asking()) for _ in range(MOST)]
    refused = streams.opened("logs", wall.look, asking())
    assert refused.status == 503
    assert b"ask logs again and again" in refused.body
    del held[0]
    assert streams.opened("logs", wall.look, asking()).status == 200


def test_a_server_that_can_send_none_says_so(wall, streams):
    assert streams.opened("logs", wall.look, asking(streams=False)).status == 503


def test_an_event_says_when_not_everything_was_found(wall, streams):
    events = streams.opened("logs", lambda _: Answer([a_record(NOW)], cursor=7), asking()).events
    assert told(next(events))["partial"] is True


def test_text_of_a_record_stays_within_its_event(wall, streams):
    wall.known = [a_record(NOW, "one\n\ndata: forged\r\nid: 5\u2028")]
    event = next(streams.opened("logs", wall.look, asking()).events)
    assert event.count(b"\n") == 4
    assert b"\r" not in event
    assert bodies(event) == ["one\n\ndata: forged\r\nid: 5\u2028"]
