"""Webhooks that are taken, and those that are not."""

import asyncio

import httpx
import pytest

import insitu
from insitu.testing import FakeClock, recording

SUCCESS = {"webhook": "n8n", "outcome": "success"}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def recorded(clock):
    with recording(clock=clock) as started:
        yield started


def point(recorded, **labels):
    found = recorded.point("insitu.webhook.duration", {"webhook": "n8n", **labels})
    return sum(found.buckets), found.value


def test_a_webhook_is_a_span_and_a_duration(recorded, clock):
    with insitu.span("order"), insitu.webhook("n8n", event="order.placed") as delivery:
        clock.advance(0.25)
        delivery.answered(204)
    span = recorded.span("webhook n8n")
    assert span.parent_id == recorded.span("order").span_id
    assert span.attributes == {
        "insitu.webhook.name": "n8n",
        "event": "order.placed",
        "http.response.status_code": 204,
    }
    assert point(recorded, outcome="success") == (1, pytest.approx(0.25))


@pytest.mark.parametrize("response", [503, httpx.Response(503), type("Response", (), {"status": 503})()])
def test_an_answer_of_400_or_more_is_a_failure(recorded, response):
    with insitu.webhook("n8n") as delivery:
        delivery.answered(response)
    assert recorded.span("webhook n8n").attributes["error.type"] == "503"
    assert point(recorded, **{"outcome": "failure", "error.type": "503"})[0] == 1


def test_an_exception_is_a_failure_and_goes_on(recorded):
    with pytest.raises(ConnectionError), insitu.webhook("n8n"):
        raise ConnectionError("gone")
    assert point(recorded, **{"outcome": "failure", "error.type": "ConnectionError"})[0] == 1
    assert [error.type for error in recorded.errors] == ["ConnectionError"]


def test_the_application_may_say_that_it_was_not_taken(recorded):
    with insitu.webhook("n8n") as delivery:
        delivery.answered(200)
        delivery.failed("rejected")
    assert point(recorded, **{"outcome": "failure", "error.type": "rejected"})[0] == 1


def test_it_serves_coroutines(recorded):
    async def send():
        async with insitu.webhook("n8n") as delivery:
            await asyncio.sleep(0)
            delivery.answered(200)

    asyncio.run(send())
    assert point(recorded, outcome="success")[0] == 1


def test_an_answer_that_is_none_harms_nobody():
    with recording(strict=False) as recorded:
        with insitu.webhook("n8n") as delivery:
            delivery.answered(None)
        assert point(recorded, outcome="success")[0] == 1


def test_without_insitu_it_does_nothing():
    with recording():
        pass
    with insitu.webhook("n8n") as delivery:
        delivery.answered(500)
        delivery.failed("x")


def test_what_is_said_outside_of_its_block_harms_nobody(recorded):
    delivery = insitu.webhook("n8n")
    delivery.failed("too early")
    delivery.answered(500)
    assert recorded.spans == []
