"""A recorded span with three attributes: traces of a root with nine children, as a request with its work has."""

from __future__ import annotations

from opentelemetry import trace

import insitu
from benchmarks import baseline, ours, timing

SPANS = 10
TRACES = 1_000


def insitu_span() -> timing.Round:
    """`insitu.span`; those that matter are kept and written."""
    ours.start()
    return _ours()


def insitu_encoded() -> timing.Round:
    """The same, and every one encoded for OTLP."""
    ours.start_exporting()
    return _ours()


def _ours() -> timing.Round:
    def work(spans: int) -> None:
        for _ in range(spans // SPANS):
            with insitu.span("serve", tier="gold", items=3, ratio=0.5):
                for _ in range(SPANS - 1):
                    with insitu.span("load cart", tier="gold", items=3, ratio=0.5):
                        pass

    return timing.caller_and_whole(work, TRACES * SPANS, ours.flush)


def insitu_by_api() -> timing.Round:
    """Insitu as OpenTelemetry's provider, encoded for OTLP: what libraries see."""
    ours.start_exporting()
    return timing.caller_and_whole(_by_api, TRACES * SPANS, ours.flush)


def otel() -> timing.Round:
    """OpenTelemetry's SDK."""
    sdk = baseline.Sdk()
    return timing.caller_and_whole(sdk.batched(_by_api, 1), TRACES * SPANS // 4)


def _by_api(spans: int) -> None:
    start = trace.get_tracer("bench").start_as_current_span
    for _ in range(spans // SPANS):
        with start("serve", attributes={"tier": "gold", "items": 3, "ratio": 0.5}):
            for _ in range(SPANS - 1):
                with start("load cart", attributes={"tier": "gold", "items": 3, "ratio": 0.5}):
                    pass
