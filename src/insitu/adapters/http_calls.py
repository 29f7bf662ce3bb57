"""One HTTP request to another service, as the conventions for HTTP clients have it.

A client span, a duration, and the trace's headers; every library's hook makes one from its own request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from insitu.adapters.library import Library
from insitu.core import context, guard
from insitu.core.questions import HTTP_CALLS
from insitu.core.records import Error
from insitu.core.values import SMALL
from insitu.signals import tracing
from insitu.signals.errors import type_name
from insitu.signals.metrics import DURATION_BOUNDS, LABEL_LENGTH, registry
from insitu.signals.requests import known_methods
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    from insitu.signals.spans import SilentSpan

_CLIENT: Final = SpanKind.CLIENT
_CLIENT_ERROR: Final = 400
_METHODS: Final = known_methods()
PORTS: Final = {"http": 80, "https": 443}
_LABELS: Final = (
    "http.request.method",
    "server.address",
    "server.port",
    "http.response.status_code",
    "error.type",
)
_duration: Final = registry.instrument(
    HTTP_CALLS, "histogram", "s", "Duration of HTTP client requests.", bounds=DURATION_BOUNDS
)


class Call:
    """The client span of one HTTP request, current from `begin` to the end of the block.

    Args:
        library: whose request.

    """

    __slots__ = ("_error_type", "_since", "_span", "_status", "_to", "_token", "error", "library")

    def __init__(self, library: Library) -> None:
        self.library = library
        self._to: tuple[str, str, int] = ("", "", 0)
        self._status: int | None = None
        self._error_type: str | None = None
        self._span: Span | SilentSpan = tracing.SILENT
        self._token: Any = None
        self._since = 0
        self.error: BaseException | None = None
        """What it failed with, where the library says something else first."""

    def begin(
        self,
        method: str,
        url: str,
        address: tuple[str, str, int | None],
        headers: MutableMapping[str, str],
    ) -> None:
        """Begin.

        Args:
            method: GET; one that is not known counts as `_OTHER`: it may be whatever the application was told.
            url: the whole, without user and password.
            address: scheme, host and port; where it has none, that of the scheme.
            headers: of the request: the trace's are added.

        """
        scheme, host, port = address
        known, host = (method if method in _METHODS else "_OTHER"), host[:LABEL_LENGTH]
        port = port or PORTS.get(scheme, 0)
        self._to = (known, host, port)
        own: dict[str, Any] = {
            "http.request.method": known,
            "server.address": host,
            "server.port": port,
            "url.full": url[: tracing.provider.limits.value_length],
        }
        if known != method:
            own["http.request.method_original"] = method[:SMALL]
        parent = context.current().get(context.SPAN_KEY)
        self._since = tracing.provider.monotonic()
        span = Span(method if known == method else "HTTP", _CLIENT, own, self.library.scope)
        self._span = tracing.provider.start(span, parent)
        self._token = context.enter(self._span)
        propagate.inject(headers)

    def answered(self, status: int) -> None:
        """Take note of the status."""
        guard.call(self.library.scope.name, self._answered, status)

    def _answered(self, status: int) -> None:
        self._status = status
        self._span.set_attribute("http.response.status_code", status)
        if status >= _CLIENT_ERROR:
            self._error_type = str(status)
            self._span.set_attribute("error.type", self._error_type)
            if self._span is not tracing.SILENT and self._span.is_recording():
                self._span.status_code = Error  # type: ignore[union-attr]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            context.leave(self._token)
        error = self.error or error
        if error is not None:
            if isinstance(error, Exception):  # a cancellation is nobody's error
                self._error_type = type_name(error)
            self._span.fail(error)
        self._span.end()
        guard.call(self.library.scope.name, self._measure)

    def _measure(self) -> None:
        if self._token is not None:
            took = (tracing.provider.monotonic() - self._since) / 1e9
            _duration.record_all(_LABELS, (((*self._to, self._status, self._error_type), took),))
