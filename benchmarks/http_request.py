"""A request to a FastAPI application with FastAPI's own defaults: what each contender adds to it."""

from __future__ import annotations

import os

import insitu
from benchmarks import baseline, ours, timing
from benchmarks.application import Driver, Unchecked, make

REQUESTS = 2_000
OTEL_SPANS = 3
"""SERVER, and one for each of the two messages sent."""


def bare() -> timing.Round:
    """The application alone."""
    return timing.whole(Driver(make()).run, REQUESTS)


def unchecked() -> timing.Round:
    """The application alone, without FastAPI's own telemetry check."""
    return timing.whole(Driver(make(Unchecked)).run, REQUESTS)


def insitu_default() -> timing.Round:
    """Every default signal; nothing is sent."""
    ours.start()
    return _ours()


def insitu_encoded() -> timing.Round:
    """Every default signal, redacted and encoded for OTLP."""
    ours.start_exporting()
    return _ours()


def insitu_unsampled() -> timing.Round:
    """No trace is recorded; requests are counted all the same."""
    ours.start(sample=0.0)
    return _ours()


def _ours() -> timing.Round:
    return ours.measured(Driver(insitu.instrument(make())).run, REQUESTS)


def otel() -> timing.Round:
    """opentelemetry-instrumentation-fastapi with its defaults and stable HTTP conventions."""
    return _otel(1.0, OTEL_SPANS)


def otel_unsampled() -> timing.Round:
    """The same at rate 0."""
    return _otel(0.0, 0)


def _otel(rate: float, spans: int) -> timing.Round:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # insitu's processes do not load it

    sdk = baseline.Sdk(rate)
    app = make()
    FastAPIInstrumentor.instrument_app(app)
    return timing.whole(sdk.batched(Driver(app).run, spans), REQUESTS)
