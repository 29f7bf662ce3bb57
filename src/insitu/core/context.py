"""Where we are: the current span, the bound fields, and what crosses to other processes (W3C trace context, baggage).

OpenTelemetry's context is the only home of the current span, so every library that speaks its API agrees with us.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_plus

from opentelemetry import context as otel_context
from opentelemetry.baggage import get_all, set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import (
    _RUNTIME_CONTEXT,
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
)
from opentelemetry.propagators import composite, textmap
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, get_current_span
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Token

SPAN_KEY: Final = _SPAN_KEY
SUPPRESS_KEY: Final = _SUPPRESS_INSTRUMENTATION_KEY
SUPPRESS_HTTP_KEY: Final = _SUPPRESS_HTTP_INSTRUMENTATION_KEY
"""Set by an instrumented HTTP client while it works: what the clients below it send is the same request."""
# Reading by key costs 0.10 µs, get_current_span() 0.42: it asks an ABC. The variable behind OpenTelemetry's default
# context is used directly, four Python calls less a span; OTEL_PYTHON_CONTEXT may name another implementation.
# A test pins these private names.
_variable: Any = getattr(_RUNTIME_CONTEXT, "_current_context", None)
_direct: Final = isinstance(_variable, ContextVar)
current: Callable[[], Context] = _variable.get if _direct else _RUNTIME_CONTEXT.get_current
attach: Callable[[Context], Token[Context]] = _variable.set if _direct else _RUNTIME_CONTEXT.attach
restore: Callable[[Token[Context]], None] = _variable.reset if _direct else _RUNTIME_CONTEXT.detach

fields: ContextVar[Mapping[str, Any] | None] = ContextVar("insitu_fields", default=None)
"""Fields bound outside of any trace; inside one they live on the trace itself, which threads and tasks share."""


def enter(span: object) -> Token[Context]:
    """Make `span` current and return what `leave` needs."""
    # A plain dict, which is what Context is but for an item assignment that raises: making one takes a third of the
    # time, and the API reads contexts by `get` and `copy` alone.
    context: Any = current().copy()
    context[SPAN_KEY] = span
    return attach(context)


def leave(token: Token[Context]) -> None:
    """Make the span current that was so before `enter`.

    In another context than the one it was entered in (an async generator closed by the event loop's finaliser) there
    is nothing to restore, and OpenTelemetry's own `detach` would log an error.
    """
    try:
        restore(token)
    except (ValueError, RuntimeError):
        return


def suppress() -> Token[Context]:
    """Mark the calling thread's context as ours, until `leave` gets what this returns.

    What it does (an export's HTTP request, its log lines) is not the application's.
    """
    return attach(otel_context.set_value(SUPPRESS_KEY, value=True))


# --- W3C trace context, level 2 ---

_TRACEPARENT: Final = re.compile(
    r"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\x00-\x1f\x7f]*)?[ \t]*"
)
_MEMBER_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_MEMBER_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
MEMBERS: Final = 32
STATE_LENGTH: Final = 8_192


def parse_traceparent(header: str) -> tuple[int, int, int] | None:
    """Return (trace id, parent id, flags), or None where the header is not valid.

    Versions above 00 are read by the fields of version 00, and may carry more behind them (W3C Trace Context, 3.3).
    """
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace, parent, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    trace_id, parent_id = int(trace, 16), int(parent, 16)
    if not trace_id or not parent_id:
        return None
    return trace_id, parent_id, int(flags, 16) & (3 if version == "00" else 1)


def parse_tracestate(headers: Iterable[str]) -> str:
    """Return one valid tracestate header, or "" where the given ones break the grammar (then the whole is discarded).

    Several headers are joined in order; empty members are allowed and left out; of a key that stands twice the first
    is kept.
    """
    members: dict[str, str] = {}
    for header in headers:
        if len(header) > STATE_LENGTH:
            return ""
        for raw in header.split(","):
            member = raw.strip(" \t")
            if not member:
                continue
            key, separator, value = member.partition("=")
            if not separator or not _MEMBER_KEY.fullmatch(key) or not _MEMBER_VALUE.fullmatch(value):
                return ""
            members.setdefault(key, value)
    if len(members) > MEMBERS:
        return ""
    return ",".join([f"{key}={value}" for key, value in members.items()])


def format_traceparent(trace_id: int, span_id: int, flags: int) -> str:
    """Return the header of version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def tracestate(state: str) -> TraceState:
    """Return OpenTelemetry's object for a header that `parse_tracestate` made."""
    made = TraceState()
    # Its constructor would check once more, by level 1, and log a warning for each key that begins with a digit.
    for member in filter(None, state.split(",")):
        key, _, value = member.partition("=")
        made._dict[key] = value
    return made


class TraceContextPropagator(TraceContextTextMapPropagator):
    """traceparent and tracestate in and out.

    The reading is ours, because it follows the whole of the recommendation.
    """

    def extract(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        getter: textmap.Getter[textmap.CarrierT] = textmap.default_getter,
    ) -> Context:
        """Return `context` with the remote parent, or as it is when there is no valid one."""
        context = Context() if context is None else context
        return guard.call("propagator.extract", self._extract, carrier, context, getter, default=context)

    def _extract(
        self, carrier: textmap.CarrierT, context: Context, getter: textmap.Getter[textmap.CarrierT]
    ) -> Context:
        headers = getter.get(carrier, "traceparent")
        if not headers or len(headers) != 1:
            return context
        parent = parse_traceparent(headers[0])
        if parent is None:
            return context
        state = parse_tracestate(getter.get(carrier, "tracestate") or ())
        span = NonRecordingSpan(
            SpanContext(
                parent[0], parent[1], is_remote=True, trace_flags=TraceFlags(parent[2]), trace_state=tracestate(state)
            )
        )
        return otel_context.set_value(SPAN_KEY, span, context)

    def inject(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        setter: textmap.Setter[textmap.CarrierT] = textmap.default_setter,
    ) -> None:
        """Write the current span's headers into `carrier`."""
        span: Any = (current() if context is None else context).get(SPAN_KEY)
        trace = getattr(span, "trace", None)
        if trace is not None and span.span_id:  # ours: OpenTelemetry's own way makes two objects first, 1.6 µs
            setter.set(carrier, "traceparent", format_traceparent(trace.trace_id, span.span_id, trace.flags))
            if trace.state:
                setter.set(carrier, "tracestate", trace.state)
            return
        ids = get_current_span(context).get_span_context()
        if ids.is_valid:
            setter.set(carrier, "traceparent", format_traceparent(ids.trace_id, ids.span_id, ids.trace_flags))
            if ids.trace_state:
                setter.set(carrier, "tracestate", ids.trace_state.to_header())


# --- W3C baggage ---

BAGGAGE_LENGTH: Final = 8_192
BAGGAGE_MEMBERS: Final = 180
_BAGGAGE_KEY: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")


def parse_baggage(headers: Iterable[str]) -> dict[str, str]:
    """Return the members of baggage headers within the recommendation's limits; what does not fit or parse is left out.

    Properties behind a `;` are metadata without a meaning of their own and are left out too.
    """
    members: dict[str, str] = {}
    room = BAGGAGE_LENGTH + 1  # each member is counted with a comma, and the last has none
    for header in headers:
        for member in header[: BAGGAGE_LENGTH + 1].split(","):
            room -= len(member) + 1
            if room < 0 or len(members) >= BAGGAGE_MEMBERS:
                _warn_of_a_cut()
                return members
            key, separator, value = member.partition(";")[0].partition("=")
            key = key.strip()
            if separator and _BAGGAGE_KEY.fullmatch(key):
                # OpenTelemetry for Python writes a space as "+".
                members[key] = unquote_plus(value.strip(), errors="replace")
    return members


def format_baggage(members: Mapping[str, object]) -> str:
    """Return the header for `members`.

    Values percent-encoded (so no CR or LF can pass), keys that are no tokens left out.
    """
    written: list[str] = []
    room = BAGGAGE_LENGTH + 1
    for key, value in members.items():
        if type(key) is not str or not _BAGGAGE_KEY.fullmatch(key):
            continue
        member = f"{key}={quote(guard.render(value), safe='', errors='replace')}"
        room -= len(member) + 1
        if room < 0 or len(written) >= BAGGAGE_MEMBERS:
            _warn_of_a_cut()
            break
        written.append(member)
    return ",".join(written)


def _warn_of_a_cut() -> None:
    guard.warn("baggage", "insitu: baggage over %d bytes or %d members was cut", BAGGAGE_LENGTH, BAGGAGE_MEMBERS)


class BaggagePropagator(W3CBaggagePropagator):
    """Baggage in and out.

    Trimmed to the recommendation's limits instead of dropped whole with a log line of its full length.
    """

    def extract(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        getter: textmap.Getter[textmap.CarrierT] = textmap.default_getter,
    ) -> Context:
        """Return `context` with the members of the carrier's baggage."""
        context = Context() if context is None else context
        return guard.call("propagator.extract", self._extract, carrier, context, getter, default=context)

    def _extract(
        self, carrier: textmap.CarrierT, context: Context, getter: textmap.Getter[textmap.CarrierT]
    ) -> Context:
        for key, value in parse_baggage(getter.get(carrier, "baggage") or ()).items():
            context = set_baggage(key, value, context)
        return context

    def inject(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        setter: textmap.Setter[textmap.CarrierT] = textmap.default_setter,
    ) -> None:
        """Write the current baggage into `carrier`."""
        members = get_all(context)
        if members and (header := format_baggage(members)):
            setter.set(carrier, "baggage", header)


# --- the global propagator ---

_OWN: Final[dict[str, Callable[[], textmap.TextMapPropagator]]] = {
    "tracecontext": TraceContextPropagator,
    "baggage": BaggagePropagator,
}


def propagator(
    names: Iterable[str], load: Callable[[str], textmap.TextMapPropagator | None]
) -> textmap.TextMapPropagator:
    """Return the propagator for OTEL_PROPAGATORS' names: ours for the W3C formats, `load(name)` for all others."""
    chosen: list[textmap.TextMapPropagator] = []
    for name in names:
        made = _OWN[name]() if name in _OWN else load(name)
        if made is not None:
            chosen.append(made)
    return composite.CompositePropagator(chosen)


Parent = tuple[int, int, int, str]
"""(trace id, span id, flags, tracestate) of a span in another process."""


def arriving(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Parent | None, Token[Context] | None]:
    """Read W3C trace context and baggage from raw headers.

    Returns:
        The remote parent (more than one traceparent is none at all), and the token of the baggage's context, which is
        attached; None for what there is not.

    """
    found: dict[bytes, list[str]] = {b"traceparent": [], b"tracestate": [], b"baggage": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1"))
    parents, states, baggage = found.values()
    ids = parse_traceparent(parents[0]) if len(parents) == 1 else None
    return (*ids, parse_tracestate(states)) if ids is not None else None, _with_baggage(baggage)


def _with_baggage(headers: list[str]) -> Token[Context] | None:
    members = parse_baggage(headers) if headers else None
    if not members:
        return None
    context = current()
    for key, value in members.items():
        context = set_baggage(key, value, context)
    return attach(context)


def arriving_by(
    propagator: textmap.TextMapPropagator, headers: Iterable[tuple[bytes, bytes]]
) -> tuple[Parent | None, Token[Context] | None]:
    """Do what `arriving` does by another propagator than the default pair: OTEL_PROPAGATORS named it."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        carrier.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    context = guard.call("propagator.extract", propagator.extract, carrier, Context(), default=Context())
    ids = get_current_span(context).get_span_context()
    above = (ids.trace_id, ids.span_id, int(ids.trace_flags), ids.trace_state.to_header()) if ids.is_valid else None
    rest = {key: value for key, value in context.items() if key != SPAN_KEY}
    return above, attach(Context({**current(), **rest})) if rest else None


# --- bound fields ---

CONVENTIONAL: Final = {"user": "user.id", "tenant": "tenant.id", "session": "session.id", "request": "request.id"}
"""Short names of `bind` and the attributes that they become."""
BOUND: Final = 32


class Bound:
    """What `bind` returns: leaving it as a context manager takes the fields back."""

    __slots__ = ("_before", "_trace")

    def __init__(self, trace: Any, before: Mapping[str, Any] | None) -> None:
        self._trace = trace
        self._before = before

    def __enter__(self) -> None:
        """Keep the fields for the block."""

    def __exit__(self, *raised: object) -> None:
        """Restore what was bound before."""
        if self._trace is not None:
            self._trace.bound = self._before
        else:
            fields.set(self._before)


def bind(given: Mapping[str, Any]) -> Bound:
    """Bind plain fields to the current trace, or to the current context outside of any.

    A trace's fields are shared by its threads and tasks, so what a dependency or a sync endpoint binds stands on the
    request's span too.
    """
    trace = getattr(current().get(SPAN_KEY), "trace", None)
    before: Mapping[str, Any] | None = trace.bound if trace is not None else fields.get()
    merged = {**(before or {}), **given}
    if len(merged) > BOUND:
        guard.warn("bind", "insitu: more than %d bound fields; the newest are left out", BOUND)
        return Bound(trace, before)
    if trace is not None:
        trace.bound = merged
    else:
        fields.set(merged)
    return Bound(trace, before)
