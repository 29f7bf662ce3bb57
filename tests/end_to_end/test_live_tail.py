"""The page's live tail: a real browser, a real uvicorn, and a line that is logged while somebody looks."""

import time

import httpx
import pytest
from playwright.sync_api import expect

from insitu.web.streams import MOST
from tests.end_to_end.serving import serving
from tests.web.browser import browser, page, problems

__all__ = ["browser", "page", "problems"]
pytestmark = pytest.mark.backend


@pytest.fixture
def application(tmp_path):
    with serving(tmp_path) as started:
        yield started


def order(application, number):
    with application.client() as client:
        assert client.post(f"/orders/{number}?value=3").status_code == 201


def test_a_line_appears_by_itself_once_and_past_the_end_of_the_stream(application, page):
    with page.expect_response(lambda answer: "logs/streams" in answer.url) as streamed:
        page.goto(f"{application.url}/monitoring/#/logs?text=left")
    assert streamed.value.status == 200
    lines = page.locator(".lines li")
    order(application, 1)
    expect(lines).to_have_count(1)
    with page.expect_response(lambda answer: "logs/streams" in answer.url):  # the browser comes back
        pass
    order(application, 2)
    expect(lines).to_have_count(2)
    expect(page.locator("h2", has_text="2 records")).to_contain_text("as they come")


def test_one_viewer_too_many_polls(application, page, problems):
    with httpx.Client() as client:
        held = [client.stream("GET", f"{application.url}/monitoring/logs/streams") for _ in range(MOST)]
        for stream in held:
            stream.__enter__()
        with page.expect_response(lambda answer: "logs/streams" in answer.url) as refused:
            page.goto(f"{application.url}/monitoring/#/logs?text=left")
        assert refused.value.status == 503
        for stream in held:
            stream.__exit__(None, None, None)
    order(application, 1)
    expect(page.locator(".lines li")).to_have_count(1)
    assert ["503" in problem for problem in problems] == [True]
    problems.clear()


def test_the_end_does_not_wait_for_an_open_stream(application, page, problems):
    with page.expect_response(lambda answer: "logs/streams" in answer.url):
        page.goto(f"{application.url}/monitoring/#/logs")
    with httpx.Client() as client, client.stream("GET", f"{application.url}/monitoring/logs/streams") as stream:
        assert next(stream.iter_bytes())
        began = time.monotonic()
        application.process.terminate()
        application.process.wait(30)
        took = time.monotonic() - began
    page.close()
    problems.clear()  # it has looked for the application in vain
    print(f"SIGTERM with the page's stream open: ended after {took:.2f} s")
    assert took < 3
    assert "Traceback" not in application.log.read_text()
