"""Who may read insitu's own pages."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.web import access
from insitu.web.access import allowed, host_name, is_loopback

LOCAL = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:80", "localhost.", "[::1]", "[::1]:9"]
)
def test_this_machine_may_read_under_its_own_names(peer, host):
    assert allowed(peer, {"host": host}, None)


@pytest.mark.parametrize(
    "peer", [None, "", "192.0.2.7", "10.0.0.1", "::2", "::ffff:192.0.2.7", "0.0.0.0", "testclient", "localhost.evil"]
)
def test_another_machine_may_not(peer):
    assert not allowed(peer, LOCAL, None)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.0.2.7",
        "[::2]",
        "::1",
        "2130706433",
        "127.1",
        "[",
        "@127.0.0.1",
    ],
)
def test_a_name_that_was_rebound_to_us_is_refused(host):
    assert not allowed("127.0.0.1", {"host": host}, None)


def test_a_request_without_a_host_is_refused():
    assert not allowed("127.0.0.1", {}, None)


@pytest.mark.parametrize(
    "name",
    [
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-server",
    ],
)
@pytest.mark.parametrize("value", ["", "127.0.0.1", "for=127.0.0.1"])
def test_behind_a_proxy_everybody_comes_from_loopback_and_nobody_is_believed(name, value):
    assert not allowed("127.0.0.1", {**LOCAL, name: value}, None)


@pytest.mark.parametrize(
    ("given_header", "expected"),
    [
        ("Bearer s3cret", True),
        ("bearer s3cret", True),
        ("BEARER   s3cret ", True),
        ("Bearer s3cre", False),
        ("Bearer s3cret2", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Basic s3cret", False),
        ("Basic YTpzM2NyZXQ=", True),  # a:s3cret
        ("basic OnMzY3JldA==", True),  # :s3cret
        ("Basic YTpzM2NyZQ==", False),
        ("Basic ", False),
        ("s3cret", False),
        ("", False),
        ("Bearer \xff\xfe", False),
    ],
)
def test_the_token_opens_from_everywhere_and_nothing_like_it_does(given_header, expected):
    headers = {"host": "shop.example", "x-forwarded-for": "192.0.2.7", "authorization": given_header}
    assert allowed("192.0.2.7", headers, "s3cret") is expected


def test_without_a_token_no_authorization_opens():
    for token in (None, ""):
        for header in ("Bearer ", "Bearer None", "Bearer"):
            assert not allowed("192.0.2.7", {"host": "a", "authorization": header}, token)


def test_this_machine_needs_no_token():
    assert allowed("127.0.0.1", LOCAL, "s3cret")
    assert allowed("127.0.0.1", {**LOCAL, "authorization": "Bearer wrong"}, "s3cret")


def test_a_token_beyond_ascii_is_compared_byte_for_byte():
    sent = "Bearer " + "schlüssel".encode().decode("latin-1")  # as an adapter reads the header
    assert allowed("192.0.2.7", {"authorization": sent}, "schlüssel")
    assert not allowed("192.0.2.7", {"authorization": "Bearer schlüssel"}, "schlüssel")
    assert not allowed("192.0.2.7", {"authorization": "Bearer ключ"}, "schlüssel")


def test_the_comparison_takes_the_same_time_for_every_wrong_token(monkeypatch):
    compared = []

    constant_time = hmac.compare_digest

    def compare(one, other):
        compared.append((one, other))
        return constant_time(one, other)

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    assert not allowed("192.0.2.7", {"authorization": "Bearer wrong"}, "s3cret")
    assert compared == [(b"wrong", b"s3cret")]


@pytest.mark.parametrize(
    ("host", "name"),
    [("a:80", "a"), ("a", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", ""), ("[", ""), (":80", "")],
)
def test_a_host_header_is_read_without_its_port(host, name):
    assert host_name(host) == name


@given(st.text(), st.text(), st.text())
def test_no_input_is_too_strange_and_only_loopback_or_the_token_opens(peer, host, header):
    opened = allowed(peer, {"host": host, "authorization": header}, "a token that nobody guesses")
    assert opened == (is_loopback(peer) and is_loopback(host_name(host)))


def test_the_refusal_says_what_to_do():
    assert "INSITU_TOKEN" in access.REFUSAL
    assert "Bearer" in access.REFUSAL
