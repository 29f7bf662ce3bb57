"""One HTTP request to another service, as the conventions for HTTP clients have it.

A client span, a duration, and the trace's headers; every library's hook makes one from its own request.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from insitu.core import context, guard
from insitu.core.records import Error, Scope
from insitu.signals import tracing
from insitu.signals.errors import type_name
from insitu.signals.metrics import DURATION_BOUNDS, registry
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    from insitu.signals.spans import SilentSpan

_CLIENT: Final = SpanKind.CLIENT
_CLIENT_ERROR: Final = 400
_PORTS: Final = {"http": 80, "https": 443}
_duration: Final = registry.instrument(
    "http.client.request.duration", "histogram", "s", "Duration of HTTP client requests.", bounds=DURATION_BOUNDS
)


class Library:
    """One HTTP client library.

    Args:
        name: `httpx`: of our scope, `insitu.httpx`, and of OpenTelemetry's module for the same.
        instrumentor: the class in OpenTelemetry's module.

    """

    def __init__(self, name: str, instrumentor: str) -> None:
        self.scope = Scope(f"insitu.{name}")
        self._module = f"opentelemetry.instrumentation.{name.replace('-', '_')}"
        self._instrumentor = instrumentor

    def is_left_alone(self) -> bool:
        """Whether a request is somebody else's to trace: insitu's own export, or a hook that the application chose."""
        current = context.current()
        if not tracing.provider.on or current.get(context.SUPPRESS_KEY):
            return True
        above = current.get(context.SPAN_KEY)
        if isinstance(above, Span) and above.scope.name == self._module and above.kind is _CLIENT and not above.end_time:
            return True  # an instrumented client, or session, of which the class knows nothing
        loaded = sys.modules.get(self._module)
        return loaded is not None and bool(getattr(loaded, self._instrumentor)().is_instrumented_by_opentelemetry)


class Call:
    """The client span of one HTTP request, current while it runs.

    Args:
        library: whose request.
        begin: calls `begin` with what the request says; what it raises is ours, and costs the span alone.

    """

    __slots__ = ("_labels", "_span", "_token", "library")

    def __init__(self, library: Library) -> None:
        self.library = library
        self._labels: dict[str, Any] = {}
        self._span: Span | SilentSpan = tracing.SILENT
        self._token: Any = None

    def begin(
        self,
        method: str,
        url: str,
        address: tuple[str, str, int | None],
        headers: MutableMapping[str, str],
    ) -> None:
        """Begin.

        Args:
            method: GET.
            url: the whole, without user and password.
            address: scheme, host and port; where it has none, that of the scheme.
            headers: of the request: the trace's are added.

        """
        scheme, host, port = address
        port = port or _PORTS.get(scheme, 0)
        self._labels = {"http.request.method": method, "server.address": host, "server.port": port}
        own = {**self._labels, "url.full": url}
        parent = context.current().get(context.SPAN_KEY)
        self._span = tracing.provider.start(Span(method, _CLIENT, own, self.library.scope), parent)
        self._token = context.enter(self._span)
        propagate.inject(headers)

    def answered(self, status: int) -> None:
        """Take note of the status."""
        self._labels["http.response.status_code"] = status
        self._span.set_attribute("http.response.status_code", status)
        if status >= _CLIENT_ERROR:
            self._labels["error.type"] = str(status)
            self._span.set_attribute("error.type", str(status))
            if self._span is not tracing.SILENT and self._span.is_recording():
                self._span.status_code = Error  # type: ignore[union-attr]

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
        guard.call(self.library.scope.name, self._measure)

    def _measure(self) -> None:
        span = self._span
        if isinstance(span, Span):
            cell = _duration.cell(frozenset(self._labels.items()), self._labels)
            with _duration.lock:
                cell.record(span.duration / 1e9)
