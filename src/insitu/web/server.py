"""insitu's own paths by the standard library's server: to look at a store with no application running."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final

from insitu.web.messages import Request

if TYPE_CHECKING:
    from insitu.web.api import Api

_IDLE_SECONDS: Final = 5.0
"""One request at a time is answered, so nobody may keep a connection for nothing."""


def bound(api: Api, host: str, port: int) -> HTTPServer:
    """Return a server that listens; `serve_forever` answers, one request after the other.

    Args:
        api: answers.
        host: where to listen.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken.

    """

    class Handler(_Handler):
        answers = api

    return HTTPServer((host, port), Handler)


class _Handler(BaseHTTPRequestHandler):
    answers: Api
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        peer = self.client_address[0]
        if not self.answers.owns(path):
            self.send_error(404, "insitu answers below /monitoring/ only")
            return
        response = self.answers.handle(Request(self.command, path, headers, peer, query))
        self.send_response(response.status)
        sent = {"content-type": response.content_type, "content-length": str(len(response.body)), "connection": "close"}
        for name, value in {**sent, **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 names of http.server

    def log_message(self, *_: Any) -> None:
        """Say nothing: a look is no event."""
