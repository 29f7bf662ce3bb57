"""A real browser as fixtures: a test asks for ``page`` and drives it, and fails if the page itself ran into trouble.

Such a test carries ``pytest.mark.backend``. Where Chromium is not on this machine it is skipped, naming the command
that fetches it; under CI it fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    WebError,
    sync_playwright,
)

from tests.servers import backend

VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
PATIENCE = 10_000  # milliseconds that an element or a navigation may take
ABORTED = "net::ERR_ABORTED"  # the page took its own request back: it moved on, or its AbortController did


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium.

    Playwright keeps an event loop running in the main thread, which forbids ``asyncio.run`` there, and has children
    and descriptors that a test of this process would count. So it ends with the module, not with the session.
    """
    program = backend("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root has no sandbox
        yield chromium
        chromium.close()


@pytest.fixture
def problems() -> list[str]:
    """What went wrong in the page so far. A test that provokes an error asserts it here and clears the list."""
    return []


@pytest.fixture
def page(browser: Browser, problems: list[str]) -> Iterator[Page]:
    """A page in a profile of its own. At the end of the test its console and its requests must be free of errors."""
    context = browser.new_context(viewport=VIEWPORT)
    try:
        context.set_default_timeout(PATIENCE)
        collect(context, problems)
        page = context.new_page()
        yield page
        if not page.is_closed():
            page.evaluate("0")  # what the page said before is delivered before the answer
    finally:
        context.close()
    assert not problems, "the page ran into:\n" + "\n".join(problems)


def collect(context: BrowserContext, problems: list[str]) -> None:
    """Appends each error of every page of the context: on its console, uncaught, and of requests that got no answer."""

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(f"console: {message.text} ({message.location['url']})")

    def on_error(error: WebError) -> None:
        problems.append(f"uncaught: {error.error.stack or error.error.message}")

    def on_failed(request: Request) -> None:
        if request.failure != ABORTED:
            problems.append(f"request: {request.method} {request.url}: {request.failure}")

    context.on("console", on_console)
    context.on("weberror", on_error)
    context.on("requestfailed", on_failed)
