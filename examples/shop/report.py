"""What the shop's own /metrics page says about a run, as a table."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families

from examples.shop.terminal import WIDTH, Style

REQUESTS = "http_server_request_duration_seconds"
NO_ROUTE = "(no such route)"
SLOW = 0.1
"""Seconds from which a quantile is shown as slow."""

Paint = Callable[..., str]
Sign = Literal["", "<", ">"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the page."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(slots=True)
class Route:
    """The requests of one method and route: how many, their seconds together, their histogram, their failures."""

    requests: int = 0
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)
    refused: int = 0
    failed: int = 0


@dataclass(slots=True)
class Page:
    """The part of a page that the report shows."""

    routes: dict[tuple[str, str], Route]
    errors: dict[str, int]
    logs: dict[str, int]
    records: dict[str, int]
    dropped: int
    cpu: dict[str, float]
    process_cpu: float

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(route.requests for route in self.routes.values())

    @property
    def seconds(self) -> float:
        """All requests' durations together."""
        return sum(route.seconds for route in self.routes.values())

    def starting_from(self, before: "Page") -> "Page":
        """Return the page without the CPU time that was spent before: importing and starting serve no request."""
        cpu = {part: seconds - before.cpu.get(part, 0.0) for part, seconds in self.cpu.items()}
        return replace(self, cpu=cpu, process_cpu=self.process_cpu - before.process_cpu)


def read(text: str) -> Page:
    """Read a page in the Prometheus text format."""
    samples = [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]

    def totals(name: str, label: str) -> dict[str, float]:
        found: defaultdict[str, float] = defaultdict(float)
        for sample in samples:
            if sample.name == name:
                found[sample.labels.get(label, "")] += sample.value
        return dict(sorted(((key, value) for key, value in found.items() if value), key=lambda item: -item[1]))

    def counts(name: str, label: str) -> dict[str, int]:
        return {key: int(value) for key, value in totals(name, label).items()}

    return Page(
        routes=_routes(samples),
        errors=counts("insitu_errors_total", "error_type"),
        logs=counts("insitu_log_records_total", "level"),
        records=counts("insitu_records_total", "signal"),
        dropped=sum(counts("insitu_dropped_records_total", "reason").values()),
        cpu=totals("insitu_cpu_seconds_total", "part"),
        process_cpu=sum(totals("process_cpu_time_seconds_total", "").values()),
    )


def _routes(samples: Iterable[Sample]) -> dict[tuple[str, str], Route]:
    routes: defaultdict[tuple[str, str], Route] = defaultdict(Route)
    for sample in samples:
        if not sample.name.startswith(REQUESTS):
            continue
        route = routes[sample.labels["http_request_method"], sample.labels.get("http_route") or NO_ROUTE]
        match sample.name.removeprefix(REQUESTS):
            case "_bucket":
                route.buckets[float(sample.labels["le"])] += int(sample.value)
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


def render(page: Page, sent: int, elapsed: float, paint: Paint) -> Iterator[str]:
    """Yield the lines of the report, at most 100 columns wide.

    Args:
        page: What the shop says of itself.
        sent: The answers that the customers counted.
        elapsed: Seconds of traffic.
        paint: Gives a text its style.
    """
    rule = paint("─" * WIDTH, "dim")
    yield from (
        "",
        paint(_row("route", "requests", "req/s", "mean ms", "p50 ms", "p95 ms", "p99 ms", "4xx", "5xx"), "bold"),
    )
    yield rule
    everything = Route()
    for (method, path), route in page.routes.items():
        yield _route_row(f"{method:<5} {path}", route, elapsed, paint)
        _add(everything, route)
    yield rule
    yield _route_row("all", everything, elapsed, paint)
    yield ""
    yield from _facts(page, sent, paint)
    yield ""
    yield from _cost(page, elapsed, paint)


def _row(*cells: str) -> str:
    widths = (9, 8, 9, 9, 9, 9, 6, 6)
    return f"{cells[0]:<{WIDTH - sum(widths)}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=True)
    )


def _route_row(name: str, route: Route, elapsed: float, paint: Paint) -> str:
    figures = [quantile(q, route.buckets) for q in (0.5, 0.95, 0.99)]
    name = name if len(name) <= 34 else name[:33] + "…"
    cells = f"{name:<35}{route.requests:>9,}{route.requests / elapsed:>8.1f}"
    mean = f"{route.seconds / max(route.requests, 1) * 1e3:>9.1f}"
    quantiles = "".join(paint(f"{_milliseconds(*figure):>9}", *_slow(figure[1])) for figure in figures)
    refused = paint(f"{route.refused or '·':>6}", *_style("yellow", route.refused))
    failed = paint(f"{route.failed or '·':>6}", *_style("red", route.failed))
    return cells + mean + quantiles + refused + failed


def _style(style: Style, count: int) -> tuple[Style, ...]:
    return (style,) if count else ("dim",)


def _slow(seconds: float) -> tuple[Style, ...]:
    return ("yellow",) if seconds > SLOW else ()


def _milliseconds(sign: Sign, seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{sign} {seconds * 1e3:g}" if sign else f"{seconds * 1e3:.1f}"


def _add(to: Route, route: Route) -> None:
    to.requests += route.requests
    to.seconds += route.seconds
    to.buckets.update(route.buckets)
    to.refused += route.refused
    to.failed += route.failed


def _facts(page: Page, sent: int, paint: Paint) -> Iterator[str]:
    agree = page.requests == sent
    verdict = paint("✓ the same", "green") if agree else paint(f"✗ {page.requests - sent:+,}", "yellow")
    drops = paint(f"{page.dropped:,}", "red" if page.dropped else "green")
    yield _fact("errors", _listed(page.errors, "red", paint), paint)
    yield _fact("logs", _listed(page.logs, "dim", paint), paint)
    yield _fact("requests", f"{sent:,} sent, {page.requests:,} measured   {verdict}", paint)
    yield _fact("dropped", f"{drops} records{_of(page.records)}", paint)


def _fact(title: str, text: str, paint: Paint) -> str:
    return paint(f"{title:<11}", "bold") + text


def _listed(counts: dict[str, int], style: Style, paint: Paint) -> str:
    named = ((name.rpartition(".")[2], count) for name, count in counts.items())  # a class without its module
    return "   ".join(f"{name} {paint(f'{count:,}', style)}" for name, count in named) or "none"


def _of(records: dict[str, int]) -> str:
    listed = ", ".join(f"{count:,} {signal}" for signal, count in records.items())
    return f" of {sum(records.values()):,}: {listed}" if listed else ""


def _cost(page: Page, elapsed: float, paint: Paint) -> Iterator[str]:
    requests = max(page.requests, 1)
    total = sum(page.cpu.values())
    yield paint(f"{'what insitu cost, by its own measure':<40}{'µs a request':>16}{'% of one CPU':>16}", "bold")
    for part, seconds in [*page.cpu.items(), ("all", total)]:
        line = f"  {part:<38}{seconds / requests * 1e6:>16.1f}{seconds / elapsed * 100:>16.2f}"
        yield paint(line, "cyan") if part == "all" else line
    share = f"{total / max(page.seconds, 1e-9):.2%} of that"
    of_cpu = f" and {total / page.process_cpu:.1%} of the CPU time that the shop used" if page.process_cpu else ""
    yield f"A request takes {page.seconds / requests * 1e3:.1f} ms; insitu is {share}{of_cpu}."
