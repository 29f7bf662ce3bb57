"""A real HTTP server for the tests of clients: it answers with what it got."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got; /hop/3 leads to /end over three redirects, /status/404 answers that.

    It is a proxy as well: what is asked of it for another server it answers itself.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for the client's delayed acknowledgement, 40 ms

    def note(self):
        headers = {name.lower(): ", ".join(self.headers.get_all(name)) for name in self.headers}
        self.server.seen.append((self.path, headers))

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.note()
        hops, redirect = int(self.path.partition("/hop/")[2] or 0), 303 if self.command == "POST" else 302
        code = redirect if hops else int(self.path.partition("/status/")[2] or 200)
        content = b"" if self.command == "POST" else json.dumps(self.server.seen[-1][1]).encode()
        self.send_response(code)
        if hops:
            self.send_header("location", f"/hop/{hops - 1}" if hops > 1 else "/end")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_HEAD = do_BREW = do_GET

    def do_CONNECT(self):
        """Be the other end of the tunnel, too."""
        self.note()
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.handle_one_request()
        self.close_connection = True
        self.connection.close()

    def log_message(self, *arguments):
        """Stay silent."""


@pytest.fixture(scope="session")
def echoing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def echo(echoing):
    """The server: its `url`, its `server_port`, and what it has `seen`, each a path and its headers."""
    echoing.seen = []
    return echoing


@pytest.fixture
def silent():
    """A port on which requests are taken and never answered, and an event that is set when one has come."""
    asked, ended = threading.Event(), threading.Event()

    class Never(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            ended.wait(30)

        def log_message(self, *arguments):
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Never)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port, asked
    ended.set()
    server.shutdown()
    thread.join()
    server.server_close()
