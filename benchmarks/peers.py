"""The same FastAPI request, measured by other libraries: `python -m benchmarks.peers [--quick] [--write]`.

Each has its defaults, takes everything, and sends nothing: what it would send is discarded as late as the library
allows, and whatever would phone home is switched off. A peer that cannot be measured is listed with the reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks import harness, report, timing
from benchmarks.application import Driver, make

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUESTS: Final = 1_000
BARE: Final = "http_request:bare"


class Peer(NamedTuple):
    """One line of the table."""

    package: str
    contender: str
    what: str


PEERS: Final = (
    Peer("insitu", "http_request:insitu_default", "traces, metrics, logs, errors"),
    Peer("insitu", "http_request:insitu_encoded", "the same, encoded for OTLP"),
    Peer("prometheus-fastapi-instrumentator", "peers:instrumentator", "metrics"),
    Peer("opentelemetry-instrumentation-fastapi", "http_request:otel", "traces, metrics"),
    Peer("elastic-apm", "peers:elastic", "traces, errors"),
    Peer("ddtrace", "peers:datadog", "traces"),
    Peer("sentry-sdk", "peers:sentry", "traces, errors"),
    Peer("logfire", "peers:logfire_pydantic", "traces, metrics, arguments"),
)
HEAD: Final = ("library", "a request", "added", "to insitu's", "it takes")
WIDTHS: Final = (48, 10, 11, 11, 26)
LEFT: Final = (0, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a peer that fails is a line of the table, and no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small rounds, to see that it works; the figures are noise"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    names = [BARE, *(peer.contender for peer in PEERS)]
    harness.progress(f"peers: {', '.join(names)}")
    figures, failures = harness.measure(names, harness.QUICK if given.quick else harness.FULL)
    if BARE in failures:
        print(failures[BARE])
        return 1
    lines: list[tuple[str, ...]] = [("bare FastAPI", f"{figures[BARE]:.0f} µs", "", "", "")]
    lines += [_line(peer, figures) for peer in PEERS]
    print(report.terminal(HEAD, lines, WIDTHS, LEFT))
    for failure in failures.values():
        print(f"not measured: {failure}")
    if given.write:
        left_out = "".join(f"\n\nNot measured: {failure}" for failure in failures.values())
        report.write("peers", f"{report.markdown(HEAD, lines, LEFT)}\n\nMeasured on {report.conditions()}{left_out}")
    return 0


def _line(peer: Peer, figures: dict[str, float]) -> tuple[str, ...]:
    if peer.contender not in figures:
        return (peer.package, "", "", "", "not measured")
    added, ours = figures[peer.contender] - figures[BARE], figures.get(PEERS[0].contender, 0.0) - figures[BARE]
    times = f"{added / ours:.0f} ×" if ours > 0 and peer.package != "insitu" else ""
    name = f"{peer.package} {metadata.version(peer.package)}"
    return (name, f"{figures[peer.contender]:.0f} µs", f"+{added:.1f} µs", times, peer.what)


# --- the contenders
# ---------------------------------------------------------------------------------------------------------


def instrumentator() -> timing.Round:
    """prometheus-fastapi-instrumentator."""
    from prometheus_fastapi_instrumentator import Instrumentator

    app = make()
    Instrumentator().instrument(app)
    return timing.whole(Driver(app).run, REQUESTS)


def logfire_pydantic() -> timing.Round:
    """Logfire, its spans given to a batch processor that discards them."""
    os.environ["LOGFIRE_SEND_TO_LOGFIRE"] = "false"
    import logfire
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from benchmarks.baseline import Discard

    app = make()
    logfire.configure(
        send_to_logfire=False,
        console=False,
        additional_span_processors=[BatchSpanProcessor(Discard())],
        metrics=logfire.MetricsOptions(additional_readers=[InMemoryMetricReader()]),
    )
    logfire.instrument_fastapi(app)
    return timing.whole(Driver(app).run, REQUESTS, logfire.force_flush)


def sentry() -> timing.Round:
    """Sentry with every trace taken, and a transport that discards envelopes."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Discard(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            del envelope

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Discard, traces_sample_rate=1.0)
    return timing.whole(Driver(make()).run, REQUESTS, sentry_sdk.flush)


def datadog() -> timing.Round:
    """Datadog's tracer; its traces are dropped by a filter of the kind that its users write, before the agent."""
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_AGENT_URL="http://127.0.0.1:9",
        DD_CRASHTRACKING_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
    )
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    class Drop(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            del trace

    tracer.configure(trace_processors=[Drop()])
    ddtrace.patch(fastapi=True)
    return timing.whole(Driver(make()).run, REQUESTS, tracer.flush)


def elastic() -> timing.Round:
    """Elastic's agent, what it encodes discarded instead of sent."""
    from elasticapm.contrib.starlette import ElasticAPM, make_apm_client
    from elasticapm.transport.http import Transport

    Transport.send = lambda _, data, forced_flush=False: None  # noqa: ARG005 its `DISABLE_SEND` would not even encode
    Transport.fetch_server_info = lambda _: None
    client = make_apm_client(
        {
            "SERVICE_NAME": "bench",
            "SERVER_URL": "http://127.0.0.1:9",
            "CENTRAL_CONFIG": False,
            "CLOUD_PROVIDER": False,
        }
    )
    app = make()
    app.add_middleware(ElasticAPM, client=client)
    return timing.whole(Driver(app).run, REQUESTS, client._transport.flush)


if __name__ == "__main__":
    sys.exit(main())
