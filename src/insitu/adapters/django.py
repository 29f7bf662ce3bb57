"""Django, sync and async: one middleware, best the first of them.

MIDDLEWARE = ["insitu.adapters.django.Middleware", *MIDDLEWARE]
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import got_request_exception
from django.http import HttpResponse
from django.urls import Resolver404, resolve

from insitu.adapters import parts, wsgi
from insitu.adapters.django_served import Hidden, Served, template
from insitu.adapters.wsgi_answers import asked, settled
from insitu.core import guard

if TYPE_CHECKING:
    from concurrent.futures import Future

    from django.http import HttpRequest

    from insitu.web.messages import Response

_NO_LOOP: Final[Callable[[], object]] = lambda: None  # noqa: E731
_CATCH_ALL: Final = ("<", "^<", "^(", "(", "^.", ".")


class Middleware:
    """Measures every request, and answers insitu's own paths."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        found = parts.start()
        if found is None:
            raise MiddlewareNotUsed
        self.get_response = get_response
        self._requests, self._api, self._read, self._header, self._watch = found
        self._loop: Callable[[], object] = _NO_LOOP
        self._awaited = iscoroutinefunction(get_response)
        if self._awaited:
            markcoroutinefunction(self)
        got_request_exception.connect(_failed, dispatch_uid="insitu")

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request."""
        if self._awaited:
            return self._serve(request)
        if not self._watches(request):
            return _told(request, self.get_response(request))
        if self._api.owns(request.path_info) and (answer := self._ours(request)) is not None:
            return _sent(settled(answer), request)
        served, response = self._begun(request), None
        try:
            response = self.get_response(request)
            response = served.answered(response, request.resolver_match, self._header)
        finally:
            served.leave(response)
        return response

    async def _serve(self, request: HttpRequest) -> Any:
        if self._loop() is not (loop := asyncio.get_running_loop()):
            guard.call("django.loop", self._attend, loop)
        if not self._watches(request):
            return _told(request, await self.get_response(request))
        if self._api.owns(request.path_info) and (answer := self._ours(request)) is not None:
            return _sent(await asyncio.wrap_future(answer), request)
        served, response = self._begun(request), None
        try:
            response = await self.get_response(request)
            response = served.answered(response, request.resolver_match, self._header)
        finally:
            served.leave(response)
        return response

    def _attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a loop from its first request on: Django's ASGI has no lifespan that would tell where it begins."""
        self._loop = weakref.ref(loop)
        self._watch()

    def _watches(self, request: HttpRequest) -> bool:
        """Whether nobody above has begun the request already."""
        above = wsgi.KEY in request.META or "insitu" in getattr(request, "scope", ())
        return self._requests.tracing.on and not above

    def _begun(self, request: HttpRequest) -> Served | Hidden:
        requests = self._requests
        if requests.excluded is not None and requests.excluded(request.path):
            return Hidden(requests)
        return Served(requests, request)

    def _ours(self, request: HttpRequest) -> Future[Response] | None:
        """Return the answer to one of our own paths, unless a route of the application is meant for it."""
        try:
            if not resolve(request.path_info).route.startswith(_CATCH_ALL):
                return None
        except Resolver404:
            pass
        question = asked(request.META)
        return self._read(lambda: self._api.handle(question))


def _told(request: HttpRequest, response: Any) -> Any:
    """Tell who measures the request from outside what its route is."""
    above, match = request.META.get(wsgi.KEY), request.resolver_match
    if above is not None and match is not None:
        above.tell(template(match.route))
    return response


def _sent(answer: Response, request: HttpRequest) -> HttpResponse:
    headers = {**answer.headers, "content-length": str(len(answer.body))}
    body = b"" if request.method == "HEAD" else answer.body
    return HttpResponse(body, status=answer.status, content_type=answer.content_type, headers=headers)


def _failed(request: HttpRequest | None = None, **_: object) -> None:
    """Note the exception that Django is about to answer with a 500."""
    served, error = request.META.get(wsgi.KEY) if request is not None else None, sys.exception()
    if served is not None and error is not None:
        guard.call("django.failed", served.failed, error)
