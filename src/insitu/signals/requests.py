"""The hot path: one HTTP request becomes one server span, one RED count and one record.

An adapter turns its framework's events into three calls:

    span = requests.begin(...)          # the request came in
    with span: ...                      # an exception that passes through is noted by fail(span, error)
    requests.finish(span, route)        # the response is out

Everything that can wait (attribute dicts, decoding, histograms) is done later, on the worker, from the raw values
kept here.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context as OtelContext
from opentelemetry.trace import SpanKind

from insitu.core import clock as clocks
from insitu.core import context
from insitu.core.records import SPAN_BYTES, Error, Exemplar, Family, Point, Unset
from insitu.signals import errors
from insitu.signals.metrics import DURATION_BOUNDS, OVERFLOW, HistogramCell
from insitu.signals.spans import Span
from insitu.signals.tracing import OWN, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context

    from insitu.core.records import Attributes, LocalTrace
    from insitu.signals.metrics import Instrument, Registry
    from insitu.signals.tracing import TracerProvider

SERVER: Final = SpanKind.SERVER
SIZE_BOUNDS: Final = (0.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0)
"""Bytes; the conventions advise no bounds for body sizes."""
_DEFAULT_METHODS: Final = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
_SERVER_ERROR: Final = 500
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def known_methods() -> frozenset[str]:
    """Return the methods kept by name.

    Others are `_OTHER` (HTTP conventions, OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS).
    """
    listed = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS") or _DEFAULT_METHODS
    return frozenset(method.strip() for method in listed.split(","))


class ServerSpan(Span):
    """The span of an incoming request, which keeps the request's raw facts until somebody wants attributes.

    Attributes:
        method: the method as counted; `original` is how it came.
        scheme, path, query, version, host, agent, client, server: as the server gave them (bytes stay bytes).
        response_status: response status code, 0 while there is none.
        route: the route's template, "" when nothing matched.
        request_size, response_size: bytes of the bodies; -1 when not known.
        error_type: `error.type`, "" when all went well.

    """

    __slots__ = (
        "agent",
        "client",
        "error_type",
        "host",
        "method",
        "original",
        "path",
        "query",
        "request_size",
        "response_size",
        "response_status",
        "route",
        "scheme",
        "server",
        "settled",
        "token",
        "version",
    )
    counts_request: Final = True

    agent: bytes
    client: Sequence[Any] | None
    error_type: str
    host: bytes
    method: str
    original: str
    path: str | bytes
    query: bytes
    request_size: int
    response_size: int
    response_status: int
    route: str
    scheme: str
    server: Sequence[Any] | None
    settled: bool
    token: Token[Context]
    version: str

    @property
    def attributes(self) -> Attributes:
        """All attributes so far."""
        return dict(self.own or {}) if self.settled else {**self.facts(), **(self.own or {})}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Note the exception that leaves the application; the request ends by `Requests.finish`."""
        if error is not None:
            fail(self, error)

    def settle(self) -> Attributes:
        """Return all attributes as one dict that stays."""
        if not self.settled:
            self.own = {**(self.trace.bound or {}), **self.facts(), **(self.own or {})}
            self.settled = True
        return self.own or {}

    def facts(self) -> Attributes:
        """Return the request as attributes of the stable HTTP semantic conventions."""
        facts: Attributes = {
            "http.request.method": self.method,
            "url.scheme": self.scheme,
            "url.path": _text(self.path),
        }
        if self.method == "_OTHER":
            facts["http.request.method_original"] = self.original
        if self.query:
            facts["url.query"] = _text(self.query)
        facts.update(_address(self.host, self.server, self.scheme))
        if self.client:
            facts["client.address"] = facts["network.peer.address"] = self.client[0]
            facts["client.port"] = facts["network.peer.port"] = self.client[1]
        if self.version:
            facts["network.protocol.version"] = self.version
        if self.agent:
            facts["user_agent.original"] = _text(self.agent)
        if self.route:
            facts["http.route"] = self.route
        if self.response_status:
            facts["http.response.status_code"] = self.response_status
        if self.error_type:
            facts["error.type"] = self.error_type
        return facts


def fail(span: ServerSpan, error: BaseException) -> None:
    """Note an exception that left the application; it is not touched, and a cancellation is nobody's error."""
    if isinstance(error, errors.CANCELLATIONS):
        span.set_attribute("insitu.cancelled", value=True)
    elif isinstance(error, Exception):
        span.error_type = errors.type_name(error)
        if span.end_time or not span.trace.recording:
            errors.errors.emit(error, span.trace, handled=False)
        else:
            record = span.record_exception(error)
            span.status_code, span.status_text = Error, f"{record.type}: {record.message}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _address(host: bytes, server: Sequence[Any] | None, scheme: str) -> Attributes:
    """Return server.address and server.port: the Host header as it is, else the socket's."""
    if host:
        name, colon, port = _text(host).rpartition(":")
        if not colon or name.endswith(":") or not port.isascii() or not port.isdigit():
            name, port = (_text(host), "")
        found: Attributes = {"server.address": name.strip("[]")}
        number = int(port[:6]) if port else _DEFAULT_PORTS.get(scheme)
        if number is not None:
            found["server.port"] = number
        return found
    if server:
        return {"server.address": server[0]} | ({"server.port": server[1]} if server[1] is not None else {})
    return {}


class _Series:
    """The three histograms of one label set."""

    __slots__ = ("duration", "request", "response")

    def __init__(self, labels: Mapping[str, Any], instruments: tuple[Instrument, Instrument, Instrument]) -> None:
        key = frozenset(labels.items())
        self.duration, self.request, self.response = (_cell(instrument, key, labels) for instrument in instruments)


def _cell(instrument: Instrument, key: frozenset[Any], labels: Mapping[str, Any]) -> HistogramCell:
    cell: HistogramCell = instrument.cell(key, labels)
    return cell


class Requests:
    """Begins, fails, finishes and counts requests.

    Args:
        tracing: owner of the traces.
        metrics: where `http.server.*` lives.

    """

    def __init__(self, tracing: TracerProvider, metrics: Registry) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self.active: dict[int, ServerSpan] = {}
        self._methods = known_methods()
        self._excluded: re.Pattern[str] | None = None
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._instruments = (
            metrics.instrument(
                "http.server.request.duration",
                "histogram",
                "s",
                "Duration of HTTP server requests.",
                bounds=DURATION_BOUNDS,
            ),
            metrics.instrument(
                "http.server.request.body.size",
                "histogram",
                "By",
                "Size of HTTP server request bodies.",
                bounds=SIZE_BOUNDS,
            ),
            metrics.instrument(
                "http.server.response.body.size",
                "histogram",
                "By",
                "Size of HTTP server response bodies.",
                bounds=SIZE_BOUNDS,
            ),
        )

    def configure(self, exclude: Iterable[str]) -> None:
        """Take routes out of every signal.

        A pattern is a path or a route template; `*` stands for anything, `{name}` for one segment.
        """
        patterns = [re.sub(r"\\{[^/]*\\}", "[^/]+", re.escape(pattern)).replace(r"\*", ".*") for pattern in exclude]
        self._excluded = re.compile("|".join(patterns)) if patterns else None
        self._methods = known_methods()

    @property
    def on(self) -> bool:
        """Whether requests are recorded."""
        return self._tracing.on

    def excluded(self, path: str) -> bool:
        """Whether a path is out of every signal."""
        return self._excluded is not None and self._excluded.fullmatch(path) is not None

    def hide(self) -> Token[Context]:
        """Enter a context in which nothing is recorded: for an excluded request."""
        trace, _ = self._tracing.begin(None, "", SERVER, None)
        trace.recording = trace.sampled = False
        hidden = dict(context.current())
        hidden[context.SPAN_KEY], hidden[context.SUPPRESS_KEY] = silent(trace), True
        return context.attach(OtelContext(hidden))

    def begin(
        self,
        kind: str,
        scheme: str,
        path: str | bytes,
        query: bytes,
        version: str,
        host: bytes,
        agent: bytes,
        client: Sequence[Any] | None,
        server: Sequence[Any] | None,
        above: tuple[int, int, int, str] | None,
        request_size: int,
    ) -> ServerSpan:
        """Begin a request and make its span current.

        Args:
            kind: the method as it came; `WS` for a WebSocket.
            scheme, path, query, version, host, agent, client, server: raw facts; client and server are (address, port).
            above: the remote parent (trace id, span id, flags, tracestate), or None.
            request_size: bytes of the body; -1 when not known.

        """
        tracing = self._tracing
        began = tracing.monotonic()
        method = kind if kind in self._methods or kind == "WS" else "_OTHER"
        if above is None:
            trace, added = tracing.begin(None, method, SERVER, None)
            parent_id, remote = 0, False
        else:
            trace, added = tracing.begin((*above, True), method, SERVER, None)
            parent_id, remote = above[1], True
        span = ServerSpan(
            method if method != "_OTHER" else "HTTP",
            SERVER,
            trace,
            clocks.random_bits(64) or 1,
            parent_id,
            trace.since,
            None,
            OWN,
            True,
            remote,
        )
        span.original = kind
        span.method, span.scheme, span.path, span.query, span.version = method, scheme, path, query, version
        span.host, span.agent, span.client, span.server, span.request_size = host, agent, client, server, request_size
        span.response_status, span.response_size, span.route, span.error_type, span.settled = 0, 0, "", "", False
        trace.weight = len(path) + len(query) + len(agent)
        self.active[span.span_id] = span
        if added:
            span.set_attributes(added)
        if tracing.processors and trace.recording:
            tracing.started(span)
        span.token = context.enter(span)
        if trace.metered:
            tracing.hot(tracing.monotonic() - began)
        return span

    def finish(self, span: ServerSpan, route: str) -> None:
        """End the request: the last byte of the body is out, or the application has returned.

        Only the first call counts.
        """
        if self.active.pop(span.span_id, None) is None:
            return
        tracing = self._tracing
        began = tracing.monotonic()
        trace = span.trace
        span.route = route
        if span.response_status >= _SERVER_ERROR and not span.error_type:
            span.error_type = str(span.response_status)
        if span.error_type and span.status_code == Unset:
            span.status_code = Error
        if route and span.name == span.method:
            span.name = f"{span.method} {route}"
        if trace.recording:
            span.end(began + trace.offset)
        else:
            self._count_only(span, began + trace.offset)
        if trace.metered:
            tracing.hot(tracing.monotonic() - began)

    def _count_only(self, span: ServerSpan, end_time: int) -> None:
        """Ship an unsampled request for its count."""
        trace = span.trace
        span.end_time = end_time
        trace.spans.append(span)
        trace.closed = True
        if self._tracing.on:
            self._tracing.pipeline.put(trace, SPAN_BYTES)

    # --- on the worker ---

    def count(self, trace: LocalTrace) -> None:
        """Fold the request of a trace, if it holds one, into the histograms."""
        span = trace.spans[-1] if trace.spans else None
        if type(span) is not ServerSpan or span.method == "WS":
            return
        key = (span.method, span.scheme, span.route, span.response_status, span.version, span.error_type)
        series = self._series.get(key)
        if series is None:
            series = self._new_series(key)
        seconds = (span.end_time - span.start_time) / 1e9
        sample = Exemplar(seconds, span.end_time, trace.trace_id, span.span_id) if trace.sampled else None
        with self._metrics.lock:
            series.duration.record(seconds, sample)
            if span.request_size >= 0:
                series.request.record(span.request_size)
            series.response.record(span.response_size)

    def _new_series(self, key: tuple[Any, ...]) -> _Series:
        names = (
            "http.request.method",
            "url.scheme",
            "http.route",
            "http.response.status_code",
            "network.protocol.version",
            "error.type",
        )
        made = _Series({name: value for name, value in zip(names, key, strict=True) if value}, self._instruments)
        if made.duration.labels is not OVERFLOW:
            self._series[key] = made
        return made

    def collect(self) -> Iterable[Family]:
        """Return `http.server.active_requests`; the histograms are the registry's."""
        counts: dict[tuple[str, str], int] = {}
        for span in list(self.active.values()):
            if span.method != "WS":
                key = (span.method, span.scheme)
                counts[key] = counts.get(key, 0) + 1
        points = [
            Point({"http.request.method": method, "url.scheme": scheme}, number)
            for (method, scheme), number in counts.items()
        ]
        yield Family(
            "http.server.active_requests", "updown", points, "{request}", "Number of active HTTP server requests."
        )

    def reset(self) -> None:
        """Forget the parent's requests: in a forked child."""
        self.active.clear()
        self._series.clear()
