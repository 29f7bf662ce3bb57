"""What the shop's own /metrics page says about a run."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

ACCEPT = {"Accept": "application/openmetrics-text"}
"""The header that asks for OpenMetrics, the format that has exemplars."""
REQUESTS = "http_server_request_duration_seconds"
NO_ROUTE = "(no such route)"
WORKER = "worker"
"""The queue before the exporters: every other one belongs to an exporter of its name."""

Sign = Literal["", "<", ">"]
Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the page. Its exemplar is the seconds of one request and the id of its trace."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: tuple[float, str] | None


@dataclass(slots=True)
class Route:
    """The requests of one method and route: how many, their seconds together, their histogram, their failures.

    `slow` is the slowest exemplar: each bucket keeps one, the latest.
    """

    requests: int = 0
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)
    refused: int = 0
    failed: int = 0
    slow: tuple[float, str] | None = None

    def add(self, other: "Route") -> None:
        """Take the requests of another route in."""
        self.requests += other.requests
        self.seconds += other.seconds
        self.buckets.update(other.buckets)
        self.refused += other.refused
        self.failed += other.failed


@dataclass(slots=True)
class Page:
    """The part of a page that the report shows; `exported` and `lost` are by exporter, then by signal."""

    routes: dict[tuple[str, str], Route]
    errors: Counts
    logs: Counts
    records: Counts
    dropped: int
    kept: Counts
    exported: dict[str, Counts]
    lost: dict[str, Counts]
    cpu: dict[str, float]
    process_cpu: float

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(route.requests for route in self.routes.values())

    def starting_from(self, before: "Page") -> "Page":
        """Return the page without the CPU time that was spent before: importing and starting serve no request."""
        cpu = {part: seconds - before.cpu.get(part, 0.0) for part, seconds in self.cpu.items()}
        return replace(self, cpu=cpu, process_cpu=self.process_cpu - before.process_cpu)


def read(text: str) -> Page:
    """Read a page in the OpenMetrics format."""
    samples = [
        Sample(sample.name, sample.labels, sample.value, _exemplar(sample.exemplar))
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    ]

    def totals(name: str, label: str, **where: str) -> dict[str, float]:
        found: defaultdict[str, float] = defaultdict(float)
        for sample in samples:
            if sample.name == name and where.items() <= sample.labels.items():
                found[sample.labels.get(label, "")] += sample.value
        return dict(sorted(((key, value) for key, value in found.items() if value), key=lambda item: -item[1]))

    def counts(name: str, label: str, **where: str) -> Counts:
        return {key: int(value) for key, value in totals(name, label, **where).items()}

    queues = {sample.labels.get("queue", WORKER) for sample in samples if sample.name == "insitu_queue_size_bytes"}
    exporters = sorted(queues - {WORKER})
    return Page(
        routes=_routes(samples),
        errors=counts("insitu_errors_total", "error_type"),
        logs=counts("insitu_log_records_total", "level"),
        records=counts("insitu_records_total", "signal"),
        dropped=sum(counts("insitu_dropped_records_total", "reason").values()),
        kept=counts("insitu_kept_traces_total", "reason"),
        exported={name: counts("insitu_exported_records_total", "signal", exporter=name) for name in exporters},
        lost={name: counts("insitu_dropped_records_total", "signal", exporter=name) for name in exporters},
        cpu=totals("insitu_cpu_seconds_total", "part"),
        process_cpu=sum(totals("process_cpu_time_seconds_total", "").values()),
    )


def _exemplar(given: Exemplar | None) -> tuple[float, str] | None:
    return (given.value, given.labels["trace_id"]) if given and "trace_id" in given.labels else None


def _routes(samples: Iterable[Sample]) -> dict[tuple[str, str], Route]:
    routes: defaultdict[tuple[str, str], Route] = defaultdict(Route)
    for sample in samples:
        if not sample.name.startswith(REQUESTS):
            continue
        route = routes[sample.labels["http_request_method"], sample.labels.get("http_route") or NO_ROUTE]
        match sample.name.removeprefix(REQUESTS):
            case "_bucket":
                route.buckets[float(sample.labels["le"])] += int(sample.value)
                route.slow = max(filter(None, (route.slow, sample.exemplar)), default=None)
            case "_sum":
                route.seconds += sample.value
            case "_count":
                route.requests += int(sample.value)
                status = int(sample.labels.get("http_response_status_code") or 500)
                route.refused += int(sample.value) if 400 <= status < 500 else 0
                route.failed += int(sample.value) if status >= 500 else 0
    return dict(sorted(routes.items(), key=lambda item: -item[1].requests))


def quantile(q: float, buckets: dict[float, int]) -> tuple[Sign, float]:
    """Return the q-quantile of a cumulative histogram, as a sign and a value.

    Inside a bucket the values are taken to lie evenly, as PromQL's `histogram_quantile` does, and the sign is empty. In
    the first bucket that would be a guess from zero: there the quantile is `<` the bucket's bound. Beyond the last
    finite bound it is `>` that bound. Of no values it is not a number.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return "", math.nan
    rank = q * buckets[bounds[-1]]
    at = next(i for i, bound in enumerate(bounds) if buckets[bound] >= rank)
    if at == 0:
        return "<", bounds[0]
    low, high = bounds[at - 1], bounds[at]
    if math.isinf(high):
        return ">", low
    return "", low + (high - low) * (rank - buckets[low]) / (buckets[high] - buckets[low])
