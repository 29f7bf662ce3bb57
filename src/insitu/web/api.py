"""insitu's own paths as one framework-free function: `handle(request) → response`.

It runs on the reader's thread, never on an event loop nor in the application's pool.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.web import access
from insitu.web.messages import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from insitu.web.messages import Request
    from insitu.web.monitoring import Monitoring

_METHODS: Final = ("GET", "HEAD")
_PLAIN: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer, where it has none of its own."""
_NOTHING: Final = "\0"
"""How no path begins."""


class Api:
    """The paths that insitu answers.

    Args:
        pages: path → what renders it, given the Accept header: (content type, body).
        token: opens them to others than this machine.
        monitoring: answers its home, and every path below; None where nothing is kept.

    Attributes:
        paths: those where somebody may look: the pages' and the home.

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
        self.paths = frozenset(pages) | ({monitoring.home} if monitoring is not None else set())
        self._below = monitoring.prefix if monitoring is not None else _NOTHING

    def owns(self, path: str) -> bool:
        """Whether a path is ours."""
        return path in self.paths or path.startswith(self._below)

    def handle(self, request: Request) -> Response:
        """Answer a request to one of our paths; the body is that of a GET, and the adapter leaves it out for a HEAD."""
        answer = self._answer(request)
        return replace(answer, headers={**_PLAIN, **answer.headers})

    def _answer(self, request: Request) -> Response:
        if not access.allowed(request.peer, request.headers, self._token):
            # A browser asks for what it can send, by any name and with the token for a password.
            challenge = 'Bearer, Basic realm="insitu"' if self._token else "Bearer"
            return Response(401, access.REFUSAL.encode(), headers={"www-authenticate": challenge})
        if request.method not in _METHODS:
            return Response(405, b"insitu: only GET is answered here\n", headers={"allow": "GET, HEAD"})
        rendered: Response | None = guard.call("web.handle", self._rendered, request)
        return rendered or Response(500, b"insitu: this page failed; the log says why\n")

    def _rendered(self, request: Request) -> Response:
        page = self._pages.get(request.path)
        if page is not None:
            content_type, body = page(request.headers.get("accept", ""))
            return Response(200, body, content_type)
        assert self._monitoring is not None, request.path
        return self._monitoring.answer(request)
