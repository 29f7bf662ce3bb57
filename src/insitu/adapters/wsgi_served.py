"""One WSGI request and its body.

The body may be a generator that works while the server iterates over it: the request ends with its body, and is current
whenever the application runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from insitu.core import context, guard
from insitu.signals.requests import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from insitu.adapters.wsgi_answers import Environ, StartResponse
    from insitu.signals.requests import ServerSpan

_THERE: Final = (list, tuple)
_LENGTHS: Final = ("Content-Length", "content-length")


class Served:
    """One request, from its begin to its end.

    Args:
        span: of the request.
        environ, start_response: as the server gave them.
        route: returns the template of the route that answers, "" where there is none.
        end: ends the request, given its span and route.
        header: name of a response header for the trace id, or None.

    """

    __slots__ = (
        "_announced",
        "_end",
        "_environ",
        "_find_route",
        "_header",
        "_root",
        "_route",
        "_start_response",
        "span",
    )

    def __init__(
        self,
        span: ServerSpan,
        environ: Environ,
        start_response: StartResponse,
        *,
        route: Callable[[Environ], str],
        end: Callable[[ServerSpan, str], None],
        header: str | None,
    ) -> None:
        self.span = span
        self._find_route = route
        self._end = end
        self._header = header
        self._environ = environ
        self._root = len(environ.get("SCRIPT_NAME", ""))
        self._route = ""
        self._start_response = start_response
        self._announced = -1

    def start(self, status: str, headers: list[tuple[str, str]], *failure: Any) -> Callable[[bytes], object]:
        """Stand for the server's `start_response`."""
        span, name = self.span, self._header
        self.look()
        span.response_status = int(status[:3]) if status[:3].isdecimal() else 0
        if name is not None:
            headers = [*headers, (name, f"{span.trace.trace_id:032x}")]
        self._announced = next((int(value) for name, value in headers if name in _LENGTHS and value.isdecimal()), -1)
        write = self._start_response(status, headers, *failure)

        def written(data: bytes) -> object:
            span.response_size += len(data)
            return write(data)

        return written

    def look(self) -> None:
        """Find out the route, with what it is mounted below: frameworks know it while they answer, and then forget."""
        route = guard.call("wsgi.route", self._find_route, self._environ, default="")
        if route:
            self._route = self._environ.get("SCRIPT_NAME", "")[self._root :] + route

    def failed(self, error: BaseException) -> None:
        """Note an exception that nobody in the application handles."""
        self.look()
        fail(self.span, error)

    def __enter__(self) -> None:
        """Begin to watch what may fail."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the request with the exception that leaves the application, or with the body's last piece."""
        if error is not None:
            if kind is not StopIteration:
                self.failed(error)
            self.end()

    def watched(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body; where all of it is there it is not touched, and the request is over."""
        if type(body) in _THERE:
            self.span.response_size += sum(map(len, body))
        elif type(body) is self._environ.get("wsgi.file_wrapper"):  # the server sends it past us
            self.span.response_size += max(self._announced, 0)
        else:
            return _Measured(body, self)
        self.end()
        return body

    def sent(self, size: int) -> None:
        """Count a piece of the body; the last that was announced is the end: not every client asks for another."""
        self.span.response_size += size
        if self.span.response_size == self._announced:
            self.end()

    def end(self) -> None:
        """End the request; only the first call counts."""
        if not self.span.end_time:
            self._end(self.span, self._route)


class Body:
    """A response's body, in whose every step the application finds its own context."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        self._pieces = iter(body)
        self._context = context.current()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = context.attach(self._context)
        try:
            return next(self._pieces)
        finally:
            context.leave(token)

    def close(self) -> None:
        """Let the application tidy up, as the server does when all is sent or the client has gone."""
        close = getattr(self._body, "close", None)
        if close is not None:
            token = context.attach(self._context)
            try:
                close()
            finally:
                context.leave(token)


class _Measured(Body):
    """A body that ends the request."""

    def __init__(self, body: Iterable[bytes], served: Served) -> None:
        super().__init__(body)
        self._served = served

    def __next__(self) -> bytes:
        with self._served:
            piece = super().__next__()
        self._served.sent(len(piece))
        return piece

    def close(self) -> None:
        with self._served:
            super().close()
        self._served.end()
