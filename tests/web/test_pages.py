"""The page's files: what is served, under which rules, and that nothing else is."""

import re
from importlib.resources import files

import pytest

from insitu.web.pages import POLICY, Pages

ASSETS = files("insitu.web") / "assets"
LIBRARIES = ("vendor/preact-htm.js", "vendor/uplot.js", "vendor/uplot.css")


@pytest.fixture
def pages():
    return Pages()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        *((name, "text/javascript; charset=utf-8") for name in LIBRARIES[:2]),
    ],
)
def test_each_file_comes_under_a_policy_that_lets_nothing_else_in(pages, name, kind):
    response = pages.answer(name)
    assert (response.status, response.content_type) == (200, kind)
    assert response.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY


@pytest.mark.parametrize("name", ["..", "../api.py", "vendor", "vendor/", "/etc/passwd", "app.js/", "APP.JS", "\0"])
def test_what_is_no_file_of_the_page_is_not_there(pages, name):
    assert pages.answer(name).status == 404


def test_a_browser_that_knows_a_file_is_not_sent_it_again(pages):
    first = pages.answer("app.js")
    again = pages.answer("app.js", first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert pages.answer("app.js", '"another"').status == 200


def sources(suffix):
    return {path.name: path.read_text("utf-8") for path in ASSETS.iterdir() if path.name.endswith(suffix)}


def test_nothing_is_inline_and_nothing_comes_from_another_host():
    page = sources(".html")["index.html"]
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|style=|<style", page)
    for name, text in {**sources(".html"), **sources(".js"), **sources(".css")}.items():
        assert not re.search(r"(https?:)?//[\w-]+\.\w", text), name
        assert not re.search(r"innerHTML|dangerouslySetInnerHTML|eval\(|new Function|document\.write", text), name


def test_every_file_that_the_page_refers_to_is_there(pages):
    for name, text in {**sources(".html"), **sources(".js")}.items():
        for wanted in re.findall(r'(?:href|src)="assets/([\w./-]+)"|from "\./([\w./-]+)"', text):
            assert pages.answer("".join(wanted)).status == 200, (name, wanted)
