"""The facts that travel from the application's threads to the worker, and from there to the store and the exporters.

A record never holds a traceback, a frame, a request or any other object of the application: values are plain (see
    `core.values`), and an exception is kept as its code objects and line numbers, to be formatted later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from opentelemetry.trace import SpanKind

from insitu.core.context import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    from insitu.core.histogram import Histogram

Attributes = dict[str, Any]
Signal = Literal["traces", "logs", "metrics"]
Unset, Ok, Error = range(3)
"""Span status codes, numbered as in OpenTelemetry."""

TRACE_BYTES: Final = 300
METERED: Final = 16
"""One trace of this many is timed: the two extra clock reads are then 6 ns a request."""
_METER_MASK: Final = METERED - 1

SPAN_BYTES: Final = 600
LOG_BYTES: Final = 500
ERROR_BYTES: Final = 1_500
"""What a record weighs in the queue before its long strings are added: measured with tracemalloc, rounded up."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who made a span, a metric or a log record: OpenTelemetry's instrumentation scope."""

    name: str
    version: str = ""
    schema_url: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()


UNDECIDED: Final = "undecided"
"""Stands in `kept` of a part of a trace whose root is still open: the trace's last part decides."""


class LocalTrace:
    """The part of one trace that happens in this process below one local root.

    Its spans share this object, and it travels as one record when the local root ends; a span that ends later travels
    in a trace object of its own.

    Attributes:
        trace_id: 128-bit id.
        sampled: whether exporters get it.
        recording: whether its spans take attributes and events; False where the sampler dropped the trace, and then
            only its requests are counted.
        state: the W3C tracestate header, "" where there is none.
        offset: nanoseconds to add to the monotonic clock for wall time, fixed when the local root starts, so that a
            clock that
            is set back inside a span cannot make a duration negative.
        spans: ended spans, in the order of their end.
        errors: exceptions recorded inside the trace, by the identity of the exception: one that passes through three
            spans is one error.
        bound: fields bound for every signal (`user.id`, `tenant.id`, ...), or None.
        weight: bytes of long strings held, beyond SPAN_BYTES a span.
        closed: whether the local root has ended.
        since: wall nanoseconds of the start, or of the last partial record.
        metered: whether the budget's meter times this trace.
        flags: W3C trace flags, as an integer.
        held: bytes that the queue counts for it.
        kept: why the local store keeps it (`analysis.keeping`), "" when it does not; decided on the worker.

    """

    __slots__ = (
        "bound",
        "closed",
        "errors",
        "flags",
        "held",
        "kept",
        "metered",
        "monotonic",
        "offset",
        "owner",
        "recording",
        "sampled",
        "since",
        "spans",
        "state",
        "trace_id",
        "weight",
    )

    held: int

    def __init__(self, owner: Any, trace_id: int, flags: int, state: str, wall: int, monotonic: int) -> None:
        self.owner = owner
        self.trace_id = trace_id
        self.flags = flags
        self.sampled = self.recording = flags & 1 == 1
        self.state = state
        self.offset = wall - monotonic
        self.monotonic: Callable[[], int] = owner.monotonic
        self.spans: list[SpanRecord] = []
        self.errors: dict[int, ErrorRecord] | None = None
        self.bound: Mapping[str, Any] | None = fields.get()
        self.weight = 0
        self.since = wall
        self.closed = False
        self.kept = ""
        self.metered = trace_id & _METER_MASK == 0

    def alone(self, span: SpanRecord) -> LocalTrace:
        """Return a record for a span that ended after its local root."""
        late = LocalTrace(self.owner, self.trace_id, self.flags, self.state, self.offset, 0)
        late.sampled, late.recording, late.bound, late.closed = self.sampled, self.recording, self.bound, True
        late.spans.append(span)
        return late

    def split(self) -> LocalTrace:
        """Move what has ended so far into a record of its own and return that."""
        part = LocalTrace(self.owner, self.trace_id, self.flags, self.state, self.offset, 0)
        part.sampled, part.recording, part.bound, part.closed = self.sampled, self.recording, self.bound, True
        part.spans, part.errors, part.weight = self.spans, self.errors, self.weight
        self.spans, self.errors, self.weight = [], None, 0
        return part

    def size(self) -> int:
        """Return about how many bytes this record holds."""
        errors = ERROR_BYTES * len(self.errors) if self.errors else 0
        return TRACE_BYTES + SPAN_BYTES * len(self.spans) + self.weight + errors


class SpanEvent:
    """Something that happened at one moment of a span; an exception's text is formatted only when somebody asks."""

    __slots__ = ("attributes", "error", "name", "timestamp")

    def __init__(self, name: str, timestamp: int, attributes: Attributes, error: ErrorRecord | None = None) -> None:
        self.name = name
        self.timestamp = timestamp
        self.attributes = attributes
        self.error = error


class SpanLink(NamedTuple):
    """A reference to a span of this or of another trace."""

    trace_id: int
    span_id: int
    flags: int
    state: str
    attributes: Attributes
    remote: bool = False


class SpanRecord:
    """One timed operation. `signals.tracing.Span` adds the behaviour.

    Attributes:
        span_id, parent_id: 64-bit ids; parent_id is 0 for the root of a trace.
        parent_remote: whether the parent lives in another process.
        local_root: whether no local parent was found: its end ships the trace. A flag, never `parent_id == 0`, which
            is also true of nothing else's child.
        start_time, end_time: wall nanoseconds; end_time is 0 while the span is open.
        own: the attributes as given, or None while there are none.
        dropped: (attributes, events, links) over the limits, or None.
        duration: nanoseconds, never negative.

    """

    __slots__ = (
        "dropped",
        "end_time",
        "events",
        "kind",
        "links",
        "local_root",
        "name",
        "own",
        "parent_id",
        "parent_remote",
        "scope",
        "span_id",
        "start_time",
        "status_code",
        "status_text",
        "trace",
    )

    dropped: list[int] | None
    end_time: int
    events: list[SpanEvent] | None
    kind: SpanKind
    links: list[SpanLink] | None
    local_root: bool
    name: str
    own: Attributes | None
    parent_id: int
    parent_remote: bool
    scope: Scope
    span_id: int
    start_time: int
    status_code: int
    status_text: str
    trace: LocalTrace

    @property
    def duration(self) -> int:
        """Nanoseconds from start to end."""
        return max(0, self.end_time - self.start_time)

    def outcome(self) -> str:
        """Return what came of it in a word that has few values; "" where all went well."""
        return "error" if self.status_code == Error else ""

    def settle(self) -> Attributes:
        """Return all attributes as one dict that stays; called on the worker for what is kept or exported."""
        if self.own is None:
            self.own = {}
        if self.trace.bound:
            self.own = {**self.trace.bound, **self.own}
        return self.own


class Frame(NamedTuple):
    """A place in the code. Code objects are immutable and hold no values, unlike frames."""

    code: CodeType
    line: int


@dataclass(slots=True)
class ErrorRecord:
    """An exception as it was raised, without its frames' values.

    Attributes:
        type: qualified name, `module.Class` (builtins without the module).
        message: its `str`, guarded and cut.
        frames: outermost first; long stacks lose their middle, and `omitted` says how many.
        relation: how it hangs on the one before: raised directly, `cause` (`raise ... from`), `context` (during
            handling) or `member` of a group.
        chain: causes, contexts and group members, capped.
        fingerprint: of its group (`analysis.grouping`), worked out on the worker.
        held: bytes that the queue counts for it.

    """

    type: str
    message: str
    frames: Sequence[Frame] = ()
    omitted: int = 0
    relation: Literal["", "cause", "context", "member"] = ""
    chain: list[ErrorRecord] = field(default_factory=list)
    timestamp: int = 0
    trace_id: int = 0
    span_id: int = 0
    handled: bool = False
    attributes: Mapping[str, Any] | None = None
    fingerprint: str = ""
    held: int = field(default=0, compare=False, repr=False)


Place = tuple[str, int, str]
"""Where something was called: (file, line, function)."""


def place_attributes(place: Place) -> Attributes:
    """Return what is known of a place, by the code conventions of OpenTelemetry."""
    names = ("code.file.path", "code.line.number", "code.function.name")
    return {name: value for name, value in zip(names, place, strict=True) if value}


@dataclass(slots=True)
class LogRecord:
    """A log record, or a message sent by `insitu.message`.

    Attributes:
        timestamp: wall nanoseconds.
        severity: OpenTelemetry severity number, 1..24 (DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21).
        level: the level's name as the application wrote it.
        body: the rendered message, or a plain value when it came through OpenTelemetry's Logger.
        event_name: set for OpenTelemetry events.
        place: where the standard library's logger was called; None for other loggers, which do not look.
        held: bytes that the queue counts for it.

    """

    timestamp: int
    severity: int
    level: str
    logger: str
    body: Any
    attributes: Attributes | None = None
    trace_id: int = 0
    span_id: int = 0
    flags: int = 0
    error: ErrorRecord | None = None
    event_name: str = ""
    place: Place | None = None
    held: int = field(default=0, compare=False, repr=False)

    def fields(self) -> Attributes:
        """Return the attributes together with the place."""
        fields = self.attributes or {}
        return {**place_attributes(self.place), **fields} if self.place is not None else fields


Record = LocalTrace | LogRecord | ErrorRecord


def size(record: Record) -> tuple[Signal, int]:
    """Return the signal of a record and how many items it holds: what its loss is counted in."""
    if isinstance(record, LocalTrace):
        return "traces", len(record.spans) if record.sampled else 0
    return "logs", 1


@dataclass(slots=True)
class RouteTotals:
    """Requests of one route: how many, how many of them failed (a status of 500 or more), and their seconds."""

    count: int
    errors: int
    durations: Histogram

    def add(self, other: RouteTotals) -> None:
        """Add another's; exact."""
        self.count += other.count
        self.errors += other.errors
        self.durations.merge(other.durations)


class Interval(NamedTuple):
    """What a process counted in a while.

    Attributes:
        start, length: nanoseconds; the start is a whole multiple of the length.
        routes: by name, method and template: `GET /items/{id}`.

    """

    start: int
    length: int
    routes: dict[str, RouteTotals]


MetricKind = Literal["counter", "updown", "gauge", "histogram"]


class Exemplar(NamedTuple):
    """One measurement that stands for its bucket, with the trace it was made in."""

    value: float
    timestamp: int
    trace_id: int
    span_id: int


class Point(NamedTuple):
    """The value of one series at the time of collection.

    For histograms `value` is the sum, `buckets` the counts per bucket (not cumulative, the last one unbounded) and
    `exemplars` one or None for each bucket; for everything else `value` is the number and the rest is empty. `time` is
    when a gauge was set (wall nanoseconds), where the last of several workers counts.
    """

    labels: Mapping[str, Any]
    value: float
    buckets: Sequence[int] = ()
    exemplars: Sequence[Exemplar | None] = ()
    time: int = 0


Merge = Literal["total", "sum", "max", "last", "worker", "host"]
"""How a metric of several workers becomes one.

`total`: the sum over all that live and lived. Of those that live: `sum`; `max`; `last`, the one set last; `worker`,
each for itself. `host`: all say the same.
"""
SERIES: Final = 2_000
"""Label sets of a metric that are kept apart; what comes after goes into one overflow series, so the total is exact."""
OVERFLOW: Final = {"otel.metric.overflow": True}
"""The attribute set of the overflow series, as in OpenTelemetry's metrics SDK specification, "Cardinality limits"."""
TOTAL: Final = "total"
LAST: Final = "last"
HOST: Final = "host"


@dataclass(slots=True)
class Family:
    """All series of one metric at the time of collection.

    Attributes:
        name: as declared, in OpenTelemetry's form (`http.server.request.duration`) or the user's own.
        unit: UCUM (`s`, `By`, `{request}`).
        start: wall nanoseconds since when counters count.
        time: wall nanoseconds of the collection.
        bounds: upper bounds of a histogram's buckets.
        merge: how those of several workers become one; by default `worker` for a gauge, else `total`.

    """

    name: str
    kind: MetricKind
    points: Sequence[Point]
    unit: str = ""
    help: str = ""
    scope: Scope = Scope("insitu")
    bounds: Sequence[float] = ()
    start: int = 0
    time: int = 0
    merge: Merge | None = None

    @property
    def merging(self) -> Merge:
        """How those of several workers become one."""
        return self.merge or ("worker" if self.kind == "gauge" else TOTAL)


@dataclass(frozen=True, slots=True)
class Resource:
    """What everything in this process has in common (`service.name`, `host.name`, ...)."""

    attributes: Mapping[str, Any]
    schema_url: str = ""
