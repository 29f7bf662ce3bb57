"""Single parts of insitu, each driven alone: an encoder, a huge span, a value in a histogram, reading the system."""

from __future__ import annotations

import logging
import math
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider

import insitu
from benchmarks import failures, timing
from insitu import testing
from insitu.analysis import grouping
from insitu.core.clock import SYSTEM, Clock
from insitu.core.histogram import Histogram
from insitu.exporters import otlp_encoding as otlp
from insitu.signals.errors import describe
from insitu.signals.resources import GarbageCollection, ProcessGroup, Resources

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

SPANS = 6_400
A_TRACE = 64
HUGE = 10
VALUES = 100_000
READS = 200
COLLECTIONS = 20_000
ERRORS = 20_000

_BIG = "x" * 10_000_000
_MANY = {f"key {number}": number for number in range(1_000)}
_EVENTS = [f"event {number}" for number in range(10_000)]
_DURATIONS = [random.Random(2).lognormvariate(-4, 1) for _ in range(1_000)]


def _attributes(number: int) -> dict[str, Any]:
    return {"http.request.method": "GET", "url.path": f"/orders/{number}", "http.response.status_code": 200}


def encoder() -> timing.Round:
    """A span of three attributes as OTLP, 64 of one trace together."""
    with testing.recording() as recorded:
        with insitu.span("serve"):
            for number in range(A_TRACE - 1):
                with insitu.span("GET /orders/{id}", **_attributes(number)):
                    pass
        spans = recorded.spans

    def work(operations: int) -> None:
        for _ in range(operations // A_TRACE):
            head = otlp.trace_fields(spans[0].trace)
            otlp.scoped(spans[0].scope, [otlp.span(span, head) for span in spans])

    return timing.whole(work, SPANS)


def official_encoder() -> timing.Round:
    """The same by OpenTelemetry's encoder."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    spans = [tracer.start_span("GET /orders/{id}", attributes=_attributes(number)) for number in range(A_TRACE)]
    for span in spans:
        span.end()

    def work(operations: int) -> None:
        for _ in range(operations // A_TRACE):
            encode_spans(spans).SerializeToString()  # type: ignore[arg-type]

    return timing.whole(work, SPANS)


def huge_span() -> timing.Round:
    """A span with a value of 10 MB, 1,000 attributes and 10,000 events, of which the limits leave little."""
    logging.disable(logging.WARNING)
    insitu.init(service="bench", store=None, libraries=())
    return timing.whole(lambda spans: _fill(spans, lambda: insitu.span("huge")), HUGE, insitu.flush)


def huge_span_otel() -> timing.Round:
    """The same by OpenTelemetry's SDK."""
    logging.disable(logging.WARNING)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("shop")
    return timing.whole(lambda spans: _fill(spans, lambda: tracer.start_as_current_span("huge")), HUGE)


def _fill(spans: int, make: Callable[[], AbstractContextManager[Any]]) -> None:
    for _ in range(spans):
        with make() as span:
            span.set_attribute("big", _BIG)
            span.set_attributes(_MANY)
            for name in _EVENTS:
                span.add_event(name)


def sketch() -> timing.Round:
    """A value in a histogram of exponential buckets."""
    histogram = Histogram()

    def work(values: int) -> None:
        record = histogram.record
        for _ in range(values // len(_DURATIONS)):
            for value in _DURATIONS:
                record(value)

    return timing.whole(work, VALUES)


def logarithms() -> timing.Round:
    """Four logarithms and a sum, of which such a histogram needs one at least."""

    def work(values: int) -> None:
        total, log = 0.0, math.log
        for _ in range(values // len(_DURATIONS)):
            for value in _DURATIONS:
                total += log(value) + log(value) + log(value) + log(value)

    return timing.whole(work, VALUES)


def process() -> timing.Round:
    """What is read of this process every five seconds."""
    group = ProcessGroup(SYSTEM)
    return _milliseconds(lambda: list(group.sample(1)))


def system() -> timing.Round:
    """Everything that is read of process, machine, container and disk, at once."""
    ahead = 0

    def later() -> int:
        return SYSTEM.monotonic() + ahead

    resources = Resources(Clock(SYSTEM.wall, later), lambda *_: None, Path(tempfile.gettempdir()))

    def read() -> None:
        nonlocal ahead
        ahead += 100 * 10**9
        for _ in resources.groups:
            list(resources.sample())

    return _milliseconds(read)


def _milliseconds(read: Callable[[], object]) -> timing.Round:
    measured = timing.whole(lambda times: [read() for _ in range(times)], READS)
    return lambda effort: measured(effort) / 1000  # type: ignore[operator]


def collection() -> timing.Round:
    """What is done at the beginning and the end of each garbage collection."""
    garbage = GarbageCollection(SYSTEM)
    garbage.close()

    def work(collections: int) -> None:
        for _ in range(collections):
            garbage.measure("start", {"generation": 0})
            garbage.measure("stop", {"generation": 0})

    return timing.whole(work, COLLECTIONS)


def fingerprint() -> timing.Round:
    """The fingerprint of an error ten frames deep that says what the one before it said."""
    return _fingerprints(["no stock of lamp"])


def fingerprint_of_another() -> timing.Round:
    """The same where each says something else."""
    return _fingerprints([f"no stock of lamp {number}" for number in range(100)])


def _fingerprints(messages: list[str]) -> timing.Round:
    try:
        failures.fail(failures.FRAMES)
    except ValueError as error:
        record = describe(error)

    def work(errors: int) -> None:
        for _ in range(errors // len(messages)):
            for record.message in messages:
                grouping.fingerprint(record)

    return timing.whole(work, ERRORS)
