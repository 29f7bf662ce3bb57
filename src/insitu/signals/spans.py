"""The span.

OpenTelemetry's interface over a slots object that takes plain values as they are and leaves all cleaning to the
worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as ApiSpan

from insitu.core import guard, values
from insitu.core.clock import random_bits
from insitu.core.context import tracestate
from insitu.core.records import Error, LocalTrace, Ok, SpanEvent, SpanLink, SpanRecord
from insitu.signals import errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import MappingProxyType, TracebackType

    from insitu.core.records import Attributes, ErrorRecord, Scope

SCALARS: Final = frozenset((int, float, bool))
SMALL: Final = values.SMALL
PARTIAL_SPANS: Final = 128
PARTIAL_NANOSECONDS: Final = 60_000_000_000
INT64_MIN, INT64_MAX = values.INT64_MIN, values.INT64_MAX
_STATUS_CODES: Final = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
ATTRIBUTES, EVENTS, LINKS = range(3)


class Span(SpanRecord):
    """A span that records.

    Made by `signals.tracing`; methods are OpenTelemetry's, and `set` takes attributes by keyword.
    """

    __slots__ = ("_context", "_token")

    _context: SpanContext | None
    _token: Any

    def __init__(self, name: str, kind: SpanKind, own: Attributes | None, scope: Scope) -> None:
        self.name = name
        self.kind = kind
        self.own = own
        self.scope = scope
        self.end_time = self.status_code = 0
        self.status_text = ""
        self.events = self.links = self.dropped = self._context = self._token = None

    def place(self, trace: LocalTrace, parent_id: int, start_time: int, *, local_root: bool, remote: bool) -> None:
        """Give the span its place in a trace."""
        self.trace = trace
        self.span_id = random_bits(64) or 1
        self.parent_id = parent_id
        self.start_time = start_time
        self.local_root = local_root
        self.parent_remote = remote

    # --- attributes ---

    def set(self, **attributes: Any) -> Self:
        """Set attributes by keyword; returns the span."""
        for key, value in attributes.items():
            self.set_attribute(key, value)
        return self

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute.

        Values that are not str, bytes, bool, int, float or sequences of these are rendered as text; None is left out.
        """
        trace = self.trace
        if self.end_time or not trace.recording or value is None:
            return
        kind = type(value)
        limits = trace.owner.limits
        if (kind is str and len(value) <= limits.small) or (kind is int and INT64_MIN <= value <= INT64_MAX):
            pass
        elif kind is not float and kind is not bool:
            value = values.plain(value, limits.value_length)
            trace.weight += values.weight(value)
        if type(key) is not str or len(key) > SMALL:
            key = values.text(key, SMALL)
        own = self.own
        if own is None:
            own = self.own = {}
        if len(own) >= limits.attributes and key not in own:
            self._drop(ATTRIBUTES)
            return
        own[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""
        guard.call("span.set_attributes", self._set_all, attributes)

    def _set_all(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    # --- events, links, status ---

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event now, or at `timestamp` (wall nanoseconds). Beyond the limit the oldest is dropped."""
        self._event(name, attributes, timestamp, None)

    def _event(
        self, name: str, attributes: Mapping[str, Any] | None, timestamp: int | None, error: ErrorRecord | None
    ) -> None:
        trace = self.trace
        if self.end_time or not trace.recording:
            return
        now = trace.monotonic() + trace.offset
        plain = guard.call("span.add_event", self._plain, attributes, default={}) if attributes is not None else {}
        event = SpanEvent(values.text(name, SMALL), now if timestamp is None else moment(timestamp, now), plain, error)
        trace.weight += 200 + (values.weight(plain) if plain else 0)
        if self.events is None:
            self.events = [event]
            return
        self.events.append(event)
        if len(self.events) > trace.owner.limits.events:
            del self.events[0]
            self._drop(EVENTS)

    def _plain(self, attributes: Mapping[str, Any]) -> Attributes:
        limits = self.trace.owner.limits
        items = list(attributes.items())[: limits.attributes]
        return {
            values.text(key, SMALL): values.plain(value, limits.value_length)
            for key, value in items
            if value is not None
        }

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a link to another span."""
        guard.call("span.add_link", self._link, context, attributes)

    def _link(self, context: SpanContext, attributes: Mapping[str, Any] | None) -> None:
        if self.end_time or not self.trace.recording:
            return
        state = context.trace_state.to_header() if context.trace_state else ""
        flags, plain = int(context.trace_flags), self._plain(attributes or {})
        link = SpanLink(context.trace_id, context.span_id, flags, state, plain, context.is_remote)
        links = self.links
        if links is None:
            links = self.links = []
        if len(links) >= self.trace.owner.limits.links:
            self._drop(LINKS)
            return
        links.append(link)
        self.trace.weight += 200

    def _drop(self, what: int) -> None:
        if self.dropped is None:
            self.dropped = [0, 0, 0]
        self.dropped[what] += 1

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if not self.end_time:
            self.name = values.text(name, SMALL)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status.

        OK is final, and UNSET never replaces another (OpenTelemetry tracing specification, Set Status).
        """
        if issubclass(type(status), Status):  # isinstance would ask the object itself, which may raise
            code, text = status.status_code, status.description  # type: ignore[union-attr]
        else:
            code, text = status, description
        # The type checker trusts the annotation; callers do not always.
        if type(code) is not StatusCode or self.end_time or self.status_code == Ok or code is StatusCode.UNSET:
            return
        self.status_code = Ok if code is StatusCode.OK else Error
        self.status_text = values.text(text, errors.MESSAGE) if text is not None and code is StatusCode.ERROR else ""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> ErrorRecord:
        """Add an `exception` event and an error record; the text is formatted later, on the worker."""
        del escaped  # deprecated by the semantic conventions: an exception's escaping shows in the status
        trace = self.trace
        record = errors.describe(exception)
        if self.end_time or not trace.recording:
            return record
        record.timestamp = trace.monotonic() + trace.offset
        record.trace_id, record.span_id, record.attributes = trace.trace_id, self.span_id, trace.bound
        weight = errors.weight(record)
        if trace.closed:
            trace.owner.put(record, weight)  # the trace has left: the error travels alone
        elif trace.errors is None:
            trace.errors = {id(exception): record}
        elif len(trace.errors) < PARTIAL_SPANS:
            trace.errors[id(exception)] = record
        trace.weight += weight
        self._event("exception", attributes, timestamp, record)
        return record

    def fail(self, error: BaseException) -> None:
        """Mark the span with the exception that it ends with: an error, or a cancellation, which is nobody's error."""
        if errors.is_nobodys(error):
            self.set_attribute("insitu.cancelled", value=True)
        elif issubclass(type(error), Exception):
            record = self.record_exception(error)
            if self.status_code != Ok:  # as Set Status: the last one counts, and OK is final
                self.status_code = Error
                self.status_text = f"{record.type}: {record.message}"
                self.set_attribute("error.type", record.type)

    # --- end ---

    def end(self, end_time: int | None = None) -> None:
        """End the span, now or at `end_time` (wall nanoseconds). Only the first call counts."""
        now = self.trace.monotonic()
        self.close(now, 0 if end_time is None else moment(end_time, now + self.trace.offset))

    def close(self, now: int, end_time: int = 0) -> None:
        """End the span at `now` (monotonic nanoseconds), or at a given `end_time`, and ship what is complete."""
        if self.end_time:
            return
        trace = self.trace
        now += trace.offset
        if not end_time:
            end_time = now
        # A start given by the caller may lie ahead of our clock.
        self.end_time = end_time if end_time > self.start_time else self.start_time
        owner = trace.owner
        if owner.processors and trace.recording:
            owner.on_end(self)
        if trace.closed:
            owner.ship(trace.alone(self))
            return
        trace.spans.append(self)
        if self.local_root:
            trace.closed = True
            owner.ship(trace)
        elif len(trace.spans) >= PARTIAL_SPANS or now - trace.since > PARTIAL_NANOSECONDS:
            trace.since = now
            owner.ship(trace.split())

    # --- what OpenTelemetry's API and processors read ---

    def is_recording(self) -> bool:
        """Whether the span is open and takes attributes."""
        return self.trace.recording and not self.end_time

    def get_span_context(self) -> SpanContext:
        """Return the ids, as OpenTelemetry's object; made when first asked for."""
        if self._context is None:
            self._context = ids_of(self.trace, self.span_id)
        return self._context

    @property
    def context(self) -> SpanContext:
        """The span's ids."""
        return self.get_span_context()

    @property
    def parent(self) -> SpanContext | None:
        """The parent's ids, or None."""
        if not self.parent_id:
            return None
        return ids_of(self.trace, self.parent_id, is_remote=self.parent_remote)

    @property
    def attributes(self) -> MappingProxyType[str, Any] | Attributes:
        """All attributes so far."""
        return dict(self.own or {})

    @property
    def status(self) -> Status:
        """The status, as OpenTelemetry's object."""
        return Status(_STATUS_CODES[self.status_code], self.status_text or None)

    @property
    def resource(self) -> Any:
        """The resource, as the SDK's object."""
        return self.trace.owner.sdk_resource()

    def __enter__(self) -> Self:
        """Return the span; OpenTelemetry's `start_span` does not make it current."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record the exception, if any, and end the span."""
        if error is not None:
            self.fail(error)
        self.end()


class SilentSpan:
    """Stands for all spans of a trace that is not sampled: it carries the ids on and records nothing."""

    __slots__ = ("_context", "span_id", "trace")

    def __init__(self, trace: LocalTrace | None, context: SpanContext | None, span_id: int) -> None:
        self.trace = trace
        self.span_id = span_id
        self._context = context

    def set(self, **attributes: Any) -> Self:
        """Do nothing."""
        del attributes
        return self

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    set_attribute = set_attributes = add_event = add_link = update_name = set_status = record_exception = fail = end = (
        close
    ) = _nothing

    def is_recording(self) -> bool:
        """Return False."""
        return False

    def get_span_context(self) -> SpanContext:
        """Return the ids."""
        if self._context is None and self.trace is not None:
            self._context = ids_of(self.trace, self.span_id)
        return self._context or INVALID_SPAN_CONTEXT

    def __enter__(self) -> Self:
        """Return the span."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""


class Absorbed(SilentSpan):
    """Stands for our own server span where another instrumentation would make a second one of the same request."""

    __slots__ = ("stands_for",)
    counts_request: Final = True

    def __init__(self, span: Span) -> None:
        super().__init__(span.trace, span.get_span_context(), span.span_id)
        self.stands_for = span


# Virtual subclasses: deriving from the API's ABC would give each span a __dict__ and each isinstance of ours an
# ABC's price.
ApiSpan.register(Span)
ApiSpan.register(SilentSpan)


def ids_of(trace: LocalTrace, span_id: int, *, is_remote: bool = False) -> SpanContext:
    """Return OpenTelemetry's object for a span of a trace."""
    flags, state = TraceFlags(trace.flags), tracestate(trace.state)
    return SpanContext(trace.trace_id, span_id, is_remote=is_remote, trace_flags=flags, trace_state=state)


def moment(given: object, now: int) -> int:
    """Return a timestamp given by a caller, or `now` when it is none (negative, not a number, beyond 64 bits)."""
    value = given if type(given) is int else guard.call("span.time", int, given, default=0)
    return value if 0 < value <= INT64_MAX else now


def link_of(link: Link) -> tuple[SpanContext, Mapping[str, Any] | None]:
    """Return what `add_link` takes."""
    return link.context, link.attributes
