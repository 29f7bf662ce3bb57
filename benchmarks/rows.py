"""The table of budgets: what is measured, against what, and how much it may cost. Policy is data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TOLERANCE: Final = 1.25
"""A gate fails above this many times the budget: machines that others share are not exact."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A figure, or what one figure has above another.

    Attributes:
        figure: `module:function` of a contender, with `.name` where its rounds return several.
        above: the figure that is taken off; "" takes nothing off.

    """

    figure: str
    above: str = ""

    def among(self, figures: Mapping[str, float]) -> float:
        """Return the cost; KeyError when it was not measured."""
        return figures[self.figure] - (figures[self.above] if self.above else 0.0)

    def needs(self) -> Iterator[str]:
        """Yield the figures."""
        yield self.figure
        if self.above:
            yield self.above


@dataclass(frozen=True, slots=True)
class Limit:
    """A share of the row's baseline, or a fixed amount in the row's unit."""

    share: float = 0.0
    plus: float = 0.0

    def among(self, figures: Mapping[str, float], baseline: Cost | None) -> float:
        """Return the limit in the row's unit."""
        return (self.share * baseline.among(figures) if baseline is not None and self.share else 0.0) + self.plus

    def text(self, unit: str) -> str:
        """Return it for people: `1/7`, `16 ×`, `20 ms`."""
        if not self.share:
            return f"{self.plus:g} {unit}"
        return f"{self.share:g} ×" if self.share > 1 else f"1/{1 / self.share:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        key: for `--only`; what stands before the first dot is measured together, in alternating rounds.
        what: for people, at most 51 characters.
        ours, baseline: the costs compared.
        budget, stretch: what ours may cost; a row without budget informs.
        unit: of both costs.
        once: whether one long round says enough.

    """

    key: str
    what: str
    ours: Cost
    baseline: Cost | None = None
    budget: Limit | None = None
    stretch: Limit | None = None
    unit: str = "µs"
    once: bool = False

    @property
    def group(self) -> str:
        """What is measured together with this row."""
        return self.key.partition(".")[0]

    def needs(self) -> list[str]:
        """Return every figure that the row is made of."""
        costs = [cost for cost in (self.ours, self.baseline) if cost is not None]
        figures = [figure for cost in costs for figure in cost.needs()]
        return [*figures, _PACE] if self.paced else figures

    @property
    def paced(self) -> bool:
        """Whether the budget is an amount of time, which a slower machine cannot keep."""
        return self.budget is not None and self.budget.plus > 0 and self.unit == "ms"


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


_PACE: Final = "pace:plain"
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


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its figures.

    Attributes:
        row: what was measured.
        figures: every figure of the run.
        failure: why it could not be measured; "" when it could.

    """

    row: Row
    figures: Mapping[str, float]
    failure: str = ""

    @property
    def ours(self) -> float:
        """What insitu costs, in the row's unit."""
        return self.row.ours.among(self.figures)

    @property
    def baseline(self) -> float | None:
        """What the baseline costs, in the row's unit."""
        return self.row.baseline.among(self.figures) if self.row.baseline is not None else None

    def within(self, limit: Limit | None, tolerance: float = 1.0) -> bool:
        """Whether the cost stands below a limit."""
        return limit is not None and self.ours <= limit.among(self.figures, self.row.baseline) * tolerance

    @property
    def passes(self) -> bool:
        """Whether the gate lets it through."""
        slower = max(1.0, self.figures[_PACE] / pace.NOMINAL) if self.row.paced and not self.failure else 1.0
        return not self.failure and (self.row.budget is None or self.within(self.row.budget, TOLERANCE * slower))

    @property
    def verdict(self) -> str:
        """Say what came of it: `stretch`, `yes`, `nearly` (within the gate's tolerance), `NO`; "" without a budget."""
        if self.failure:
            return "FAILED"
        if self.row.budget is None:
            return ""
        if self.within(self.row.stretch):
            return "stretch"
        if self.within(self.row.budget):
            return "yes"
        return "nearly" if self.passes else "NO"


def chosen(wanted: Iterable[str]) -> tuple[Row, ...]:
    """Return the rows whose key is, or starts with, one of these words; all for none."""
    words = tuple(wanted)
    return tuple(row for row in ROWS if not words or row.key.startswith(words))
