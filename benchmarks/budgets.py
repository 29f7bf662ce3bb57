"""The table of budgets: what is measured, against what, and how much it may cost. Policy is data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.rows import Cost, Limit, Row

if TYPE_CHECKING:
    from collections.abc import Iterable


def _share(of: float) -> Limit:
    return Limit(share=1 / of)


def _answer(name: str, what: str) -> Row:
    return Row(
        f"questions.{name}",
        what,
        Cost(f"questions:kept.{name}"),
        None,
        Limit(plus=200),
        Limit(plus=50),
        "ms",
        once=True,
    )


_BARE, _UNCHECKED = "http_request:bare", "http_request:unchecked"
_OTEL, _OTEL_OFF = "http_request:otel", "http_request:otel_unsampled"
_BUDGETED: Final = "budgeted:insitu_budgeted"
_WITHIN_A_QUARTER: Final = Limit(share=1.25)
_OTEL_ERROR = Cost("failures:otel_capture", "failures:otel_raise")

ROWS: Final = (
    Row(
        "span.caller",
        "recorded span, 3 attributes: caller's thread",
        Cost("spans:insitu_span.caller"),
        Cost("spans:otel.caller"),
        _share(7),
        _share(8),
    ),
    Row(
        "span.whole",
        "the same: whole process, kept and written",
        Cost("spans:insitu_span.whole"),
        Cost("spans:otel.whole"),
        _share(4),
        _share(5),
    ),
    Row(
        "span.encoded",
        "the same, and every span encoded for OTLP",
        Cost("spans:insitu_encoded.whole"),
        Cost("spans:otel.whole"),
    ),
    Row(
        "span.api",
        "the same by OpenTelemetry's API: caller's thread",
        Cost("spans:insitu_by_api.caller"),
        Cost("spans:otel.caller"),
    ),
    Row(
        "request.default",
        "FastAPI request, added to bare",
        Cost("http_request:insitu_default", _BARE),
        Cost(_OTEL, _BARE),
        _share(10),
        _share(20),
    ),
    Row(
        "request.unchecked",
        "the same, to bare without its telemetry check",
        Cost("http_request:insitu_default", _UNCHECKED),
        Cost(_OTEL, _UNCHECKED),
        _share(10),
        _share(20),
    ),
    Row(
        "request.encoded",
        "FastAPI request, encoded for OTLP: to bare",
        Cost("http_request:insitu_encoded", _BARE),
        Cost(_OTEL, _BARE),
    ),
    Row(
        "request.encoded-unchecked",
        "the same, to bare without its telemetry check",
        Cost("http_request:insitu_encoded", _UNCHECKED),
        Cost(_OTEL, _UNCHECKED),
    ),
    Row(
        "request.unsampled",
        "unsampled FastAPI request, added to bare",
        Cost("http_request:insitu_unsampled", _BARE),
        Cost(_OTEL_OFF, _BARE),
        _share(10),
        _share(15),
    ),
    Row(
        "request.unsampled-unchecked",
        "the same, to bare without its telemetry check",
        Cost("http_request:insitu_unsampled", _UNCHECKED),
        Cost(_OTEL_OFF, _UNCHECKED),
        _share(10),
        _share(15),
    ),
    Row(
        "request.ledger",
        "what insitu's ledger says, to what it adds to bare",
        Cost("http_request:insitu_default.ledger"),
        Cost("http_request:insitu_default", _BARE),
        _WITHIN_A_QUARTER,
    ),
    Row(
        "request.outside",
        "the same the other way round",
        Cost("http_request:insitu_default", _BARE),
        Cost("http_request:insitu_default.ledger"),
        _WITHIN_A_QUARTER,
    ),
    Row("request.bare", "bare FastAPI request; without its telemetry check", Cost(_BARE), Cost(_UNCHECKED)),
    Row(
        "flask.request",
        "Flask request, added to bare",
        Cost("flask_request:insitu_default", "flask_request:bare"),
        Cost("flask_request:otel", "flask_request:bare"),
        _share(8),
        _share(12),
    ),
    Row("flask.bare", "bare Flask request", Cost("flask_request:bare")),
    Row(
        "django.request",
        "Django request, added to bare",
        Cost("django_request:insitu_default", "django_request:bare"),
        Cost("django_request:otel", "django_request:bare"),
        _share(8),
        _share(12),
    ),
    Row("django.bare", "bare Django request", Cost("django_request:bare")),
    Row(
        "call.statement",
        "SQLAlchemy statement, added to bare",
        Cost("calls:statement_insitu", "calls:statement_bare"),
        Cost("calls:statement_otel", "calls:statement_bare"),
        _share(4),
    ),
    Row(
        "call.request",
        "httpx request, added to bare",
        Cost("calls:request_insitu", "calls:request_bare"),
        Cost("calls:request_otel", "calls:request_bare"),
    ),
    Row(
        "budget.ledger",
        "all steps down: ledger, to what insitu adds to bare",
        Cost("budgeted:insitu_busy.ledger"),
        Cost("budgeted:insitu_busy", _BARE),
    ),
    Row(
        "budget.spans",
        "request of 20 spans: ledger, to what insitu adds",
        Cost("budgeted:insitu_stepwise.ledger"),
        Cost("budgeted:insitu_stepwise", "budgeted:stepwise_bare"),
    ),
    Row(
        "budget.left-out",
        "the same where the budget leaves them out",
        Cost("budgeted:insitu_left_out.ledger"),
        Cost("budgeted:insitu_left_out", "budgeted:stepwise_bare"),
    ),
    Row(
        "budget.share",
        "budget of 1 %: share of a core, once it is kept",
        Cost(f"{_BUDGETED}.share"),
        None,
        Limit(plus=1),
        unit="%",
    ),
    Row(
        "budget.held",
        "the same: from the first request until then",
        Cost(f"{_BUDGETED}.held"),
        None,
        Limit(plus=20),
        unit="s",
    ),
    Row(
        "error.capture",
        "error captured, 10 frames",
        Cost("failures:insitu_capture", "failures:insitu_raise"),
        _OTEL_ERROR,
        _share(40),
        _share(80),
    ),
    Row(
        "error.encoded",
        "the same, its stack trace encoded for OTLP",
        Cost("failures:insitu_encoded", "failures:insitu_raise_encoded"),
        _OTEL_ERROR,
    ),
    Row(
        "metric.counter",
        "counter, 2 labels by keyword",
        Cost("instruments:insitu_counter"),
        Cost("instruments:prometheus_counter"),
        _share(2),
        _share(3),
    ),
    Row(
        "metric.histogram",
        "histogram, 2 labels by keyword",
        Cost("instruments:insitu_histogram"),
        Cost("instruments:prometheus_histogram"),
        _share(2),
        _share(3),
    ),
    Row(
        "log.insitu",
        "insitu.log, JSON out, whole process",
        Cost("records:insitu_log"),
        Cost("records:json_logger"),
        _share(2),
    ),
    Row(
        "log.stdlib",
        "stdlib logging captured, JSON out: what that adds",
        Cost("records:insitu_stdlib", "records:stdlib"),
        Cost("records:json_logger"),
        _share(1.5),
        Limit(plus=1.5),
    ),
    Row(
        "log.whole",
        "the same, with stdlib logging's own cost",
        Cost("records:insitu_stdlib"),
        Cost("records:json_logger"),
    ),
    Row("log.own", "stdlib logging alone, to nowhere", Cost("records:stdlib"), Cost("records:json_logger")),
    Row(
        "start.import",
        "import insitu beside fastapi and uvicorn",
        Cost("startup:insitu_start.import"),
        None,
        Limit(plus=60),
        Limit(plus=30),
        "ms",
    ),
    Row(
        "start.init",
        "insitu.init",
        Cost("startup:insitu_start.init"),
        None,
        Limit(plus=100),
        Limit(plus=50),
        "ms",
    ),
    Row(
        "scrape.samples",
        "scrape, 2,000 samples",
        Cost("scrape:counters"),
        None,
        Limit(plus=20),
        None,
        "ms",
    ),
    Row(
        "scrape.histograms",
        "scrape, 2,000 histogram label sets (1 process)",
        Cost("scrape:histograms"),
        None,
        Limit(plus=100),
        None,
        "ms",
    ),
    Row(
        "scrape.workers",
        "the same of 4 workers, added up",
        Cost("scrape:workers"),
        None,
        Limit(plus=100),
        None,
        "ms",
    ),
    Row("scrape.publish", "a worker's counts told to others, each half second", Cost("scrape:publish"), unit="ms"),
    Row("scrape.publish-2,000", "the same with 2,000 histograms", Cost("scrape:publish_histograms"), unit="ms"),
    Row(
        "part.encoder",
        "span of 3 attributes encoded for OTLP",
        Cost("parts:encoder"),
        Cost("parts:official_encoder"),
        _share(8),
    ),
    Row(
        "part.huge",
        "span of 10 MB, 1,000 attributes, 10,000 events",
        Cost("parts:huge_span"),
        Cost("parts:huge_span_otel"),
        _share(2),
    ),
    Row(
        "part.sketch",
        "value in a histogram; four logarithms and a sum",
        Cost("parts:sketch"),
        Cost("parts:logarithms"),
        Limit(share=4),
    ),
    Row("part.process", "reading the process, every 5 s", Cost("parts:process"), None, Limit(plus=1), unit="ms"),
    Row("part.system", "reading everything there is, at once", Cost("parts:system"), None, Limit(plus=5), unit="ms"),
    Row(
        "part.fingerprint",
        "fingerprint of an error; of one with a new message",
        Cost("parts:fingerprint"),
        Cost("parts:fingerprint_of_another"),
    ),
    Row("part.collection", "noting a garbage collection", Cost("parts:collection"), None, Limit(plus=5)),
    Row(
        "stall.drain",
        "longest stall, 2,500 rich drain; a bare request",
        Cost("stall:insitu_drain.stall"),
        Cost("stall:bare.median"),
        Limit(share=16),
        None,
        "ms",
    ),
    Row(
        "stall.garbage",
        "the same: Python's garbage collector alone",
        Cost("stall:insitu_drain.garbage"),
        Cost("stall:bare.garbage"),
        unit="ms",
    ),
    Row(
        "stall.bare",
        "the same: longest bare request",
        Cost("stall:bare.stall"),
        Cost("stall:bare.median"),
        unit="ms",
    ),
    _answer("lists", "slowest answer of roll-ups, lists; 1 M spans kept"),
    Row("questions.routes", "of these: 200 routes, 6 hours", Cost("questions:kept.routes"), unit="ms", once=True),
    Row("questions.metric", "a metric of 200 series, 6 hours", Cost("questions:kept.metric"), unit="ms", once=True),
    _answer("trace", "the oldest trace among them, by its id"),
    _answer("attribute", "first answer on an attribute that none of them has"),
    Row("questions.scan", "the same, to the end", Cost("questions:kept.scan"), unit="s", once=True),
    Row("questions.file", "the store's files", Cost("questions:kept.file"), unit="MB", once=True),
    Row("questions.span", "of that a span, with its logs and counts", Cost("questions:kept.span"), unit="B", once=True),
    Row("questions.memory", "the process that wrote them", Cost("questions:kept.memory"), unit="MB", once=True),
    Row(
        "memory.hour",
        "memory over bare, 3.6 M requests, 200 routes",
        Cost("memory:insitu_hour.end", "memory:bare"),
        Cost("memory:bare"),
        Limit(plus=100),
        Limit(plus=40),
        "MB",
        once=True,
    ),
    Row(
        "memory.tenth",
        "the same, after a tenth of them",
        Cost("memory:insitu_hour.tenth", "memory:bare"),
        Cost("memory:bare"),
        unit="MB",
        once=True,
    ),
    Row(
        "memory.flat",
        "its growth from 10 % to 100 % of them",
        Cost("memory:insitu_hour.growth"),
        None,
        Limit(plus=2),
        None,
        "MB",
        once=True,
    ),
)
"""Every budget of the design that exists by now, and beside them what explains it."""


def chosen(wanted: Iterable[str]) -> tuple[Row, ...]:
    """Return the rows whose key is, or starts with, one of these words; all for none."""
    words = tuple(wanted)
    return tuple(row for row in ROWS if not words or row.key.startswith(words))
