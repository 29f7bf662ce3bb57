"""What can be asked of the store, and what an answer looks like: shared by who asks, `web`, and who knows, `store`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMIT: Final = 100
FOREVER: Final = (1 << 63) - 1
HTTP_CALLS: Final = "http.client.request.duration"
DATABASE_CALLS: Final = "db.client.operation.duration"
TASKS_SENT: Final = "insitu.task.published"
TASKS_BEGUN: Final = "insitu.task.wait"
CALLS: Final = (HTTP_CALLS, DATABASE_CALLS, TASKS_SENT, TASKS_BEGUN)
"""The metrics that count what a service calls, and what it takes from a queue."""


@dataclass(frozen=True, slots=True)
class Period:
    """What every question says.

    Attributes:
        since, until: wall nanoseconds, both included; of the start of what is asked for.
        limit: about how many answers.
        cursor: from the answer before; None at the first time.

    """

    since: int = 0
    until: int = FOREVER
    limit: int = LIMIT
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class TraceSearch:
    """Which traces. What is None, or empty, does not matter.

    Attributes:
        name: of the local root, whole.
        outcome: a status code or an error's type, or how it begins: `5` for all server errors.
        least, most: nanoseconds.
        failed: with, or without, an error.
        reason: why it was kept.
        key, value: an attribute of any span, as text; without a key any attribute.

    """

    name: str = ""
    outcome: str = ""
    least: int = 0
    most: int = FOREVER
    failed: bool | None = None
    reason: str = ""
    key: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class LogSearch:
    """Which log records.

    Attributes:
        severity: the least, as OpenTelemetry's number.
        logger: its whole name.
        text: stands anywhere in the record, in any case.
        trace_id: of the trace that it belongs to, in hexadecimal.

    """

    severity: int = 0
    logger: str = ""
    text: str = ""
    trace_id: str = ""


@dataclass(slots=True)
class Answer:
    """What was found.

    Attributes:
        found: documents, the newest first.
        cursor: where to go on; None when all was looked through.
        looked, blocks: blocks that were looked through, and that there are in the period.

    """

    found: list[dict[str, Any]] = field(default_factory=list)
    cursor: int | None = None
    looked: int = 0
    blocks: int = 0


class Called(NamedTuple):
    """What a service has called in a period: how often, and the seconds that took, by the labels of its metric."""

    labels: Mapping[str, str]
    times: float
    seconds: float


class RemoteSpan(NamedTuple):
    """A kept span with another process at its other end.

    Attributes:
        span_id: its own.
        parent_id: of the call that a request came from; "" for a call.
        peer: `host:port` that a call went to; "" for a request.

    """

    span_id: str
    parent_id: str
    peer: str


class Facts(NamedTuple):
    """What one service did in a period.

    Attributes:
        routes: as `Reader.routes` returns them.
        calls: by the name of the metric.
        remote: of the newest kept traces.
        since: wall nanoseconds from which on the service is known: of its first request, or else of its first sample.
        until: wall nanoseconds up to which calls are counted: of the newest sample; 0 where there is none.

    """

    routes: Mapping[str, Any]
    calls: Mapping[str, Sequence[Called]]
    remote: Sequence[RemoteSpan]
    since: int = 0
    until: int = 0


class Neighbours(Protocol):
    """Knows the services that share a store."""

    def facts(self, since: int, until: int) -> Mapping[str, Facts]:
        """Return what each service did in a period, by its name."""

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return a trace as {trace_id, reason, spans, logs}, each with its `service`; None where it is not known."""


class Reader(Protocol):
    """Answers from what is kept. Used by one thread at a time, the reader."""

    def traces(self, search: TraceSearch, period: Period) -> Answer:
        """Return traces as {trace_id, name, outcome, start, duration, spans, failed, reason}."""

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return a trace as {trace_id, reason, spans, logs}; None where nothing is known of it."""

    def routes(self, since: int, until: int, name: str = "") -> dict[str, Any]:
        """Return what is counted of a period: the whole as a series, and each route in all.

        As {since, first, until, interval, series: [[start, count, errors]], routes: [{name, count, errors, rate, p50,
        p95, p99, longest}], total: {the same of all}}; moments and the interval in nanoseconds, durations in seconds; a
        rate is one a second since `first`, when there was the first request in this time. A period is as exact as the
        intervals that are kept: seconds for an hour, minutes for a day, then hours. Of one route
        alone, each entry of the series has its p50, p95 and p99 as well.
        """

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of the newest samples, as {name, kind, unit, help, series}: how many."""

    def metric(self, name: str, since: int, until: int) -> dict[str, Any] | None:
        """Return a metric's samples of a period; None where it is not known.

        As {name, kind, unit, help, since, until, interval, series: [{labels, points: [[time, value]]}], left_out}. A
        counter's value is its rate a second, a histogram's point is [time, rate, mean]. The largest series are shown,
        and `left_out` says how many others there are.
        """

    def logs(self, search: LogSearch, period: Period) -> Answer:
        """Return records as {timestamp, severity, level, logger, body, attributes, trace_id, span_id, exception}."""
