"""Any ASGI application: HTTP requests and WebSockets become begin, fail and finish.

Our own paths are answered here, and the lifespan's end flushes.
Pure ASGI: the state of a request is in what `begin` returned, never on the middleware, and `scope` is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters.asgi_answers import Answers, Message, Receive, Scope, Send
from insitu.core import context, guard

if TYPE_CHECKING:
    from concurrent.futures import Future

    from insitu.signals.requests import Requests, ServerSpan
    from insitu.signals.tracing import TracerProvider
    from insitu.web.api import Api

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OVER: Final = frozenset(("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"))
_STARTS: Final = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
_SERVED: Final = frozenset(("http", "websocket"))
_SWITCHING: Final = 101
_REFUSED: Final = 403  # what a server answers for a WebSocket that is closed before it was accepted
_SERVER_ERROR: Final = 500
_DIGITS: Final = 20  # of a content-length that is believed


class Middleware:
    """Wraps an ASGI application.

    Args:
        app: the application.
        requests: the hot path.
        api: answers our own paths.
        read: runs a function on the reader's thread.
        flush: empties the pipeline, blocking; called in a thread when the lifespan ends.
        loop_started: told from inside each event loop that serves.
        header: name of a response header for the trace id, or None.

    """

    def __init__(
        self,
        app: App,
        requests: Requests,
        api: Api,
        *,
        read: Callable[[Callable[[], Any]], Future[Any]],
        flush: Callable[[], object],
        loop_started: Callable[[], object],
        header: bytes | None = None,
    ) -> None:
        self.app = app
        self._requests = requests
        self._api = api
        self._answers = Answers(api, read)
        self._flush = flush
        self._loop_started = loop_started
        self._header = header

    def route(self, scope: Scope) -> str:  # noqa: ARG002 a framework's adapter reads it
        """Return the template of the route that answered, "" where there is none."""
        return ""

    def owns(self, scope: Scope) -> bool | None:  # noqa: ARG002
        """Whether the application has a route for one of our paths; None: only its answer tells (404 is no)."""
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        requests = self._requests
        if kind not in _SERVED or not requests.tracing.on or "insitu" in scope:
            await self._other(kind, scope, receive, send)
            return
        began = requests.tracing.monotonic()
        # Nobody below, mounted or wrapped, may trace and measure the request again: neither we nor FastAPI itself.
        scope["insitu"] = scope["fastapi.telemetry"] = None
        path = scope["path"]
        if kind == "http" and self._api.owns(path) and await self._answered(scope, receive, send):
            return
        if requests.excluded is not None and requests.excluded(path):
            await self._hidden(scope, receive, send)
            return
        headers = dict(pairs := scope["headers"])
        called = b"traceparent" in headers or b"baggage" in headers or requests.propagator is not None
        above, outer = requests.arriving(pairs) if called else (None, None)
        raw = (
            scope.get("scheme", "http"),
            path,
            scope.get("query_string", b""),
            scope.get("http_version", ""),
            headers.get(b"host", b""),
            headers.get(b"user-agent", b""),
            scope.get("client"),
            scope.get("server"),
        )
        length = headers.get(b"content-length", b"")
        size = int(length) if length.isdigit() and len(length) < _DIGITS else -1
        span = requests.begin(scope["method"] if kind == "http" else "WS", raw, above, size)
        token = context.enter(span)
        if (request_id := headers.get(b"x-request-id")) is not None:
            context.bind({"request.id": request_id.decode("utf-8", "replace")[:128]})
        watch = self._watch(span, scope, send)
        if metered := span.trace.metered:
            watch = _timed(watch, requests.tracing)
            requests.tracing.hot(requests.tracing.monotonic() - began)
        try:
            with span:
                await self.app(scope, receive, watch)
        finally:
            began = requests.tracing.monotonic() if metered else 0
            if not span.end_time:
                requests.finish(span, self.route(scope))
            context.leave(token)
            if outer is not None:
                context.leave(outer)
            if metered:
                requests.tracing.hot(requests.tracing.monotonic() - began)

    def _watch(self, span: ServerSpan, scope: Scope, send: Send) -> Send:
        header = self._header

        def watch(message: Message) -> Awaitable[None]:
            kind = message["type"]
            if kind in _STARTS:
                span.response_status = message.get("status", _SWITCHING)
                if header is not None:
                    message["headers"] = [*message.get("headers", ()), (header, b"%032x" % span.trace.trace_id)]
            elif kind == "http.response.body":
                span.response_size += len(message.get("body", b""))
                # The exception behind a 500 is still on its way to us, so that span ends when the application returns.
                if not message.get("more_body") and span.response_status < _SERVER_ERROR:
                    self._requests.finish(span, self.route(scope))
            elif kind == "websocket.close" and not span.response_status:
                span.response_status = _REFUSED
            return send(message)

        return watch

    async def _hidden(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = self._requests.hide()
        try:
            await self.app(scope, receive, send)
        finally:
            context.leave(token)

    async def _other(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        if kind != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watch(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                guard.call("asgi.loop", self._loop_started)
            elif message["type"] in _OVER:
                # uvicorn kills itself by the signal it was sent once this returns: nothing of ours runs later.
                await asyncio.get_running_loop().run_in_executor(None, guard.call, "asgi.flush", self._flush)
            await send(message)

        await self.app(scope, receive, watch)

    # --- our own paths ---

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer one of our own paths, unless the application has it: then False, and it is served like any other."""
        owned = guard.call("asgi.owns", self.owns, scope)
        if owned is False or (owned is None and not await self._answered_by_host(scope, receive, send)):
            await self._answers.send(scope, receive, send)
        return owned is not True

    async def _answered_by_host(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Let the application answer; what it sends behind a 404 is swallowed."""
        missing = False

        async def watch(message: Message) -> None:
            nonlocal missing
            if message["type"] == "http.response.start":
                missing = message["status"] == 404  # noqa: PLR2004 the one that means "not mine"
            if not missing:
                await send(message)

        await self._hidden(dict(scope), receive, watch)
        return not missing


def _timed(watch: Send, tracing: TracerProvider) -> Send:
    """Enter into the ledger what `watch` takes until the message is on its way."""

    def timed(message: Message) -> Awaitable[None]:
        began = tracing.monotonic()
        sending = watch(message)
        tracing.hot(tracing.monotonic() - began)
        return sending

    return timed
