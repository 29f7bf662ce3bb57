"""The OpenTelemetry SDK as a contender: batch processor, an exporter that discards, an in-memory metric reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

BATCH = 100
"""Operations between two flushes: its queue holds 2,048 spans and drops in silence what finds no room."""


class Discard(SpanExporter):
    """Counts spans and forgets them."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take them."""
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


class Sdk:
    """The SDK with its defaults, as the global providers.

    Args:
        rate: of the parent-based ratio sampler.

    """

    def __init__(self, rate: float = 1.0) -> None:
        self.exporter = Discard()
        self.provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(rate)))
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        trace.set_tracer_provider(self.provider)
        metrics.set_meter_provider(MeterProvider(metric_readers=[InMemoryMetricReader()]))

    def batched(self, work: Callable[[int], object], spans: int) -> Callable[[int], None]:
        """Return `work` with a flush after each BATCH operations; each makes so many spans, none of which is lost."""

        def run(operations: int) -> None:
            before = self.exporter.spans
            for begun in range(0, operations, BATCH):
                work(min(BATCH, operations - begun))
                self.provider.force_flush()
            made = self.exporter.spans - before
            if made != operations * spans:
                raise RuntimeError(f"OpenTelemetry exported {made} spans of {operations * spans}")

        return run
