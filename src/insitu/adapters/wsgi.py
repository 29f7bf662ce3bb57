"""Any WSGI application: a request becomes begin, fail and finish, and our own paths are answered here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters.wsgi_answers import Answers, Environ, StartResponse
from insitu.adapters.wsgi_served import Body, Served
from insitu.core import context

if TYPE_CHECKING:
    from insitu.adapters.parts import Parts
    from insitu.signals.requests import Requests, ServerSpan

App = Callable[[Environ, StartResponse], Iterable[bytes]]
KEY: Final = "insitu.request"
"""Of `environ`: what is served (`Served`). Who finds it there is below an instrumented application."""

_DIGITS: Final = 20  # of a content-length that is believed


class Middleware:
    """Wraps a WSGI application.

    Args:
        app: the application.
        parts: what it works with.

    """

    def __init__(self, app: App, parts: Parts) -> None:
        self.app = app
        self.header = parts.header
        self.requests = parts.requests
        self._api = parts.api
        self._answers = Answers(parts.api, parts.read)

    def route(self, environ: Environ) -> str:
        """Return the template of the route that answers, "" where there is none or nobody tells."""
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)  # Werkzeug's applications leave it there
        return rule.rule if rule is not None else ""

    def owns(self, environ: Environ) -> bool | None:  # noqa: ARG002 a framework's adapter reads it
        """Whether the application has a route for one of our paths; None: only its answer tells (404 is no)."""
        return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        requests, tracing = self.requests, self.requests.tracing
        if not tracing.on or KEY in environ:
            return self.app(environ, start_response)
        began = tracing.monotonic()
        environ[KEY] = None
        root, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        if self._api.owns(path):
            answered = self._answers.answer(environ, start_response, self._hidden, self.owns)
            if answered is not None:
                return answered
        path = root + path
        if not path.isascii():
            path = _text(path)
        if requests.excluded is not None and requests.excluded(path):
            return self._hidden(environ, start_response)
        scheme, version = environ.get("wsgi.url_scheme", "http"), environ.get("SERVER_PROTOCOL", "")[5:]  # no `HTTP/`
        span, token, outer = begin(requests, environ, path, scheme, version)
        environ[KEY] = served = Served(self, span, environ, start_response, len(root))
        if span.trace.metered:
            tracing.hot(tracing.monotonic() - began)
        body = None
        try:
            body = served.watched(self.app(environ, served.start))
        finally:
            if body is None:
                served.broken(sys.exception())
            context.leave(token)
            if outer is not None:
                context.leave(outer)
        return body

    def _hidden(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        token = self.requests.hide()
        try:
            return Body(self.app(environ, start_response))
        finally:
            context.leave(token)


def begin(requests: Requests, environ: Environ, path: str, scheme: str, version: str) -> tuple[ServerSpan, Any, Any]:
    """Begin a request and make it current; return its span and the tokens of one or two contexts to leave."""
    find = environ.get
    above = outer = None
    if "HTTP_TRACEPARENT" in environ or "HTTP_BAGGAGE" in environ or requests.propagator is not None:
        above, outer = requests.arriving(headers_of(environ))
    query, host, agent = find("QUERY_STRING", ""), find("HTTP_HOST", ""), find("HTTP_USER_AGENT", "")
    if not (query.isascii() and host.isascii() and agent.isascii()):
        query, host, agent = _text(query), _text(host), _text(agent)
    peer = find("REMOTE_ADDR")
    client = (peer, find("REMOTE_PORT")) if peer else None
    name = None if host else find("SERVER_NAME")  # told only where there is no host
    server = (name, find("SERVER_PORT")) if name else None
    length = find("CONTENT_LENGTH")
    size = int(length) if length and length.isdecimal() and len(length) < _DIGITS else -1
    raw = (scheme, path, query, version, host, agent, client, server)
    span = requests.begin(environ["REQUEST_METHOD"], raw, above, size)
    token = context.enter(span)
    if (request_id := find("HTTP_X_REQUEST_ID")) is not None:
        context.bind({"request.id": _text(request_id)[:128]})
    return span, token, outer


def _text(value: str) -> str:
    """Return a text of `environ`, whose characters stand for bytes (PEP 3333), as the UTF-8 that it mostly is."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode("utf-8", "replace")


def headers_of(environ: Environ) -> Iterator[tuple[bytes, bytes]]:
    """Yield the request's headers, their names in lower case."""
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace")
