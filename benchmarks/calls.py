"""What a request calls: a statement by SQLAlchemy, a request by httpx; ten of them below each span of the application.

SQLite in memory answers the one, a pool that knows its answer the other: what is left is what each contender adds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import httpcore
import httpx
import sqlalchemy
from opentelemetry import trace

import insitu
from benchmarks import baseline, ours, timing
from insitu import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 5_000
_EACH: Final = 10


def statement_bare() -> timing.Round:
    """SQLAlchemy alone."""
    return timing.whole(_statements(), CALLS)


def statement_insitu() -> timing.Round:
    """With insitu."""
    ours.start()
    return timing.whole(_drained(_below(insitu.span, _statements())), CALLS, ours.flush)


def statement_otel() -> timing.Round:
    """With opentelemetry-instrumentation-sqlalchemy."""
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # insitu's processes do not load it

    sdk = baseline.Sdk()
    engine = sqlalchemy.create_engine("sqlite://")
    SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)
    span = trace.get_tracer("bench").start_as_current_span
    return timing.whole(_flushed(sdk, _below(span, _statements(engine))), CALLS // 2)


def request_bare() -> timing.Round:
    """Httpx alone."""
    return timing.whole(_requests(), CALLS)


def request_insitu() -> timing.Round:
    """With insitu."""
    ours.start()
    return timing.whole(_drained(_below(insitu.span, _requests())), CALLS, ours.flush)


def request_otel() -> timing.Round:
    """With opentelemetry-instrumentation-httpx and stable HTTP conventions."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor  # insitu's processes do not load it

    sdk = baseline.Sdk()
    HTTPXClientInstrumentor().instrument()
    span = trace.get_tracer("bench").start_as_current_span
    return timing.whole(_flushed(sdk, _below(span, _requests())), CALLS // 2)


def _statements(engine: sqlalchemy.Engine | None = None) -> timing.Work:
    connection = (engine or sqlalchemy.create_engine("sqlite://")).connect()
    statement = sqlalchemy.text("SELECT name FROM sqlite_master WHERE name = :name")

    def work(calls: int) -> None:
        for _ in range(calls):
            connection.execute(statement, {"name": "author"}).all()

    return work


class _Pool(httpcore.ConnectionPool):
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        del request
        return httpcore.Response(204, headers=[(b"content-length", b"0")], content=b"")


def _requests() -> timing.Work:
    transport = httpx.HTTPTransport()
    transport._pool = _Pool()
    client = httpx.Client(transport=transport)

    def work(calls: int) -> None:
        for _ in range(calls):
            client.get("http://prices.example/items/3")

    return work


def _below(span: Callable[..., object], work: timing.Work) -> timing.Work:
    def each(calls: int) -> None:
        for _ in range(calls // _EACH):
            with span("request"):  # type: ignore[attr-defined]
                work(_EACH)

    return each


def _drained(work: timing.Work) -> timing.Work:
    """Let insitu work off what there is as often as the baseline does: both threads at once cost a switch a call."""
    drain = runtime.current().pipeline.drain

    def run(calls: int) -> None:
        for begun in range(0, calls, baseline.BATCH):
            work(min(baseline.BATCH, calls - begun))
            drain(10.0)

    return run


def _flushed(sdk: baseline.Sdk, work: timing.Work) -> timing.Work:
    """As `Sdk.batched`, with a root for each ten calls."""

    def run(calls: int) -> None:
        before = sdk.exporter.spans
        for begun in range(0, calls, baseline.BATCH):
            work(min(baseline.BATCH, calls - begun))
            sdk.provider.force_flush()
        if sdk.exporter.spans - before < calls:
            raise RuntimeError(f"OpenTelemetry exported {sdk.exporter.spans - before} spans of {calls} calls")

    return run
