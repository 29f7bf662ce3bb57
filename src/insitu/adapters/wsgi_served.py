"""One WSGI request and its body.

The body may be a generator that works while the server iterates over it: the request ends with its body, and is current
whenever the application runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from insitu.core import context
from insitu.signals.requests import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from insitu.adapters.wsgi import Middleware
    from insitu.adapters.wsgi_answers import Environ, StartResponse
    from insitu.signals.requests import ServerSpan

_attach: Final = context.attach
_leave: Final = context.leave
_NOTHING: Final[Environ] = {}
_THERE: Final = (list, tuple)
_LENGTHS: Final = ("Content-Length", "content-length")


class Served:
    """One request, from its begin to its end.

    Args:
        middleware: knows routes, and ends requests.
        span: of the request.
        environ, start_response: as the server gave them.
        root: length of the path that the server has mounted the application below.

    Attributes:
        announced: bytes of the body by its Content-Length, -1 without one.
        whole: whether somebody who knows has said that all of the body is there, and counted it.

    """

    __slots__ = ("_environ", "_middleware", "_root", "_route", "_start_response", "announced", "span", "whole")

    def __init__(
        self, middleware: Middleware, span: ServerSpan, environ: Environ, start_response: StartResponse, root: int
    ) -> None:
        self.span = span
        self.announced = -1
        self.whole = False
        self._middleware = middleware
        self._environ = environ
        self._root = root
        self._route = ""
        self._start_response = start_response

    def start(self, status: str, headers: list[tuple[str, str]], *failure: Any) -> Callable[[bytes], object]:
        """Stand for the server's `start_response`."""
        span, name = self.span, self._middleware.header
        code = status[:3]
        span.response_status = int(code) if code.isdecimal() else 0
        if name is not None:
            headers = [*headers, (name, f"{span.trace.trace_id:032x}")]
        if self.whole:
            return self._start_response(status, headers, *failure)
        self.look()
        for key, value in headers:
            if key in _LENGTHS and value.isdecimal():
                self.announced = int(value)
        write = self._start_response(status, headers, *failure)

        def written(data: bytes) -> object:
            span.response_size += len(data)
            return write(data)

        return written

    def look(self) -> None:
        """Find out the route: frameworks know it while they answer, and then forget."""
        route = self._middleware.route(self._environ)
        if route:
            self.tell(route)

    def tell(self, route: str) -> None:
        """Take note of the route; what it is mounted below is in `environ` meanwhile."""
        self._route = self._environ.get("SCRIPT_NAME", "")[self._root :] + route

    def failed(self, error: BaseException) -> None:
        """Note an exception that nobody in the application handles."""
        self.look()
        fail(self.span, error)

    def broken(self, error: BaseException | None) -> None:
        """End the request, with the exception that leaves the application; a body's end is none."""
        if error is not None and type(error) is not StopIteration:
            self.failed(error)
        self.end()

    def there(self, size: int) -> None:
        """Take note that the route is told, and all of the body there, so many bytes; a HEAD has none."""
        self.span.response_size = size if self.span.method != "HEAD" else 0
        self.whole = True

    def watched(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body; where all of it is there it is not touched, and the request is over."""
        if self.whole:
            pass
        elif type(body) in _THERE:
            self.span.response_size += sum(map(len, body))
        elif type(body) is self._environ.get("wsgi.file_wrapper"):  # the server sends it past us
            self.span.response_size += max(self.announced, 0)
        else:
            return Measured(body, self)
        self.end()
        return body

    def end(self) -> None:
        """End the request; only the first call counts."""
        span = self.span
        if span.end_time:
            return
        self._environ = _NOTHING  # which holds us: a circle would wait for Python's garbage collector
        requests, metered = self._middleware.requests, span.trace.metered
        began = requests.tracing.monotonic() if metered else 0
        requests.finish(span, self._route)
        if metered:
            requests.tracing.hot(requests.tracing.monotonic() - began)


class Serving(Protocol):
    """What a measured body ends."""

    span: ServerSpan
    announced: int

    def broken(self, error: BaseException | None) -> None:
        """End the request with an exception."""

    def end(self) -> None:
        """End the request."""


class Body:
    """A response's body, in whose every step the application finds its own context."""

    __slots__ = ("_body", "_context", "_pieces")

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        self._pieces = iter(body)
        self._context = context.current()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = _attach(self._context)
        try:
            return next(self._pieces)
        finally:
            _leave(token)

    def close(self) -> None:
        """Let the application tidy up, as the server does when all is sent or the client has gone."""
        close = getattr(self._body, "close", None)
        if close is not None:
            token = _attach(self._context)
            try:
                close()
            finally:
                _leave(token)


class Measured(Body):
    """A body that ends the request."""

    __slots__ = ("_served",)

    def __init__(self, body: Iterable[bytes], served: Serving) -> None:
        super().__init__(body)
        self._served = served

    def __next__(self) -> bytes:
        served, token, piece = self._served, _attach(self._context), None
        try:
            piece = next(self._pieces)
        finally:
            _leave(token)
            if piece is None:
                served.broken(sys.exception())
        served.span.response_size += (size := len(piece))
        if size and served.span.response_size == served.announced:
            served.end()  # not every client asks for what comes behind the last piece
        return piece

    def close(self) -> None:
        """Let the application tidy up, and end the request."""
        done = False
        try:
            super().close()
            done = True
        finally:
            self._served.broken(None if done else sys.exception())
