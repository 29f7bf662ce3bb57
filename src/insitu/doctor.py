"""What is instrumented, what is not and why, what is done twice, and what it costs: the findings of `insitu doctor`.

Each examination yields findings, in the order in which they are read. None of them sends anything, except `reachable`,
which `--check` asks for.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib
import logging
import os
import platform
import signal as signals
import sys
import time
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace as otel_trace

from insitu import config, coverage, runtime
from insitu.adapters import automatic, exits, fastapi, statements
from insitu.adapters.choice import adapter_of
from insitu.core import guard
from insitu.core.records import Scope
from insitu.core.transport import Transport
from insitu.exporters import otlp_options
from insitu.findings import Finding
from insitu.signals import block, tracing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGES: Final = (
    *("insitu", "opentelemetry-api", "opentelemetry-sdk", "prometheus-client", "orjson", "urllib3"),
    *("fastapi", "starlette", "uvicorn", "gunicorn", "httpx", "SQLAlchemy"),
)
PEERS: Final = {
    "ddtrace": "ddtrace patches the libraries as well",
    "elasticapm": "Elastic APM measures each request as well",
    "logfire": "logfire brings OpenTelemetry's SDK and a provider of its own",
    "newrelic": "New Relic's agent patches the libraries as well",
    "sentry_sdk": "sentry-sdk times each request as well, where its traces_sample_rate is set",
}
"""Other monitors: harmless beside insitu, and paid for."""
OTHER_VARIABLES: Final = frozenset({*config.SWITCHES, "INSITU_INSTANCE", "INSITU_DEMO_SECONDS", "INSITU_BACKENDS"})
SPANS: Final = 2_000
REQUESTS: Final = 500
ROUNDS: Final = 3
_SPANS_A_TRACE: Final = 10
_SCOPE: Final = Scope("insitu.doctor")
_LOADING: Final = "importing the application"
_CHECK_SECONDS: Final = 1.0


class Cost(NamedTuple):
    """CPU microseconds that insitu adds, in this process and now."""

    span: float
    request: float
    statement: float


def examine(target: str, environ: Mapping[str, str], *, check: bool = False) -> Iterator[Finding]:
    """Yield everything there is to say about an application, which is imported for it; at the end insitu is shut down.

    Args:
        target: `module:app` as uvicorn takes it, `module:make()` as gunicorn does; "" looks at this environment alone,
            as `insitu.init()` would see it.
        environ: the environment.
        check: whether exporters' addresses are tried.

    """
    yield from versions()
    with warnings() as warned:
        app, failure = loaded(target) if target else (None, None)
        if not target:
            runtime.init()
    if failure is not None:
        said = f"{type(failure).__name__}: {guard.render(failure, 300)}"
        yield Finding(
            "application", "problem", f"{target} cannot be imported: {said}", "start it by hand and mend that"
        )
    yield from service(environ)
    if app is not None:
        yield from application(app)
    yield from provider()
    if _running() is not None:
        yield from coverage.of_libraries()
    yield from peers()
    yield from exporters(environ, check=check)
    yield from options(environ, warned)
    runtime.shutdown(timeout=1.0)


# --- bringing the application in
# ---------------------------------------------------------------------------------------------


def loaded(target: str) -> tuple[Any, BaseException | None]:
    """Import `module:app` (`app` by default), or call `module:make()`, with the current folder first on the path.

    Returns the application, or what failed.
    """
    failed: list[BaseException] = []
    sys.path.insert(0, str(Path.cwd()))
    guard.watch(failed.append)
    try:
        with redirect_stdout(sys.stderr):
            app = guard.call_in_worker(_LOADING, _import, target)
    finally:
        guard.watch(None)
    guard.counts.pop(_LOADING, None)
    return app, failed[-1] if app is None and failed else None


def _import(target: str) -> Any:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in (path or "app").removesuffix("()").split("."):
        found = getattr(found, name)
    return found() if path.endswith("()") else found


@contextmanager
def warnings() -> Iterator[list[str]]:
    """Keep what insitu warns of in a block instead of printing it."""
    kept: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    propagated = guard.logger.propagate
    guard.logger.addHandler(handler)
    guard.logger.propagate = False
    try:
        yield kept
    finally:
        guard.logger.removeHandler(handler)
        guard.logger.propagate = propagated


# --- findings
# ----------------------------------------------------------------------------------------------------------------


def versions() -> Iterator[Finding]:
    """What runs here."""
    interpreter = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    yield Finding("process", "ok", interpreter)
    installed = [f"{name} {version}" for name in PACKAGES if (version := version_of(name))]
    yield Finding("process", "ok", ", ".join(installed))


def version_of(package: str) -> str:
    """Return the version of an installed package, "" when it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def service(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether insitu runs, and under which name."""
    running = _running()
    if name := config.disabled_by(environ):
        yield Finding("service", "problem", f"{name} switches everything off", f"unset {name}")
    elif running is None:
        fix = "call insitu.instrument(app) after app = FastAPI()"
        yield Finding("service", "problem", "nothing starts insitu in this application", fix)
    if running is None:
        return
    named = running.options.service
    if named.name == config.UNNAMED:
        fix = "insitu.init(service=...), or OTEL_SERVICE_NAME"
        yield Finding("service", "note", "the service has no name", fix)
    else:
        more = " ".join(filter(None, (named.version, named.environment and f"in {named.environment}")))
        yield Finding("service", "ok", f"{named.name} {more}".strip())
    if not running.options.store.folder:
        fix = "leave store at its default, or name a folder, if the service has several"
        yield Finding("service", "note", "without a store each worker's /metrics speaks for itself", fix)


def application(app: Any) -> Iterator[Finding]:
    """What is on the application, and what is on it twice."""
    kind = f"{type(app).__module__.partition('.')[0]}.{type(app).__name__}"
    adapter = adapter_of(app)
    if adapter not in {"fastapi", "flask"}:
        yield from _django_application(kind) if kind.startswith("django.") else _plain_application(app, kind)
        return
    if not getattr(app, "__insitu__", False):
        yield _not_instrumented(kind, "insitu.instrument(app)")
    else:
        yield Finding("application", "ok", f"{kind} is instrumented: requests, errors, own paths")
    if adapter == "flask":
        return
    telemetry = getattr(app, "_telemetry", None)
    if isinstance(telemetry, dict) and not telemetry.get("tracing"):
        yield Finding("application", "ok", "FastAPI's own telemetry is off here: a second server span for each request")
    yield from _twice(app)
    yield from _shadowed(app)


def _not_instrumented(kind: str, fix: str) -> Finding:
    if automatic.watching:
        return Finding("application", "ok", f"{kind} is instrumented by `insitu run` when it first serves")
    return Finding("application", "problem", f"{kind} is not instrumented", f"{fix}; or start it by `insitu run`")


def _plain_application(app: Any, kind: str) -> Iterator[Finding]:
    if type(app).__module__ in {"insitu.adapters.asgi", "insitu.adapters.wsgi"}:
        interface = type(app).__module__.rpartition(".")[2].upper()
        yield Finding("application", "ok", f"a bare {interface} application is instrumented; its routes are not known")
    elif callable(app):
        fix = f"app = insitu.instrument(app): a bare {adapter_of(app).upper()} callable comes back wrapped"
        yield _not_instrumented(kind, fix)
    else:
        yield Finding("application", "problem", f"{kind} is no application", "name the application: module:app")


def _django_application(kind: str) -> Iterator[Finding]:
    used = list(sys.modules["django.conf"].settings.MIDDLEWARE)
    if automatic.DJANGO not in used:
        yield _not_instrumented(kind, f'MIDDLEWARE = ["{automatic.DJANGO}", *MIDDLEWARE] in the settings')
        return
    yield Finding("application", "ok", f"{kind} is instrumented: requests, errors, own paths")
    if used[0] != automatic.DJANGO:
        before = ", ".join(used[: used.index(automatic.DJANGO)])
        text = f"{before}: in front of insitu's middleware, and so not measured"
        yield Finding("application", "note", text, "put insitu's first")


def _twice(app: Any) -> Iterator[Finding]:
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        return
    fix = "drop FastAPIInstrumentor.instrument_app(app), or the opentelemetry-instrument command"
    wraps = getattr(getattr(app, "build_middleware_stack", None), "__globals__", {}).get("__name__", "")
    if getattr(app, "__insitu__", False):
        order = "" if wraps == "insitu.adapters.fastapi" else ", and outside of insitu: two server spans"
        text = f"opentelemetry-instrumentation-fastapi is on the same application{order}; each request pays for both"
        yield Finding("application", "problem", text, fix)
    else:
        yield Finding("application", "note", "opentelemetry-instrumentation-fastapi is on the application", fix)


def _shadowed(app: Any) -> Iterator[Finding]:
    running = _running()
    if running is None:
        return
    for path in sorted(running.api().paths):
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""}
        ours: Any = SimpleNamespace(starlette=app)
        if guard.call("doctor.routes", fastapi.Middleware.owns, ours, scope):
            text = f"the application has a route of its own for {path}, which wins: insitu's page is not served"
            yield Finding("application", "note", text, f"move the application's {path} if Prometheus shall read insitu")
        else:
            yield Finding("application", "ok", f"{path} is served")


def provider() -> Iterator[Finding]:
    """Whether spans made through OpenTelemetry's API reach us, and us alone."""
    found = otel_trace.get_tracer_provider()
    if found is tracing.provider:
        yield Finding("opentelemetry", "ok", "insitu is the provider: spans of the OpenTelemetry API come here")
    elif not isinstance(found, otel_trace.ProxyTracerProvider):
        text = (
            f"a provider of {type(found).__module__} was set before insitu: its spans are paid for twice, or not seen"
        )
        yield Finding("opentelemetry", "problem", text, "call insitu.init() before anything sets a TracerProvider")


def peers() -> Iterator[Finding]:
    """Other monitors in the same process."""
    for module, text in PEERS.items():
        if module in sys.modules:
            yield Finding("beside", "note", f"{text}: every request pays for both", "remove one once you have compared")


def exporters(environ: Mapping[str, str], *, check: bool) -> Iterator[Finding]:
    """Where signals go."""
    running = _running()
    if running is None:
        return
    if not running.pipeline.senders:
        fix = "OTEL_EXPORTER_OTLP_ENDPOINT sends everything; INSITU_EXPORTERS=console shows it here"
        yield Finding("exporters", "note", "nothing is sent anywhere; /metrics can be scraped", fix)
    for sender in running.pipeline.senders:
        if sender.name != "otlp":
            yield Finding("exporters", "ok", f"{sender.name} is on")
            continue
        for signal, target in otlp_options.Options.from_environ(environ).targets():
            address = running.redactor.url(target.url)
            yield (
                reachable(signal, address, target)
                if check
                else Finding("exporters", "ok", f"otlp: {signal} to {address} (--check tries it)")
            )


def reachable(signal: str, address: str, target: otlp_options.Target) -> Finding:
    """Send an empty OTLP message, which every receiver takes."""
    transport = Transport(
        user_agent="insitu-doctor",
        wait=lambda _: True,
        timeout=_CHECK_SECONDS,
        headers=target.headers,
        certificate=target.certificate,
        client_certificate=target.client_certificate,
        client_key=target.client_key,
    )
    reply = transport.post(target.url, b"", content_type="application/x-protobuf", deadline=_CHECK_SECONDS)
    transport.close()
    if reply.outcome == "ok":
        return Finding("exporters", "ok", f"otlp: {signal} to {address}: it answers")
    what = f"status {reply.status}" if reply.status else "no answer"
    fix = "start the receiver, or mend OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"
    return Finding("exporters", "problem", f"otlp: {signal} to {address}: {what} ({reply.detail})", fix)


def options(environ: Mapping[str, str], warned: list[str]) -> Iterator[Finding]:
    """What was asked for, what of it makes no sense, and what surprises people."""
    for text in warned:
        if _LOADING not in text:
            yield Finding("options", "problem", text.removeprefix("insitu: "))
    known = {variable for setting in config.SETTINGS for variable in setting.variables} | OTHER_VARIABLES
    for name in sorted(environ):
        if name.startswith("INSITU_") and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            fix = f"did you mean {near[0]}?" if near else "`insitu options` lists them"
            yield Finding("options", "problem", f"{name} is set, and is no option", fix)
    running = _running()
    if running is not None:
        yield from _surprises(running.options)


def _surprises(chosen: config.Options) -> Iterator[Finding]:
    if chosen.redact.on:
        yield Finding("options", "ok", "secrets are taken out of every signal")
    else:
        yield Finding("options", "note", "redaction is off: secrets leave as they are", "unset redact / INSITU_REDACT")
    if chosen.tracing.sampler or chosen.tracing.sample < 1:
        asked = chosen.tracing.sampler or f"{chosen.tracing.sample:.0%}"
        yield Finding("options", "note", f"traces are sampled ({asked}); requests and errors are counted all the same")
    if not chosen.web.token:
        fix = "INSITU_TOKEN, if Prometheus runs elsewhere"
        yield Finding("options", "note", "/metrics answers this machine only", fix)
    handled = chosen.process.signals and getattr(signals.getsignal(signals.SIGTERM), "__module__", "") != exits.__name__
    if handled:
        fix = "call insitu.init() behind it, or deliver in it: insitu.flush()"
        yield Finding("options", "note", "another handler of SIGTERM stands before insitu's, and delivers nothing", fix)


def _running() -> runtime.Runtime | None:
    try:
        return runtime.current()
    except RuntimeError:
        return None


# --- what it costs
# -----------------------------------------------------------------------------------------------------------


class _Discard:
    """A sink, so that redaction runs as it does with an exporter."""

    def accept(self, records: Any) -> None:
        """Take some records, and forget them."""


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def cost() -> Cost:
    """Measure now, on this machine, in this process: the least of ROUNDS rounds, the background work included.

    Nothing that is recorded here is sent. insitu must not be running.
    """
    given = {"exporters": (), "libraries": (), "service": "doctor"}
    measured = runtime.Runtime(config.read(given, {}, Path(os.devnull)), {}, threads=False)
    measured.pipeline.sinks.append(_Discard())
    runtime.adopt(measured)
    try:
        wrapped = measured.instrument(_answer)
        drain = measured.pipeline.drain
        spans = min(_timed(_make_spans, drain) for _ in range(ROUNDS)) / SPANS
        with_us = min(_timed(lambda: asyncio.run(_serve(wrapped)), drain) for _ in range(ROUNDS))
        bare = min(_timed(lambda: asyncio.run(_serve(_answer)), drain) for _ in range(ROUNDS))
        asked = min(_timed(_ask, drain) for _ in range(ROUNDS)) / SPANS
    finally:
        runtime.shutdown(timeout=1.0)
    added = max(0.0, with_us - bare) / REQUESTS
    return Cost(round(spans, 2), round(added, 2), round(asked, 2))


def _timed(work: Any, drain: Any) -> float:
    """Return the CPU time of the whole process, in microseconds."""
    began = time.process_time_ns()
    work()
    drain(10.0)
    return (time.process_time_ns() - began) / 1_000


def _make_spans() -> None:
    for _ in range(SPANS // _SPANS_A_TRACE):
        with block.span("measured", number=0, tier="gold", fast=True):
            for number in range(1, _SPANS_A_TRACE):
                with block.span("measured", number=number, tier="gold", fast=True):
                    pass


def _ask() -> None:
    shop = statements.Database("postgresql", "shop", "127.0.0.1", 5432)
    for _ in range(SPANS // _SPANS_A_TRACE):
        with block.span("measured") as parent:
            for _ in range(_SPANS_A_TRACE - 1):
                statements.begin("SELECT name FROM author WHERE id = %s", shop, 1, parent, _SCOPE).end()


async def _serve(app: Any) -> None:
    async def send(_message: Any) -> None:
        pass

    headers = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"insitu doctor"), (b"accept", b"*/*")]
    for _ in range(REQUESTS):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/measured",
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "headers": headers,
            "client": ("127.0.0.1", 40_000),
            "server": ("127.0.0.1", 8_000),
        }
        await app(scope, None, send)
