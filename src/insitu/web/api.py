"""insitu's own paths as one framework-free function: `handle(request) → response`.

It runs on the reader's thread, never on an event loop nor in the application's pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.web import access
from insitu.web.monitoring import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from insitu.web.monitoring import Monitoring

_METHODS: Final = ("GET", "HEAD")
_TEXT: Final = "text/plain; charset=utf-8"
_NOTHING: Final = "\0"
"""How no path begins."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an adapter knows of a request to one of our paths; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What an adapter sends."""

    status: int
    body: bytes
    content_type: str = _TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class Api:
    """The paths that insitu answers.

    Args:
        pages: path → what renders it, given the Accept header: (content type, body).
        token: opens them to others than this machine.
        monitoring: answers every path below its prefix; None where nothing is kept.

    Attributes:
        paths: the pages' paths.

    """

    def __init__(
        self,
        pages: Mapping[str, Callable[[str], tuple[str, bytes]]],
        token: str | None,
        monitoring: Monitoring | None = None,
    ) -> None:
        self._pages = pages
        self._token = token
        self._monitoring = monitoring
        self.paths = frozenset(pages)
        self._prefix = PREFIX if monitoring is not None else _NOTHING

    def owns(self, path: str) -> bool:
        """Whether a path is ours."""
        return path in self.paths or path.startswith(self._prefix)

    def handle(self, request: Request) -> Response:
        """Answer a request to one of our paths; the body is that of a GET, and the adapter leaves it out for a HEAD."""
        if not access.allowed(request.peer, request.headers, self._token):
            return Response(401, access.REFUSAL.encode(), headers={"www-authenticate": "Bearer"})
        if request.method not in _METHODS:
            return Response(405, b"insitu: only GET is answered here\n", headers={"allow": "GET, HEAD"})
        rendered = guard.call("web.handle", self._rendered, request)
        if rendered is None:
            return Response(500, b"insitu: this page failed; the log says why\n")
        status, content_type, body = rendered
        plain = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(status, body, content_type, plain)

    def _rendered(self, request: Request) -> tuple[int, str, bytes]:
        page = self._pages.get(request.path)
        if page is not None:
            return (200, *page(request.headers.get("accept", "")))
        assert self._monitoring is not None, request.path
        return self._monitoring.answer(request.path, request.query)
