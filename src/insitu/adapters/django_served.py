"""One request to Django and its response, whose body may be streamed."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import wsgi
from insitu.adapters.wsgi_served import Measured
from insitu.core import context
from insitu.signals.requests import fail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django.http import HttpRequest

    from insitu.signals.requests import Raw, Requests

_ANCHORS: Final = re.compile(r"[\^$]|\\[AZ]")


class Served:
    """One request, from its begin to the end of its response.

    Args:
        requests: the hot path.
        request: Django's.

    """

    announced = -1

    def __init__(self, requests: Requests, request: HttpRequest) -> None:
        meta = request.META
        self._requests = requests
        self._request: HttpRequest | None = request
        self._route = ""
        self.hidden = requests.excluded(request.path)
        if self.hidden:
            self._tokens = [requests.hide()]
            return
        called = "HTTP_TRACEPARENT" in meta or "HTTP_BAGGAGE" in meta or requests.propagator is not None
        above, outer = requests.arriving(wsgi.headers_of(meta)) if called else (None, None)
        self.span = requests.begin(str(request.method), _raw(request), above, wsgi.size_of(meta))
        self._tokens = [token for token in (outer, context.enter(self.span)) if token is not None]
        meta[wsgi.KEY] = self.span
        if (request_id := meta.get("HTTP_X_REQUEST_ID")) is not None:
            context.bind({"request.id": request_id[:128]})

    def answered(self, response: Any, header: str | None) -> Any:
        """Take what the application answers; a body that is streamed ends the request."""
        if self.hidden:
            return response
        span = self.span
        match = self._request.resolver_match if self._request is not None else None
        self._route = _template(match.route) if match is not None else ""
        span.response_status = response.status_code
        if header is not None:
            response[header] = f"{span.trace.trace_id:032x}"
        if not response.streaming:
            span.response_size = len(response.content)
            self.end()
        elif getattr(response, "file_to_stream", None) is not None:  # the server may send it past us
            response._resource_closers.append(self.end)
        elif response.is_async:
            response.streaming_content = _Pieces(response.streaming_content, self)
        else:
            response.streaming_content = Measured(response.streaming_content, self)
        return response

    def leave(self, response: object) -> None:
        """Leave the request's context; without a response what ends it is on its way to the server."""
        if response is None and not self.hidden:
            self.broken(sys.exception())
        while self._tokens:
            context.leave(self._tokens.pop())
        self._request = None

    def broken(self, error: BaseException | None) -> None:
        """End the request, with the exception that leaves the application; a body's end is none."""
        if error is not None and not isinstance(error, StopIteration):
            fail(self.span, error)
        self.end()

    def end(self) -> None:
        """End the request; only the first call counts."""
        self._requests.finish(self.span, self._route)


class _Pieces:
    """A body that is streamed by a coroutine, in whose every step the application finds its own context."""

    def __init__(self, pieces: Any, served: Served) -> None:
        self._pieces = pieces
        self._served = served
        self._context = context.current()
        self.close = served.end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces, served = aiter(self._pieces), self._served
        try:
            while True:
                token = context.attach(self._context)
                try:
                    piece = await anext(pieces, None)
                finally:
                    context.leave(token)
                if piece is None:
                    break
                served.span.response_size += len(piece)
                yield piece
        finally:
            served.broken(sys.exception())


@lru_cache(2_000)
def _template(route: str) -> str:
    """Return a resolver's route as a path; where it is made of regular expressions, without their anchors."""
    return "/" + _ANCHORS.sub("", route)


def _raw(request: HttpRequest) -> Raw:
    raw = wsgi.raw_of(request.META, request.path)
    scope = getattr(request, "scope", None)
    return raw if scope is None else (scope.get("scheme", "http"), *raw[1:3], scope.get("http_version", ""), *raw[4:])
