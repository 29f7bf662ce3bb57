"""httpx: a client span and a duration for each request, and the trace's headers on it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Self

import wrapt
from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from insitu.core import context, guard
from insitu.core.records import Error, Scope
from insitu.signals import tracing
from insitu.signals.errors import type_name
from insitu.signals.metrics import DURATION_BOUNDS, registry
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from types import TracebackType

    from insitu.signals.spans import SilentSpan

SCOPE: Final = Scope("insitu.httpx")
_CLIENT: Final = SpanKind.CLIENT
_CLIENT_ERROR: Final = 400
_OTHER: Final = "opentelemetry.instrumentation.httpx"


def hook(module: Any) -> None:
    """Wrap the transports of an imported httpx, where each hop of a redirect is a request of its own."""
    duration = registry.instrument(
        "http.client.request.duration", "histogram", "s", "Duration of HTTP client requests.", bounds=DURATION_BOUNDS
    )

    def call(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        request = args[0] if args else kwargs.get("request")
        if _not_ours():
            return wrapped(*args, **kwargs)
        with _Call(request, duration) as calling:
            return calling.answered(wrapped(*args, **kwargs))

    async def call_async(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        request = args[0] if args else kwargs.get("request")
        if _not_ours():
            return await wrapped(*args, **kwargs)
        with _Call(request, duration) as calling:
            return calling.answered(await wrapped(*args, **kwargs))

    wrapt.wrap_function_wrapper(module, "HTTPTransport.handle_request", call)
    wrapt.wrap_function_wrapper(module, "AsyncHTTPTransport.handle_async_request", call_async)


def _not_ours() -> bool:
    """Whether the call is somebody else's to trace: insitu's own export, or an instrumentation of the application."""
    current = context.current()
    if not tracing.provider.on or current.get(context.SUPPRESS_KEY):
        return True
    above = current.get(context.SPAN_KEY)
    if isinstance(above, Span) and above.scope.name == _OTHER and above.kind is _CLIENT and not above.end_time:
        return True  # `instrument_client` knows its one client only
    loaded = sys.modules.get(_OTHER)
    return loaded is not None and bool(loaded.HTTPXClientInstrumentor().is_instrumented_by_opentelemetry)


class _Call:
    """The client span of one HTTP request: every hop of a redirect is one."""

    __slots__ = ("_duration", "_labels", "_span", "_token")

    def __init__(self, request: Any, duration: Any) -> None:
        self._duration = duration
        self._labels: dict[str, Any] = {}
        self._span: Span | SilentSpan = tracing.SILENT
        self._token: Any = None
        guard.call("httpx", self._start, request)

    def _start(self, request: Any) -> None:
        url = request.url
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        self._labels = {"http.request.method": request.method, "server.address": url.host, "server.port": port}
        own = {**self._labels, "url.full": str(url.copy_with(username=None, password=None))}
        parent = context.current().get(context.SPAN_KEY)
        self._span = tracing.provider.start(Span(request.method, _CLIENT, own, SCOPE), parent)
        self._token = context.enter(self._span)
        propagate.inject(request.headers)

    def answered(self, response: Any) -> Any:
        status = response.status_code
        self._labels["http.response.status_code"] = status
        self._span.set_attribute("http.response.status_code", status)
        if status >= _CLIENT_ERROR:
            self._labels["error.type"] = str(status)
            self._span.set_attribute("error.type", str(status))
            if self._span is not tracing.SILENT and self._span.is_recording():
                self._span.status_code = Error  # type: ignore[union-attr]
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            context.leave(self._token)
        if error is not None:
            if isinstance(error, Exception):  # a cancellation is nobody's error
                self._labels["error.type"] = type_name(error)
            self._span.fail(error)
        self._span.end()
        guard.call("httpx", self._measure)

    def _measure(self) -> None:
        span = self._span
        if isinstance(span, Span):
            cell = self._duration.cell(frozenset(self._labels.items()), self._labels)
            with self._duration.lock:
                cell.record(span.duration / 1e9)
