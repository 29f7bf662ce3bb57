"""insitu's own paths over WSGI: answered on the reader's thread, and sent whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from insitu.core import guard
from insitu.web.messages import Request, Response

if TYPE_CHECKING:
    from concurrent.futures import Future

    from insitu.web.api import Api

Environ = MutableMapping[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]

_SECONDS: Final = 30.0
_LATE: Final = Response(503, b"insitu: the answer takes too long\n")


class Answers:
    """Sends what the API answers.

    Args:
        api: answers our own paths.
        read: runs a function on the reader's thread.

    """

    def __init__(self, api: Api, read: Callable[[Callable[[], Any]], Future[Any]]) -> None:
        self._api = api
        self._read = read

    def answer(
        self,
        environ: Environ,
        start_response: StartResponse,
        app: Callable[[Environ, StartResponse], Iterable[bytes]],
        owns: Callable[[Environ], bool | None],
    ) -> Iterable[bytes] | None:
        """Answer a request to one of our own paths; None where it is the application's all the same.

        Args:
            environ: the request.
            start_response: the server's.
            app: the application, for when only its answer tells.
            owns: whether the application has the path.

        """
        owned = guard.call("wsgi.owns", owns, environ)
        if owned:
            return None
        theirs = _Theirs(app, environ) if owned is None else None
        if theirs is not None and theirs.found:
            start_response(*theirs.started)
            return theirs.body
        return self._sent(environ, start_response)

    def _sent(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = asked(environ)
        response = settled(self._read(lambda: self._api.handle(request)))
        start_response(
            f"{response.status} {HTTPStatus(response.status).phrase}",
            [
                *response.headers.items(),
                ("content-type", response.content_type),
                ("content-length", str(len(response.body))),
            ],
        )
        return [b"" if request.method == "HEAD" else response.body]


def asked(environ: Environ) -> Request:
    """Return what the API is asked."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    peer, query = environ.get("REMOTE_ADDR"), environ.get("QUERY_STRING", "")
    return Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], headers, peer, query)


def settled(answer: Future[Response]) -> Response:
    """Wait for an answer, but not for ever: a server's thread is the application's."""
    try:
        return answer.result(_SECONDS)
    except TimeoutError:
        return _LATE


class _Theirs:
    """What the application answers to one of our paths, taken whole."""

    def __init__(self, app: Callable[[Environ, StartResponse], Iterable[bytes]], environ: Environ) -> None:
        self.started: tuple[Any, ...] = ("404",)
        self.body: list[bytes] = []
        body = app(dict(environ), self._start)
        try:
            self.body += body
        finally:
            getattr(body, "close", list)()

    @property
    def found(self) -> bool:
        """Whether the path is the application's."""
        return not str(self.started[0]).startswith("404")

    def _start(self, *started: Any) -> Callable[[bytes], object]:
        self.started = started
        return self.body.append
