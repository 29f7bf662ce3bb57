import base64
import errno
import gzip
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from insitu.core.transport import BODY_CAP, Transport, checked

PROXIES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Time:
    """A clock that only moves when somebody waits."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []
        self.stopping = False

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.pauses.append(seconds)
        if not self.stopping:
            self.now += seconds
        return self.stopping


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def transport(clock):
    made = []

    def make(**options):
        options = {"user_agent": "insitu/test", "wait": clock.wait, "monotonic": clock.monotonic, **options}
        made.append(Transport(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Server(ThreadingHTTPServer):
    """Answers with what `answers` holds, one after the other, then 200, and keeps what it got."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body, self.client_address))
        status, headers, answer = self.server.answers.pop(0) if self.server.answers else (200, {}, b"done")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_CONNECT(self):
        self.server.requests.append((self.path, dict(self.headers), b"", self.client_address))
        self.send_error(403)

    def log_message(self, *_):
        pass


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with serving(Server()) as running:
        yield running


@contextmanager
def raw_server(behave, context=None):
    """Calls `behave(connection)` for each connection, in a thread of its own, until the block ends."""
    over = threading.Event()
    connections = []

    def serve(connection):
        try:
            with context.wrap_socket(connection, server_side=True) if context else connection as talk:
                behave(talk, over)
        except OSError:
            pass

    def accept():
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            connections.append((connection, thread))
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            accepting.join()
            for connection, thread in connections:
                thread.join(2)
                connection.close()


def hang(connection, over):
    connection.settimeout(10)
    over.wait(10)
    connection.close()


def refusing_url():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"http://127.0.0.1:{gone.getsockname()[1]}/"


def send(transport, url, body=b"body", **options):
    return transport.post(url, body, content_type="application/x-protobuf", **options)


def took(action):
    started = time.monotonic()
    reply = action()
    return reply, time.monotonic() - started


# What is sent


def test_a_post_arrives_as_it_was_given(server, transport):
    reply = send(transport(headers={"X-Scope": "shop"}), server.url, b"\x00\xff", headers={"x-batch": "7"})
    path, headers, body, _ = server.requests[0]
    assert (reply.outcome, reply.status, reply.body, reply.attempts) == ("ok", 200, b"done", 1)
    assert reply.detail == "HTTP 200 OK"
    assert (path, body) == ("/v1/traces", b"\x00\xff")
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["User-Agent"] == "insitu/test"
    assert (headers["X-Scope"], headers["x-batch"]) == ("shop", "7")


def test_a_connection_is_kept_between_posts(server, transport):
    one = transport()
    for _ in range(3):
        send(one, server.url)
    assert len({address for *_, address in server.requests}) == 1


def test_gzip_bodies_are_the_same_bytes_each_time(server, transport):
    one = transport(gzip=True)
    send(one, server.url, b"span " * 1000)
    send(one, server.url, b"span " * 1000)
    (_, headers, first, _), (_, _, second, _) = server.requests
    assert headers["Content-Encoding"] == "gzip"
    assert first == second
    assert len(first) < 200
    assert gzip.decompress(first) == b"span " * 1000


def test_headers_of_a_post_replace_the_transports_own_whatever_their_case(server, transport):
    send(transport(headers={"X-Key": "old"}), server.url, headers={"x-key": "new", "content-type": "text/plain"})
    _, headers, *_ = server.requests[0]
    assert headers["x-key"] == "new"
    assert headers["content-type"] == "text/plain"
    assert len({name.lower() for name in headers}) == len(headers)


def test_credentials_in_the_address_become_a_basic_authorization(server, transport):
    send(transport(), server.url.replace("//", "//us%40er:p%C3%A4ss@"))
    path, headers, *_ = server.requests[0]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "us@er:päss"
    assert path == "/v1/traces"


def test_an_authorization_that_was_configured_stands_above_the_address(server, transport):
    send(transport(headers={"authorization": "Bearer t"}), server.url.replace("//", "//user:pass@"))
    assert server.requests[0][1]["authorization"] == "Bearer t"
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("failing", ["refused", "closed", "400", "name", "bad"])
def test_credentials_never_stand_in_the_detail(server, transport, failing):
    server.answers = [(400, {}, b"hunter2 is wrong")]
    closed = lambda connection, over: connection.close()
    with raw_server(closed) as address:
        url = {
            "refused": refusing_url(),
            "closed": f"http://{address}/",
            "400": server.url,
            "name": "http://nobody.invalid/",
            "bad": "http://host:99999999/",
        }[failing]
        reply = send(transport(headers={"Api-Key": "hunter2"}), url.replace("//", "//me:hunter2@"))
    assert reply.outcome != "ok"
    assert "hunter2" not in reply.detail
    assert 0 < len(reply.detail) <= 200


@pytest.mark.parametrize("url", ["", "collector:4318", "ftp://host/", "http://", "http://[::1/", "http://host:99999/"])
def test_what_is_no_http_address_is_refused_without_a_try(transport, url):
    reply = send(transport(), url)
    assert (reply.outcome, reply.attempts) == ("refused", 0)


@pytest.mark.parametrize("url", ["http://" + "a" * 70 + ".example/", "http://a..b/", "http://nobody.invalid/"])
def test_a_name_that_cannot_be_looked_up_is_unreachable(transport, url):
    assert send(transport(), url).outcome == "unreachable"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "b\r\nc: d"),
        ("a", "b\n"),
        ("a\r\nb", "c"),
        ("", "b"),
        ("a b", "c"),
        ("a:", "c"),
        ("a", "\x00"),
        ("a", "✓"),
    ],
)
def test_a_header_that_could_break_a_message_is_refused_without_its_value(server, transport, name, value):
    with pytest.raises(ValueError, match="header"):
        transport(headers={name: value})
    one = transport()
    with pytest.raises(ValueError, match="header"):
        send(one, server.url, headers={name: value})
    with pytest.raises(ValueError, match=r"^the value of the header Key has characters") as caught:
        transport(headers={"Key": "hunter2\n"})
    assert "hunter2" not in str(caught.value)
    assert server.requests == []


@given(name=st.text(max_size=8), value=st.text(st.characters(max_codepoint=0x2100), max_size=12))
@example(name="a", value="\x85")
@settings(max_examples=5000, deadline=None)
def test_no_header_that_passes_can_start_another(name, value):
    try:
        headers = checked({name: value})
    except ValueError:
        return
    line = f"{name}: {value}".encode("latin-1")
    assert headers == {name: value}
    assert len(line.splitlines()) == 1
    assert not any(byte < 32 and byte != 9 for byte in line)


def test_line_breaks_in_the_path_stay_in_the_path(server, transport):
    send(transport(), server.url + "?a=\r\nX-Evil: 1\r\n\r\n")
    path, headers, *_ = server.requests[0]
    assert "X-Evil" not in headers
    assert path.startswith("/v1/traces?a=")


# What is tried again, and when


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(server, transport, clock, status):
    server.answers = [(status, {}, b""), (status, {}, b"")]
    reply = send(transport(), server.url, deadline=60)
    assert (reply.outcome, reply.attempts) == ("ok", 3)
    assert len(clock.pauses) == 2


@pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 404, 408, 413, 500, 501, 505, 599])
def test_every_other_refusal_is_final(server, transport, clock, status):
    server.answers = [(status, {"Location": server.url, "Retry-After": "1"}, b"why")]
    reply = send(transport(), server.url)
    assert (reply.outcome, reply.status, reply.body, reply.attempts) == ("refused", status, b"why", 1)
    assert len(server.requests) == 1
    assert clock.pauses == []


def test_pauses_double_from_at_most_one_second_and_are_spread_out(server, transport, clock):
    server.answers = [(503, {}, b"")] * 6
    reply = send(transport(), server.url, deadline=1000)
    assert (reply.outcome, reply.status, reply.attempts) == ("unreachable", 503, 6)
    assert all(0 <= pause <= 2**attempt for attempt, pause in enumerate(clock.pauses))
    assert len(set(clock.pauses)) == 5


def test_retry_after_in_seconds_is_obeyed(server, transport, clock):
    server.answers = [(429, {"Retry-After": "7"}, b"")]
    assert send(transport(), server.url, deadline=60).outcome == "ok"
    assert clock.pauses == [7.0]


def test_retry_after_as_a_date_is_held_against_the_servers_clock(transport, clock):
    def behave(connection, over):
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 503 Busy\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                b"Retry-After: Sun, 06 Nov 1994 08:49:42 GMT\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )

    with raw_server(behave) as address:
        reply = send(transport(), f"http://{address}/", deadline=12)
    assert clock.pauses == [5.0, 5.0]
    assert (reply.outcome, reply.retry_after) == ("unreachable", 5.0)


@pytest.mark.parametrize("asked", ["soon", "-3", "1e3", "٣", "nan", "Sun, 99 Nov 1994 08:49:42 GMT", ""])
def test_a_retry_after_that_means_nothing_is_an_ordinary_pause(server, transport, clock, asked):
    server.requests.clear()
    header = asked.encode().decode("latin-1")
    server.answers = [(503, {"Retry-After": header}, b"")]
    reply = send(transport(), server.url, deadline=60)
    assert (reply.outcome, reply.attempts) == ("ok", 2)
    assert 0 <= clock.pauses[0] <= 1


def test_a_pause_beyond_the_deadline_is_not_begun_and_the_server_is_left_alone_until_then(server, transport, clock):
    server.answers = [(429, {"Retry-After": "45"}, b"")]
    one = transport()
    reply = send(one, server.url)
    assert (reply.outcome, reply.retry_after, clock.pauses) == ("unreachable", 45.0, [])
    again = send(one, server.url)
    assert (again.outcome, again.attempts, again.retry_after) == ("unreachable", 0, 45.0)
    assert not one.breaker_open
    clock.now += 45
    assert send(one, server.url).outcome == "ok"


def test_a_refused_connection_is_tried_again_until_the_deadline(transport, clock):
    reply = send(transport(), refusing_url(), deadline=20)
    assert reply.outcome == "unreachable"
    assert reply.attempts >= 3
    assert sum(clock.pauses) <= 20
    assert "refused" in reply.detail


def test_a_server_that_comes_back_between_the_tries_gets_the_batch(server, transport):
    refused = []

    def behave(connection, over):
        refused.append(connection)
        if len(refused) > 2:
            answer(connection, over)
        else:  # closing without lingering resets the connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with raw_server(behave) as address:
        reply = send(transport(), f"http://{address}/", deadline=60)
    assert (reply.outcome, reply.attempts) == ("ok", 3)


def test_a_connection_that_is_reset_while_it_is_made_is_tried_again(server, transport, monkeypatch):
    class Resetting(socket.socket):
        left = 2

        def connect(self, address):
            if Resetting.left:
                Resetting.left -= 1
                raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Resetting)
    reply = send(transport(), server.url, deadline=60)
    assert (reply.outcome, reply.attempts) == ("ok", 3)


# Time


def test_a_server_that_never_answers_costs_the_timeout_once(transport):
    with raw_server(hang) as address:
        one = transport(timeout=0.4, monotonic=time.monotonic)
        reply, seconds = took(lambda: send(one, f"http://{address}/"))
    print(f"{seconds:.2f} s for a timeout of 0.4 s")
    assert reply.outcome == "unreachable"
    assert 0.35 < seconds < 0.9


def drip_head(connection, over):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(0.02):
        connection.sendall(b"X")


def drip_body(connection, over):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"X")


def drip_continue(connection, over):
    connection.recv(65536)
    while not over.wait(0.02):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def drip_reading(connection, over):
    while not over.wait(0.02):
        connection.recv(1000)


@pytest.mark.parametrize("drip", [drip_head, drip_body, drip_continue, drip_reading])
@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_drips_cannot_hold_the_sender_beyond_the_timeout(transport, authority, drip, tls):
    with raw_server(drip, authority.server if tls else None) as address:
        one = transport(timeout=0.5, monotonic=time.monotonic, certificate=authority.file)
        url = f"https://{address}/" if tls else f"http://{address}/"
        reply, seconds = took(lambda: send(one, url, b"x" * 20_000_000 if drip is drip_reading else b"x"))
    print(f"{drip.__name__}, TLS {tls}: {seconds:.2f} s for a timeout of 0.5 s")
    assert reply.outcome == ("ok" if drip is drip_body else "unreachable")
    assert seconds < 1.2


def test_a_body_that_breaks_off_does_not_send_an_accepted_batch_twice(transport):
    seen = []

    def behave(connection, over):
        with connection:
            seen.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with raw_server(behave) as address:
        reply = send(transport(), f"http://{address}/")
    assert (reply.outcome, reply.body, len(seen)) == ("ok", b"", 1)
    assert "broke off" in reply.detail


def test_of_a_large_answer_64_kilobytes_are_kept_and_the_connection_is_not(server, transport):
    server.answers = [(200, {}, b"x" * (BODY_CAP + 1)), (200, {}, b"x" * BODY_CAP)]
    one = transport()
    assert len(send(one, server.url).body) == BODY_CAP
    assert len(send(one, server.url).body) == BODY_CAP
    send(one, server.url)
    first, second, third = (address for *_, address in server.requests)
    assert first != second == third


def test_a_kept_connection_that_the_server_closed_is_replaced_unnoticed(transport, clock):
    served = []

    def behave(connection, over):
        with connection:
            served.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        closed.set()

    one = transport()
    with raw_server(behave) as address:
        for _ in range(3):
            closed = threading.Event()
            assert send(one, f"http://{address}/").outcome == "ok"
            assert closed.wait(5)
    assert len(served) == 3


def test_garbage_is_no_answer(transport):
    def behave(connection, over):
        with connection:
            connection.recv(65536)
            connection.sendall(b"\x00\x01\x02 SSH-2.0\r\n\r\n")

    with raw_server(behave) as address:
        assert send(transport(), f"http://{address}/").outcome == "unreachable"


def test_a_dead_address_of_a_host_leaves_time_for_the_living_one(server, transport, monkeypatch):
    with socket.socket() as full:  # its queue is full, so that connecting to it hangs
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        real = socket.getaddrinfo
        both = [*real(*full.getsockname(), type=socket.SOCK_STREAM), *real("127.0.0.1", server.server_port, type=1)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        one = transport(timeout=1.0, monotonic=time.monotonic)
        reply, seconds = took(lambda: send(one, server.url))
        for filler in fillers:
            filler.close()
    assert reply.outcome == "ok"
    assert 0.4 < seconds < 0.9


# Stopping


def test_stopping_cuts_the_pause_short_and_tries_once_more(server, transport, clock):
    clock.stopping = True
    server.answers = [(503, {}, b"")]
    reply = send(transport(), server.url)
    assert (reply.outcome, reply.attempts) == ("ok", 2)


def test_stopping_gives_up_after_the_last_try(transport, clock):
    clock.stopping = True
    reply = send(transport(), refusing_url())
    assert (reply.outcome, reply.attempts, len(clock.pauses)) == ("stopped", 2, 1)


def test_the_last_try_is_short(transport, clock):
    clock.stopping = True
    seen = []

    def behave(connection, over):
        seen.append(connection)
        if len(seen) == 1:
            connection.close()
        else:
            hang(connection, over)

    with raw_server(behave) as address:
        reply, seconds = took(lambda: send(transport(), f"http://{address}/"))
    assert (reply.outcome, len(seen)) == ("stopped", 2)
    assert seconds < 2


def test_stopping_does_not_ask_a_server_that_wants_to_be_left_alone(server, transport, clock):
    clock.stopping = True
    server.answers = [(503, {"Retry-After": "2"}, b"")]
    reply = send(transport(), server.url)
    assert (reply.outcome, reply.attempts) == ("stopped", 1)


# The breaker


def test_five_failures_open_the_breaker_and_a_success_closes_it(server, transport, clock):
    one, dead = transport(), refusing_url()
    for _ in range(4):
        send(one, dead)
    assert not one.breaker_open
    send(one, dead)
    assert one.breaker_open
    reply = send(one, server.url)
    assert (reply.outcome, reply.attempts, server.requests) == ("unreachable", 0, [])
    assert reply.retry_after == 2.0
    clock.now += 2
    assert send(one, server.url).outcome == "ok"
    assert not one.breaker_open


def test_an_open_breaker_lets_one_probe_through_at_growing_distances_of_up_to_a_minute(transport, clock):
    one, dead = transport(), refusing_url()
    for _ in range(5):
        send(one, dead)
    distances = []
    for _ in range(7):
        distances.append(send(one, dead).retry_after)
        clock.now += distances[-1]
        assert send(one, dead).attempts == 1
    assert distances == pytest.approx([2, 4, 8, 16, 32, 60, 60])


def test_a_refusal_is_an_answer_and_closes_the_breaker(server, transport, clock):
    one, dead = transport(), refusing_url()
    for _ in range(5):
        send(one, dead)
    clock.now += 2
    server.answers = [(400, {}, b"")]
    assert send(one, server.url).outcome == "refused"
    assert not one.breaker_open


# TLS, proxies, fork


class Authority:
    def __init__(self, folder):
        ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        ca.cert_pem.write_to_path(self.file)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(self.server)
        self.strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(self.strict)
        ca.configure_trust(self.strict)
        self.strict.verify_mode = ssl.CERT_REQUIRED
        self.strict.maximum_version = ssl.TLSVersion.TLSv1_2  # refuses during the handshake
        mine = ca.issue_cert("client.example")
        self.client_certificate, self.client_key = str(folder / "client.pem"), str(folder / "client.key")
        mine.cert_chain_pems[0].write_to_path(self.client_certificate)
        mine.private_key_pem.write_to_path(self.client_key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def answer(connection, over):
    with connection:
        asked = piece = connection.recv(65536)
        while piece and not asked.endswith(b"\r\n\r\nbody"):  # closing with something unread is a reset
            asked += (piece := connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_a_private_authority_is_trusted_by_its_certificate_and_nobody_else_is(transport, authority):
    with raw_server(answer, authority.server) as address:
        assert send(transport(certificate=authority.file), f"https://{address}/").body == b"ok"
        reply = send(transport(), f"https://{address}/")
    assert reply.outcome == "unreachable"
    assert "certificate verify failed" in reply.detail


def test_a_server_that_asks_for_a_client_certificate_gets_it(transport, authority):
    mine = {"client_certificate": authority.client_certificate, "client_key": authority.client_key}
    with raw_server(answer, authority.strict) as address:
        assert send(transport(certificate=authority.file, **mine), f"https://{address}/").body == b"ok"
        assert send(transport(certificate=authority.file), f"https://{address}/").outcome == "unreachable"


def test_a_certificate_that_is_not_there_is_no_reason_to_raise(transport, authority):
    with raw_server(answer, authority.server) as address:
        assert send(transport(certificate="/nowhere.pem"), f"https://{address}/").outcome == "unreachable"


def test_the_proxy_of_the_environment_is_used_with_its_credentials(server, transport, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("//", "//me:secret@"))
    reply = send(transport(), "http://collector.invalid:4318/v1/traces")
    path, headers, *_ = server.requests[0]
    assert reply.outcome == "ok"
    assert path == "http://collector.invalid:4318/v1/traces"
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


def test_https_goes_through_a_tunnel_and_its_refusal_keeps_the_secrets(server, transport, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("//", "//me:secret@"))
    reply = send(transport(), "https://collector.invalid/v1/traces")
    assert reply.outcome == "unreachable"
    assert server.requests[0][0] == "collector.invalid:443"
    assert "secret" not in reply.detail


def test_no_proxy_names_hosts_that_are_reached_directly(server, transport, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", refusing_url())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert send(transport(), server.url).outcome == "ok"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://host:99999999", "::::"])
def test_a_proxy_that_cannot_be_used_is_unreachable(server, transport, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert send(transport(), server.url).outcome == "unreachable"


FORKING = """
import json, os, sys
from insitu.core.transport import Transport
transport = Transport(user_agent="fork", wait=lambda seconds: False)
post = lambda who: transport.post(sys.argv[1], who.encode(), content_type="text/plain").outcome
told = [post("parent before")]
child = os.fork()
if not child:
    os._exit(0 if post("child") == "ok" else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps([*told, status, post("parent after")]))
transport.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_its_own_connection_and_the_parent_keeps_its_own(server):
    command = [sys.executable, "-W", "error", "-c", FORKING, server.url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert done.stderr == ""
    assert json.loads(done.stdout) == ["ok", 0, "ok"]
    by = {body: address for _, _, body, address in server.requests}
    assert by[b"parent before"] == by[b"parent after"] != by[b"child"]


def test_it_works_again_after_close(server, transport):
    one = transport()
    send(one, server.url)
    one.close()
    assert send(one, server.url).outcome == "ok"
