"""What every test of the web room may ask for: the browser of tests/web/browser.py."""

from tests.web.browser import browser, page, problems

__all__ = ["browser", "page", "problems"]
