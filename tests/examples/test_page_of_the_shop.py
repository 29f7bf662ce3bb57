"""The demo as somebody sees it who has just started it: which route is slow, why, and the line that says so.

Pictures of what they see are left in .cache/pictures, in light and dark.
"""

import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.examples.test_shop import shop
from tests.servers import get_json, until
from tests.web.browser import VIEWPORT, browser, collect

__all__ = ["browser"]
pytestmark = pytest.mark.backend

PICTURES = Path(__file__).parents[2] / ".cache" / "pictures"
WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A demo, and when it was started."""
    began = time.monotonic()
    with shop(tmp_path_factory.mktemp("shop"), "--rate", "80") as run:
        run.until_traffic_flows()
        yield f"{run.address()}/monitoring/", began


def kept_with_the_line(address):
    """The trace of a search that was slow because of its index, once one is kept."""
    for trace in get_json(f"{address}traces", name="GET /search", limit="50")["traces"]:
        said = get_json(f"{address}traces/{trace['trace_id']}")
        parts = {span["name"]: span["duration"] for span in said["spans"]}
        if said["logs"] and parts.get("SELECT product review", 0) > trace["duration"] / 2:
            return trace["trace_id"]
    return None


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture
def page(browser, scheme):
    """A browser whose owner likes it light or dark; its console stays free of errors."""
    problems = []
    context = browser.new_context(viewport=VIEWPORT, color_scheme=scheme)
    collect(context, problems)
    yield context.new_page()
    context.close()
    assert problems == []


def test_within_a_minute_a_newcomer_knows_what_is_slow_and_why_and_the_line_that_says_so(started, page, scheme):
    address, began = started
    PICTURES.mkdir(parents=True, exist_ok=True)

    def picture(name):
        page.screenshot(path=PICTURES / f"{name}-{scheme}.png", full_page=True)

    page.goto(address)
    expect(page.locator("html")).to_have_css("color-scheme", scheme)
    slowest = page.locator(".card", has_text="slowest route")
    expect(slowest).to_contain_text("GET /search", timeout=WITHIN_SECONDS * 1000)
    picture("overview")
    slowest.click()
    # Of the slowest ones: the very slowest may be the first of all, which found everything cold.
    stale = until(lambda: kept_with_the_line(address), WITHIN_SECONDS, "a search without the index")
    page.locator(f".traces tbody a[href*='{stale}']").first.click(timeout=WITHIN_SECONDS * 1000)
    expect(page.locator(".parts .most")).to_contain_text("SELECT product review")
    expect(page.locator(".records")).to_contain_text("the search index is stale: reading every review")
    picture("trace")
    took = time.monotonic() - began
    for view in ("logs", "metrics"):
        page.locator("nav a", has_text=view).click()
        page.locator("main section").first.wait_for()
        picture(view)
    print(f"{scheme}: the line was found {took:.0f} s after the demo was started")
    assert scheme != "light" or took < WITHIN_SECONDS
