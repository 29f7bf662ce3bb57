"""An exception ten frames deep, captured inside a span; raising it is the same for everybody and is taken off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

import insitu
from benchmarks import baseline, ours, timing

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = 10
ERRORS = 2_000


def insitu_capture() -> timing.Round:
    """`insitu.capture` with the defaults."""
    ours.start()
    return timing.whole(lambda errors: _ours(errors, insitu.capture), ERRORS, ours.flush)


def insitu_encoded() -> timing.Round:
    """`insitu.capture`, the stack trace written out for OTLP."""
    ours.start_exporting()
    return timing.whole(lambda errors: _ours(errors, insitu.capture), ERRORS, ours.flush)


def insitu_raise() -> timing.Round:
    """The same span without the capture."""
    ours.start()
    return timing.whole(lambda errors: _ours(errors, _ignore), ERRORS, ours.flush)


def insitu_raise_encoded() -> timing.Round:
    """The same span without the capture, encoded for OTLP."""
    ours.start_exporting()
    return timing.whole(lambda errors: _ours(errors, _ignore), ERRORS, ours.flush)


def otel_capture() -> timing.Round:
    """`span.record_exception` of the SDK."""
    sdk = baseline.Sdk()
    return timing.whole(sdk.batched(lambda errors: _otel(errors, capture=True), 1), ERRORS // 4)


def otel_raise() -> timing.Round:
    """The same span without the capture."""
    sdk = baseline.Sdk()
    return timing.whole(sdk.batched(lambda errors: _otel(errors, capture=False), 1), ERRORS)


def _ours(errors: int, capture: Callable[[BaseException], None]) -> None:
    for _ in range(errors):
        with insitu.span("charge"):
            try:
                fail(FRAMES)
            except ValueError as error:
                capture(error)


def _otel(errors: int, *, capture: bool) -> None:
    start = trace.get_tracer("bench").start_as_current_span
    for _ in range(errors):
        with start("charge") as span:
            try:
                fail(FRAMES)
            except ValueError as error:
                if capture:
                    span.record_exception(error)


def _ignore(_: BaseException) -> None:
    pass


def fail(frames: int) -> None:
    """Raise from so many frames below the caller's, which is the first."""
    if frames > 2:
        fail(frames - 1)
    raise ValueError("no such card")
