"""insitu's own paths, as the one function behind every adapter."""

import pytest

from insitu.core import guard
from insitu.web.api import Api
from insitu.web.messages import Request

LOCAL = {"host": "localhost"}


def render(accept):
    return "text/x", f"for {accept}".encode()


def broken(accept):
    raise RuntimeError("no page today")


@pytest.fixture
def api():
    return Api({"/metrics": render, "/broken": broken}, "s3cret")


def ask(api, path="/metrics", method="GET", peer="127.0.0.1", **headers):
    return api.handle(Request(method, path, LOCAL | headers, peer))


@pytest.mark.parametrize(
    ("path", "ours"), [("/metrics", True), ("/metrics/", False), ("/monitoring/x", False), ("", False)]
)
def test_the_paths_are_known_so_that_an_adapter_asks_for_no_other(api, path, ours):
    assert api.owns(path) is ours


def test_a_page_is_rendered_for_what_the_reader_accepts(api):
    response = ask(api, accept="text/plain")
    assert (response.status, response.body, response.content_type) == (200, b"for text/plain", "text/x")


def test_without_an_accept_header_the_page_is_asked_with_an_empty_one(api):
    assert ask(api).body == b"for "


def test_a_page_is_never_cached_nor_guessed_at(api):
    headers = ask(api).headers
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "default-src 'none'" in headers["content-security-policy"]


def test_head_is_answered_as_get_is(api):
    assert ask(api, method="HEAD") == ask(api)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW", "get", ""])
def test_other_methods_are_told_what_is_allowed(api, method):
    response = ask(api, method=method)
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_who_may_not_read_hears_how_one_may_and_nothing_else(api, method):
    response = ask(api, method=method, peer="192.0.2.7")
    assert (response.status, response.headers["www-authenticate"]) == (401, 'Bearer, Basic realm="insitu"')
    assert b"INSITU_TOKEN" in response.body
    assert b"s3cret" not in response.body


def test_the_token_opens(api):
    assert ask(api, peer="192.0.2.7", authorization="Bearer s3cret").status == 200
    assert ask(api, peer="192.0.2.7", authorization="Bearer other").status == 401


def test_a_page_that_fails_is_a_500_without_its_reason_and_is_counted(api, monkeypatch):
    monkeypatch.setattr(guard, "counts", {})
    response = ask(api, "/broken")
    assert response.status == 500
    assert b"no page today" not in response.body
    assert guard.counts == {"web.handle": 1}
