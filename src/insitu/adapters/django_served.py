"""One request to Django and its response, whose body may be streamed."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import wsgi
from insitu.adapters.wsgi_served import Body, Measured
from insitu.core import context
from insitu.signals.requests import fail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django.http import HttpRequest

    from insitu.signals.requests import Requests

_ANCHORS: Final = re.compile(r"[\^$]|\\[AZ]")


class Hidden:
    """A request that is out of every signal.

    Args:
        requests: the hot path.

    """

    def __init__(self, requests: Requests) -> None:
        self._token = requests.hide()

    def answered(self, response: Any, match: object, header: str | None) -> Any:
        """Take what the application answers; what it streams is hidden, too."""
        del match, header
        if response.streaming and getattr(response, "file_to_stream", None) is None:
            response.streaming_content = (Pieces if response.is_async else Body)(response.streaming_content)
        return response

    def leave(self, response: object) -> None:
        """Leave the hidden context."""
        del response
        context.leave(self._token)


class Served:
    """One request, from its begin to the end of its response.

    Args:
        requests: the hot path.
        request: Django's.

    """

    announced = -1

    def __init__(self, requests: Requests, request: HttpRequest) -> None:
        began = requests.tracing.monotonic()
        self._requests = requests
        self._route = ""
        scheme, version = _protocol(request)
        self.span, self._token, self._outer = wsgi.begin(requests, request.META, request.path, scheme, version)
        request.META[wsgi.KEY] = self
        if self.span.trace.metered:
            self._meter(began)

    def answered(self, response: Any, match: Any, header: str | None) -> Any:
        """Take what the application answers; a body that is streamed ends the request.

        Args:
            response: Django's.
            match: of the resolver, None where no route answers.
            header: name of a response header for the trace id, or None.

        """
        began = self._requests.tracing.monotonic()
        span = self.span
        self._route = template(match.route) if match is not None else ""
        span.response_status = response.status_code
        if header is not None:
            response[header] = f"{span.trace.trace_id:032x}"
        if not response.streaming:
            span.response_size = len(response.content)
            self.end()
        elif getattr(response, "file_to_stream", None) is not None:  # the server may send it past us
            response._resource_closers.append(self.end)
        elif response.is_async:
            response.streaming_content = Pieces(response.streaming_content, self)
        else:
            response.streaming_content = Measured(response.streaming_content, self)
        if span.trace.metered:
            self._meter(began)
        return response

    def leave(self, response: object) -> None:
        """Leave the request's context; without a response what ends it is on its way to the server."""
        if response is None:
            self.broken(sys.exception())
        context.leave(self._token)
        if self._outer is not None:
            context.leave(self._outer)

    def tell(self, route: str) -> None:
        """Take note of the route that somebody below has found."""
        self._route = route

    def failed(self, error: BaseException) -> None:
        """Note an exception that nobody in the application handles."""
        fail(self.span, error)

    def broken(self, error: BaseException | None) -> None:
        """End the request, with the exception that leaves the application; a body's end is none."""
        if error is not None and not isinstance(error, StopIteration):
            self.failed(error)
        self.end()

    def end(self) -> None:
        """End the request; only the first call counts."""
        self._requests.finish(self.span, self._route)

    def _meter(self, began: int) -> None:
        self._requests.tracing.hot(self._requests.tracing.monotonic() - began)


class Pieces:
    """A body that is streamed by a coroutine, in whose every step the application finds its own context.

    Args:
        pieces: the body.
        served: what ends with it, if anything does.

    """

    def __init__(self, pieces: Any, served: Served | None = None) -> None:
        self._pieces = pieces
        self._served = served
        self._context = context.current()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces, served = aiter(self._pieces), self._served
        try:
            while (piece := await self._next(pieces)) is not None:
                if served is not None:
                    served.span.response_size += len(piece)
                yield piece
        finally:
            if served is not None:
                served.broken(sys.exception())

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        token = context.attach(self._context)
        try:
            return await anext(pieces, None)
        finally:
            context.leave(token)

    def close(self) -> None:
        """End the request, as the server does when all is sent or the client has gone."""
        if self._served is not None:
            self._served.end()


@lru_cache(2_000)
def template(route: str) -> str:
    """Return a resolver's route as a path; where it is made of regular expressions, without their anchors."""
    return "/" + _ANCHORS.sub("", route)


def _protocol(request: HttpRequest) -> tuple[str, str]:
    """Return scheme and version, which are not in META where Django is served over ASGI."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        return scope.get("scheme", "http"), scope.get("http_version", "")
    return request.META.get("wsgi.url_scheme", "http"), request.META.get("SERVER_PROTOCOL", "")[5:]
