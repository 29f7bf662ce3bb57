"""The end of a run: what the shop measured, and what that cost, as a table."""

import math
from collections.abc import Callable, Iterable, Iterator

from examples.shop.page import Page, Route, Sign, quantile
from examples.shop.terminal import WIDTH, Style
from examples.shop.traffic import Tally

SLOW = 0.1
"""Seconds from which a quantile is shown as slow."""
QUANTILES = {0.5: 1, 0.95: 20, 0.99: 100}
"""Which quantiles are shown, each with the fewest requests that have one."""
WIDTHS = (9, 8, 9, 9, 9, 9, 6, 6)
SIGNALS = {"traces": "spans", "logs": "log records"}
SEVERITIES = ("fatal", "critical", "error", "warning", "info", "debug", "trace")
PARTS = {
    "request": "in the requests",
    "worker": "counting and cleaning",
    "sender": "sending",
    "reader": "answering /metrics",
}

Paint = Callable[..., str]


def render(page: Page, tally: Tally, paint: Paint) -> Iterator[str]:
    """Yield the lines of the report, at most 100 columns wide.

    Args:
        page: What the shop says of itself.
        tally: What the customers saw.
        paint: Gives a text its style.
    """
    yield ""
    yield from _table(page, tally.seconds, paint)
    yield ""
    yield from _facts(page, tally, paint)
    yield ""
    yield from _cost(page, tally.seconds, paint)


def _table(page: Page, elapsed: float, paint: Paint) -> Iterator[str]:
    rule = paint("─" * WIDTH, "dim")
    yield paint(_row("route", "requests", "req/s", "mean ms", "p50 ms", "p95 ms", "p99 ms", "4xx", "5xx"), "bold")
    yield rule
    everything = Route()
    for (method, path), route in page.routes.items():
        yield _route_row(f"{method:<5} {path}", route, elapsed, paint)
        everything.add(route)
    yield rule
    yield _route_row("all", everything, elapsed, paint)
    yield paint("Times are the shop's; the way there and back and the wait for a turn come on top.", "dim")


def _row(name: str, *cells: str) -> str:
    return f"{name:<{WIDTH - sum(WIDTHS)}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)
    )


def _route_row(name: str, route: Route, elapsed: float, paint: Paint) -> str:
    name = name if len(name) <= 34 else name[:33] + "…"
    cells = f"{name:<35}{route.requests:>9,}{route.requests / elapsed:>8.1f}"
    mean = f"{milliseconds('', route.seconds / max(route.requests, 1)):>9}"
    quantiles = "".join(_quantile(q, route, least, paint) for q, least in QUANTILES.items())
    refused = paint(f"{route.refused or '·':>6}", *_style("yellow", route.refused))
    failed = paint(f"{route.failed or '·':>6}", *_style("red", route.failed))
    return cells + mean + quantiles + refused + failed


def _quantile(q: float, route: Route, least: int, paint: Paint) -> str:
    sign, seconds = quantile(q, route.buckets) if route.requests >= least else ("", math.nan)
    return paint(f"{milliseconds(sign, seconds):>9}", *(("yellow",) if seconds > SLOW else ()))


def _style(style: Style, count: int) -> tuple[Style, ...]:
    return (style,) if count else ("dim",)


def milliseconds(sign: Sign, seconds: float) -> str:
    """Return a time with the digits that a histogram can give: a tenth below 10 ms, and none above."""
    if math.isnan(seconds):
        return "–"
    value = seconds * 1e3
    return f"{sign} {value:g}" if sign else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _facts(page: Page, tally: Tally, paint: Paint) -> Iterator[str]:
    logs = dict(sorted(page.logs.items(), key=lambda item: _severity(item[0])))
    counted = f"{tally.requests:,} sent, {page.requests:,} measured   {_verdict(page, tally, paint)}"
    drops = paint(f"{page.dropped:,}", "red" if page.dropped else "green")
    produced = " and ".join(f"{page.records.get(signal, 0):,} {things}" for signal, things in SIGNALS.items())
    facts = [
        ("errors", _listed(page.errors, "red", paint)),
        ("logs", _listed(logs, "dim", paint)),
        *_slow(page, paint),
        ("requests", counted),
        ("dropped", f"{drops} of {produced}"),
        *((("kept", f"traces: {_listed(page.kept, 'cyan', paint)}"),) if page.kept else ()),
        *(("exported", _delivery(name, page, paint)) for name in page.exported),
    ]
    if tally.lost:
        facts.append(("no answer", paint(f"to {tally.lost:,} requests", "red")))
    for title, text in facts:
        yield paint(f"{title:<11}", "bold") + text


def _severity(level: str) -> int:
    return SEVERITIES.index(level) if level in SEVERITIES else len(SEVERITIES)


def _verdict(page: Page, tally: Tally, paint: Paint) -> str:
    """Compare both counts: a request whose connection broke may have been served, though nobody saw the answer."""
    more = page.requests - tally.requests
    if not more:
        return paint("✓ the same", "green")
    why = " (a connection broke)" if 0 < more <= tally.broken else ""
    return paint(f"✓ {more:+,}{why}" if why else f"✗ {more:+,}", "green" if why else "yellow")


def _slow(page: Page, paint: Paint) -> Iterable[tuple[str, str]]:
    """Show where an exemplar leads: from a slow bucket to the trace of one request in it."""
    found = [(route.slow, f"{method} {path}") for (method, path), route in page.routes.items() if route.slow]
    if found:
        (seconds, trace), name = max(found)
        yield "slow", f"{name} took {milliseconds('', seconds)} ms   trace {paint(trace, 'cyan')}"


def _delivery(exporter: str, page: Page, paint: Paint) -> str:
    """Say how much of what this exporter takes has arrived."""
    sent, lost = page.exported[exporter], page.lost[exporter]
    signals = ("logs",) if exporter == "log_output" else tuple(SIGNALS)
    arrived = ", ".join(f"{sent.get(each, 0):,} of {page.records.get(each, 0):,} {SIGNALS[each]}" for each in signals)
    gone = sum(lost.get(signal, 0) for signal in signals)
    waiting = sum(page.records.get(signal, 0) - sent.get(signal, 0) for signal in signals) - gone
    rest = "".join(f", {n:,} {state}" for n, state in ((waiting, "waiting"), (gone, "dropped")) if n > 0)
    return f"{exporter} {arrived}{rest}" + ("" if sent else paint("   ✗ does anybody listen?", "red"))


def _listed(counts: dict[str, int], style: Style, paint: Paint) -> str:
    named = ((name.rpartition(".")[2], count) for name, count in counts.items())  # a class without its module
    return "   ".join(f"{name} {paint(f'{count:,}', style)}" for name, count in named) or "none"


def _cost(page: Page, elapsed: float, paint: Paint) -> Iterator[str]:
    requests = max(page.requests, 1)
    total = sum(page.cpu.values())
    of_cpu = f"{total / page.process_cpu:.1%} of the shop's CPU time" if page.process_cpu else "by its own measure"
    yield paint(f"{f'insitu cost {of_cpu}':<40}{'µs a request':>16}{'% of one CPU':>16}", "bold")
    names = {part: PARTS.get(part, part) for part in (*PARTS, *page.cpu) if part in page.cpu}
    for name, seconds in [*((name, page.cpu[part]) for part, name in names.items()), ("all", total)]:
        line = f"  {name:<38}{seconds / requests * 1e6:>16.1f}{seconds / elapsed * 100:>16.2f}"
        yield paint(line, "cyan") if name == "all" else line
    rate = f"At {requests / elapsed:.0f} requests a second"
    yield paint(f"{rate} the CPU naps, caches go cold: the dearest case. Under load: nox -s bench", "dim")
