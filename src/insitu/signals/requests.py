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
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context as OtelContext
from opentelemetry.trace import SpanKind

from insitu.core import clock as clocks
from insitu.core import context
from insitu.core.records import OVERFLOW, SERIES, Error, Family, Point, Unset
from insitu.signals import errors
from insitu.signals.metrics import DURATION_BOUNDS, HistogramCell
from insitu.signals.spans import Span
from insitu.signals.tracing import OWN, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator

    from insitu.core.context import Parent
    from insitu.core.records import Attributes, LocalTrace
    from insitu.signals.intervals import Intervals
    from insitu.signals.metrics import Instrument, Registry
    from insitu.signals.tracing import TracerProvider

SERVER: Final = SpanKind.SERVER
SIZE_BOUNDS: Final = (0.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0)
"""Bytes; the conventions advise no bounds for body sizes."""
_DEFAULT_METHODS: Final = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
_SERVER_ERROR: Final = 500
_FOLDED_AT_ONCE: Final = 64
"""Unsampled requests that wait to be counted: 64 in a row cost half of what 64 cost between others' code."""
_OTHER: Final = "_OTHER"
"""Stands for methods that are not known; their spans are named `HTTP` (HTTP conventions, "Name")."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def known_methods() -> frozenset[str]:
    """Return the methods kept by name.

    Others are `_OTHER` (HTTP conventions, OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS).
    """
    listed = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS") or _DEFAULT_METHODS
    return frozenset(method.strip() for method in listed.split(","))


Raw = tuple[
    str,
    "str | bytes",
    "str | bytes",
    str,
    "str | bytes",
    "str | bytes",
    "Sequence[Any] | None",
    "Sequence[Any] | None",
]
"""(scheme, path, query, version, host, agent, client, server) as they came; the last two are (address, port)."""


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
        "error_type",
        "method",
        "original",
        "raw",
        "request_size",
        "response_size",
        "response_status",
        "route",
        "settled",
    )
    counts_request: Final = True

    error_type: str
    method: str
    original: str
    raw: Raw
    request_size: int
    response_size: int
    response_status: int
    route: str
    settled: bool

    def __init__(self, trace: LocalTrace, method: str, original: str, raw: Raw, size: int) -> None:
        # `Span.__init__` and `place`, written out: a call costs more than what it does.
        self.name = method if method != _OTHER else "HTTP"
        self.kind = SERVER
        self.scope = OWN
        self.trace = trace
        self.span_id = clocks.random_bits(64) or 1
        self.start_time = trace.since
        self.local_root = True
        self.method = method
        self.original = original
        self.raw = raw
        self.request_size = size
        self.end_time = self.status_code = self.response_status = self.response_size = self.parent_id = 0
        self.parent_remote = self.settled = False
        self.route = self.error_type = self.status_text = ""
        self.own = self.events = self.links = self.dropped = self._context = self._token = None

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

    def outcome(self) -> str:
        """Return the status code, or the type of the error that there is none for."""
        return str(self.response_status or self.error_type)

    def facts(self) -> Attributes:
        """Return the request as attributes of the stable HTTP semantic conventions."""
        scheme, path, query, version, host, agent, client, server = self.raw
        facts: Attributes = {"http.request.method": self.method, "url.scheme": scheme, "url.path": _text(path)}
        if self.method == _OTHER:
            facts["http.request.method_original"] = self.original
        if query:
            facts["url.query"] = _text(query)
        facts.update(_address(host, server, scheme))
        if client:
            facts["client.address"] = facts["network.peer.address"] = client[0]
            if (port := _port(client[1])) is not None:
                facts["client.port"] = facts["network.peer.port"] = port
        if version:
            facts["network.protocol.version"] = version
        if agent:
            facts["user_agent.original"] = _text(agent)
        if self.route:
            facts["http.route"] = self.route
        if self.response_status:
            facts["http.response.status_code"] = self.response_status
        if self.error_type:
            facts["error.type"] = self.error_type
        return facts


def fail(span: ServerSpan, error: BaseException) -> None:
    """Note an exception that left the application; it is not touched, and a cancellation is nobody's error."""
    if errors.is_nobodys(error):
        span.set_attribute("insitu.cancelled", value=True)
    elif not isinstance(error, Exception):
        return
    elif span.end_time:
        # The response is out and its record has left; what fails behind it is an error of its own.
        errors.errors.emit(error, span.trace, handled=False)
    else:
        span.error_type = errors.type_name(error)
        if not span.trace.recording:
            errors.errors.emit(error, span.trace, handled=False)
            return
        record = span.record_exception(error)
        span.status_code, span.status_text = Error, f"{record.type}: {record.message}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _address(host: str | bytes, server: Sequence[Any] | None, scheme: str) -> Attributes:
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
        number = _port(server[1])
        return {"server.address": server[0]} | ({"server.port": number} if number is not None else {})
    return {}


def _port(given: object) -> int | None:
    """Return a port as a number; WSGI has it as a text."""
    if type(given) is str:
        return int(given) if given.isdecimal() else None
    return given if type(given) is int else None


class _Series:
    """The histograms of one label set; that of request bodies is made when one of known size comes."""

    __slots__ = ("_instrument", "_key", "duration", "labels", "request", "response")

    def __init__(self, labels: Mapping[str, Any], instruments: tuple[Instrument, Instrument, Instrument]) -> None:
        duration, self._instrument, response = instruments
        self._key = frozenset(labels.items())
        self.labels = labels
        self.duration: HistogramCell = duration.cell(self._key, labels)
        self.response: HistogramCell = response.cell(self._key, labels)
        self.request: HistogramCell | None = None

    def record_request(self, size: int) -> None:
        """Add the size of a request's body."""
        if self.request is None:
            self.request = self._instrument.cell(self._key, self.labels)
        self.request.record(size)


class Requests:
    """Begins, fails, finishes and counts requests.

    Args:
        tracing: owner of the traces.
        metrics: where `http.server.*` lives.

    """

    def __init__(self, tracing: TracerProvider, metrics: Registry) -> None:
        self.tracing = tracing
        self._metrics = metrics
        self.active: dict[int, ServerSpan] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._methods = known_methods()
        self.excluded: Callable[[str], object] | None = None
        """Tells whether a path is out of every signal; None where none is."""
        self.exemplars_are_kept = False
        self.intervals: Intervals | None = None
        self.propagator: TextMapPropagator | None = None
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._unsampled: deque[ServerSpan] = deque()
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

    def configure(self, exclude: Iterable[str], propagator: TextMapPropagator | None) -> None:
        """Take routes out of every signal, and choose how a remote parent is read.

        Args:
            exclude: paths or route templates; `*` stands for anything, `{name}` for one segment.
            propagator: None for W3C trace context and baggage, which are read without it.

        """
        patterns = [re.sub(r"\\{[^/]*\\}", "[^/]+", re.escape(pattern)).replace(r"\*", ".*") for pattern in exclude]
        self.excluded = re.compile("|".join(patterns)).fullmatch if patterns else None
        self.propagator = propagator
        self._methods = known_methods()

    def arriving(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Parent | None, Token[Context] | None]:
        """Return the remote parent that raw headers name, and the token of the context that came with it."""
        return context.arriving(headers) if self.propagator is None else context.arriving_by(self.propagator, headers)

    def hide(self) -> Token[Context]:
        """Enter a context in which nothing is recorded: for an excluded request."""
        trace, _ = self.tracing.begin(None, "", SERVER, None)
        trace.recording = trace.sampled = False
        hidden = dict(context.current())
        hidden[context.SPAN_KEY], hidden[context.SUPPRESS_KEY] = silent(trace), True
        return context.attach(OtelContext(hidden))

    def begin(self, kind: str, raw: Raw, above: Parent | None, request_size: int) -> ServerSpan:
        """Begin a request. The adapter makes its span current (`context.enter`).

        Args:
            kind: the method as it came; `WS` for a WebSocket.
            raw: the rest as the server gave it (see `Raw`).
            above: the remote parent, or None.
            request_size: bytes of the body; -1 when not known.

        """
        tracing = self.tracing
        method = kind if kind in self._methods or kind == "WS" else _OTHER
        trace, added = tracing.begin(None if above is None else (*above, True), method, SERVER, None)
        span = ServerSpan(trace, method, kind, raw, request_size)
        if above is not None:
            span.parent_id, span.parent_remote = above[1], True
        trace.weight = len(raw[1]) + len(raw[2]) + len(raw[5])
        self.active[span.span_id] = span
        if added:
            span.set_attributes(added)
        if tracing.processors and trace.recording:
            tracing.started(span)
        return span

    def finish(self, span: ServerSpan, route: str) -> None:
        """End the request: the last byte of the body is out, or the application has returned.

        Only the first call counts.
        """
        if self.active.pop(span.span_id, None) is None:
            return
        tracing = self.tracing
        trace = span.trace
        began = tracing.monotonic()
        if route:
            span.route = route
            name = span.name
            if name == span.method or (name == "HTTP" and span.method == _OTHER):  # nobody has given it another one
                span.name = f"{name} {route}"
        if span.response_status >= _SERVER_ERROR and not span.error_type:
            span.error_type = str(span.response_status)
        if span.error_type and span.status_code == Unset:
            span.status_code = Error
        span.end_time = began + trace.offset
        if tracing.processors and trace.recording:
            tracing.on_end(span)
        trace.closed = True
        if not trace.recording:
            self._count_soon(span)
        else:
            trace.spans.append(span)
            if tracing.on:
                tracing.put(trace, trace.size())

    def _count_soon(self, span: ServerSpan) -> None:
        """Count an unsampled request: nothing of it goes any further, no queue, no worker."""
        self._unsampled.append(span)
        # Not in a request that is metered: what 64 others cost would count as its own, sixteen times.
        if len(self._unsampled) >= _FOLDED_AT_ONCE and not span.trace.metered:
            began = self.tracing.monotonic()
            self.fold()
            self.tracing.pipeline.meter.whole(self.tracing.monotonic() - began)

    def fold(self) -> None:
        """Count the unsampled requests that still wait; whoever reads the histograms calls it first."""
        waiting = self._unsampled
        while waiting:
            try:
                span = waiting.popleft()
            except IndexError:  # another thread folds too, and had the last one
                return
            self._count(span)

    # --- on the worker ---

    def count(self, trace: LocalTrace) -> bool:
        """Fold the request of a trace into the histograms; False when it holds none."""
        span = trace.spans[-1] if trace.spans else None
        if type(span) is not ServerSpan:
            return False
        self._count(span)
        return True

    def _count(self, span: ServerSpan) -> None:
        if span.method == "WS":
            return
        trace = span.trace
        raw = span.raw
        key = (span.method, raw[0], span.route, span.response_status, raw[3], span.error_type)
        series = self._series.get(key)
        if series is None:
            series = self._new_series(key)
        seconds = (span.end_time - span.start_time) / 1e9
        found = trace.sampled and (trace.kept or not self.exemplars_are_kept)  # where it leads there is a trace
        sample = (seconds, span.end_time, trace.trace_id, span.span_id) if found else None
        with self._metrics.lock:
            series.duration.record(seconds, sample)
            if span.request_size >= 0:
                series.record_request(span.request_size)
            series.response.record(span.response_size)
        if self.intervals is not None:
            self.intervals.count(span.name, seconds, span.end_time, failed=span.status_code == Error)

    def _new_series(self, key: tuple[Any, ...]) -> _Series:
        names = (
            "http.request.method",
            "url.scheme",
            "http.route",
            "http.response.status_code",
            "network.protocol.version",
            "error.type",
        )
        self._seen.setdefault((key[0], key[1]), 0)
        made = _Series({name: value for name, value in zip(names, key, strict=True) if value}, self._instruments)
        if made.duration.labels is not OVERFLOW:
            self._series[key] = made
        return made

    def collect(self) -> Iterable[Family]:
        """Return `http.server.active_requests`; the histograms are the registry's."""
        counts = self._seen
        for key in counts:
            counts[key] = 0
        for span in list(self.active.values()):
            key = (span.method, span.raw[0])
            if span.method != "WS" and (key in counts or len(counts) < SERIES):
                counts[key] = counts.get(key, 0) + 1
        points = [
            Point({"http.request.method": method, "url.scheme": scheme}, number)
            for (method, scheme), number in counts.items()
        ]
        yield Family(
            "http.server.active_requests",
            "updown",
            points,
            "{request}",
            "Number of active HTTP server requests.",
            merge="sum",
        )

    def reset(self) -> None:
        """Forget the parent's requests: in a forked child."""
        self.active.clear()
        self._unsampled.clear()
        self._seen.clear()
        self._series.clear()
        if self.intervals is not None:
            self.intervals.reset()
