"""The only assembler: options become a pipeline with its sinks and jobs, and the signals are attached to it."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from insitu.adapters import parts
from insitu.adapters.parts import Parts
from insitu.analysis import grouping
from insitu.analysis.statements import Statements
from insitu.config import W3C, Options, read
from insitu.core import clock as clocks
from insitu.core import guard
from insitu.core.budget import EVERYTHING, Ladder, Meter
from insitu.core.cleaning import Cleaner
from insitu.core.pipeline import EXIT_SECONDS, Pipeline
from insitu.core.ports import ExporterContext
from insitu.core.records import LOG_BYTES, Family, LocalTrace, LogRecord, Resource
from insitu.core.redact import Redactor
from insitu.core.sender import Sender
from insitu.providers import become_global, exporters_of, propagator_of, sampler_of
from insitu.signals import event_loop, tracing
from insitu.signals.errors import errors
from insitu.signals.identity import resource
from insitu.signals.limits import Limits
from insitu.signals.logs import WARN, logs
from insitu.signals.metrics import registry
from insitu.signals.requests import Requests
from insitu.signals.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from insitu.core.budget import Detail
    from insitu.core.clock import Clock
    from insitu.core.ports import Exporter
    from insitu.core.records import Frame, Record

T = TypeVar("T")

WATCH_SECONDS: Final = 0.25
"""How often the worker looks whether an event loop is overdue; it wakes twice a second at least."""

PUBLISH_SECONDS: Final = 0.5
"""How old what other workers count is at most, unless they count so much that telling it takes a hundredth of that."""

SAMPLE_SECONDS: Final = 10.0
"""How often the store takes down what every metric is worth."""

LATE: Final = {
    "fastapi": "insitu.adapters.fastapi",
    "asgi": "insitu.adapters.asgi",
    "automatic": "insitu.adapters.automatic",
    "choice": "insitu.adapters.choice",
    "exits": "insitu.adapters.exits",
    "flask": "insitu.adapters.flask",
    "wsgi": "insitu.adapters.wsgi",
    "libraries": "insitu.adapters.libraries",
    "readable": "insitu.signals.readable",
    "prometheus": "insitu.exporters.prometheus",
    "prometheus_registry": "insitu.exporters.prometheus_registry",
    "jsonlines": "insitu.exporters.jsonlines",
    "api": "insitu.web.api",
    "keeping": "insitu.analysis.keeping",
    "folder": "insitu.store.folder",
    "writer": "insitu.store.writer",
    "intervals": "insitu.signals.intervals",
    "workers": "insitu.store.workers",
    "locks": "insitu.store.locks",
    "reader": "insitu.store.reader",
    "spool": "insitu.store.spool",
    "monitoring": "insitu.web.monitoring",
    "neighbours": "insitu.store.neighbours",
    "pages": "insitu.web.pages",
}
"""Rooms loaded when they are first needed: sixty small modules cost 125 ms."""
_WSGI: Final = frozenset(("flask", "wsgi"))


def _late(name: str) -> Any:
    return importlib.import_module(LATE[name])


class Runtime:
    """One start of insitu in this process.

    Args:
        options: what to do.
        environ: for exporters, which read their own standard variables.
        clock: time; tests bring their own.
        threads: False leaves all work to `flush`, for tests.

    """

    def __init__(
        self, options: Options, environ: Mapping[str, str], clock: Clock = clocks.SYSTEM, *, threads: bool = True
    ) -> None:
        self.options = options
        self.environ = environ
        self.clock = clock
        self.meter = Meter(clock)
        redact = options.redact
        self.redactor = Redactor(
            keys=redact.keys, allow=redact.allow, patterns=redact.patterns, emails=redact.emails, enabled=redact.on
        )
        self.resource = self._resource()
        self.pipeline = Pipeline(
            clock, self.meter, count=self._count, keep=self._keep, redact=Cleaner(self.redactor).clean, threads=threads
        )
        self.statements = Statements(round(options.tracing.slow_statement * 1e9), registry)
        self.ladder = Ladder(options.process.budget, self.meter, clock)
        self.resources = Resources(clock, self._blocked)
        self.pipeline.forked.append(self._forked)
        self.pipeline.every(1.0, self._keep_within_budget, "budget")
        self.pipeline.every(1.0, self.resources.sample, "resources")
        self.pipeline.every(WATCH_SECONDS, self.resources.watch, "event_loop")
        self._threads = threads
        self.asked = True
        """False where `insitu run` has started it: what the application says then comes later, and holds."""
        self._api: Any = None
        self.keeper: Any = None
        self.store: Any = None
        self.workers: Any = None

    def start(self) -> None:
        """Attach the signals, the exporters and the libraries."""
        options = self.options
        limits = Limits(
            options.tracing.attributes, options.tracing.events, options.tracing.links, options.tracing.value_length
        )
        registry.wall, registry.on, registry.clean = self.clock.wall, True, self.redactor.attributes
        registry.counted = self.pipeline.work
        chosen = options.tracing.propagators
        self.propagator = propagator_of(chosen)
        requests.configure(options.tracing.exclude, None if chosen == W3C else self.propagator)
        tracing.provider.readable = lambda span, sdk_resource: _late("readable").readable(span, sdk_resource)
        tracing.provider.attach(self.pipeline, sampler_of(options.tracing), limits, self._sdk_resource)
        errors.attach(self.pipeline)
        become_global(self.propagator, lambda: _late("readable").JoinedProcessor(tracing.provider))
        for make in exporters_of(options.export.exporters, self.environ):
            self._add_exporter(make)
        if options.export.log_output:
            self._add_exporter(_late("jsonlines").writer(options.export.log_output))
        requests.exemplars_are_kept, requests.intervals = False, None
        if options.store.folder:
            guard.call("store", self._open_store)
        logs.attach(self.pipeline)
        _late("libraries").instrument(options.process.libraries)
        _late("exits").watch(_flush_at_exit)
        if options.process.signals:
            _late("exits").on_sigterm(shutdown)

    def stop(self, timeout: float) -> bool:
        """Deliver what there is and fall silent.

        Instruments, tracers and wraps stay, and do nothing until the next start.
        """
        tracing.provider.detach()
        self._reduce(EVERYTHING)
        logs.attach(None)
        errors.attach(None)
        done = self.pipeline.close(timeout)
        registry.on = False
        self.resources.close()
        return done

    def flush(self, timeout: float, *, hurry: bool = False) -> bool:
        """Hand on, store and send everything recorded so far. False when something was lost, or time ran out."""
        began = self.clock.cpu()
        done = self.pipeline.flush(timeout, hurry=hurry)
        if self.store is not None:
            self.store.flush(self.collect())
        if self.workers is not None:
            guard.call("workers", self.workers.publish_at_once)
        self.meter.add("flush", self.clock.cpu() - began)
        return done

    def instrument(self, app: T) -> T:
        """Put the middleware around or into an application."""
        name = _late("choice").adapter_of(app)
        if not name:
            text = (
                "insitu: a %s is no application; pass that of FastAPI, Starlette or Flask, or an ASGI or WSGI callable"
            )
            guard.warn("instrument", text, type(app).__name__)
            return app
        adapter = _late(name)
        make = self._wsgi_middleware if name in _WSGI else self._middleware
        return adapter.instrument(app, make) if hasattr(adapter, "instrument") else make(adapter.Middleware, app)  # type: ignore[no-any-return]

    def _middleware(self, kind: Any, app: Any) -> Any:
        header = self.options.tracing.header.lower().encode() or None
        return kind(
            app,
            requests,
            self.api(),
            read=self._read,
            flush=_flush_at_exit,
            loop_started=self._loop_started,
            header=header,
        )

    def parts(self) -> Parts:
        """Return what an adapter works with that its framework makes."""
        return Parts(requests, self.api(), self._read, self.options.tracing.header or None, self._loop_started)

    def _wsgi_middleware(self, kind: Any, app: Any) -> Any:
        return kind(app, self.parts())

    def _read(self, function: Callable[[], Any]) -> Any:
        return current().pipeline.read(function) if _runtime is not None else self.pipeline.read(function)

    def _loop_started(self) -> None:
        (current() if _runtime is not None else self).resources.attach_loop()

    # --- what the pipeline knows only as callables ---

    def _count(self, records: Sequence[Record]) -> None:
        messages: list[LogRecord] = []
        for record in records:
            if isinstance(record, LocalTrace):
                if not requests.count(record) or len(record.spans) > 1:  # a request alone has no statements
                    guard.call("statements", self.statements.look, record)
                if record.errors:
                    guard.call("grouping", grouping.mark, record)
                    errors.count(record.errors.values())
            elif isinstance(record, LogRecord):
                if record.error is not None:
                    guard.call("grouping", grouping.mark, record)
                messages.append(record)
            else:
                guard.call("grouping", grouping.mark, record)
                errors.count((record,))
        if messages:
            logs.count(messages)

    def collect(self) -> Iterable[Family]:
        """Return every metric of this process, for /metrics and for exporters."""
        now = self.clock.wall()
        requests.fold()
        for collector in (
            registry,
            requests,
            errors,
            logs,
            self.resources,
            self.pipeline,
            self.meter,
            self.ladder,
            *self.pipeline.senders,
            *((self.keeper, self.store) if self.store is not None else ()),
            *((self.workers,) if self.workers is not None else ()),
        ):
            for family in guard.call("collect", lambda given=collector: list(given.collect()), default=()):
                # What counts in memory counts since the registry does; what was sampled has its own times.
                family.time = family.time or now
                family.start = family.start or registry.start
                yield family

    def _blocked(self, seconds: float, frames: Sequence[Frame]) -> None:
        text = event_loop.describe(seconds, tuple(frames))
        record = LogRecord(self.clock.wall(), WARN, "WARNING", "insitu.event_loop", text, {"insitu.blocked": seconds})
        self.pipeline.put(record, LOG_BYTES + len(text))

    def _keep_within_budget(self) -> None:
        if self.ladder.look():
            guard.warn(
                "budget", "insitu: it takes %.2f%% of a core: %s", 100 * self.ladder.used, self.ladder.detail.name
            )
            self._reduce(self.ladder.detail)

    @staticmethod
    def _reduce(detail: Detail) -> None:
        tracing.provider.reduce(detail)
        logs.counts_only = not detail.logs

    def _forked(self) -> None:
        self.ladder.reset()
        self._reduce(EVERYTHING)
        self.resource = self._resource()
        reset_counts()
        self.resources.reset()
        if self.store is not None:
            self.keeper.reset(self.clock.wall())
            self.store.after_fork()
        if self.workers is not None:
            self.workers.after_fork()

    def _resource(self) -> Resource:
        return Resource(self.redactor.attributes(resource(self.options).attributes))

    # --- exporters ---

    def _add_exporter(self, make: Callable[[ExporterContext], Exporter]) -> None:
        def with_wait(wait: Callable[[float], bool]) -> Exporter:
            return make(ExporterContext(self.environ, self.resource, self._seconds, wait, self._spool))

        sender = guard.call("exporter", Sender, with_wait, self.collect, self.meter, self.clock)
        if sender is not None:
            self.pipeline.senders.append(sender)
            self.pipeline.sinks.append(sender)

    def _seconds(self) -> float:
        return self.clock.monotonic() / 1e9

    def _spool(self, name: str) -> Any:
        options = self.options
        folder = options.store.folder and _late("folder").place_for(options.store.folder, options.service.name)
        return _late("spool").Spool(folder / "spool" / name, self.clock) if folder else None

    # --- the store ---

    def _open_store(self) -> None:
        options = self.options.store
        keeping, writer = _late("keeping"), _late("writer")
        self.keeper = keeping.Keeper(keeping.Policy(), self.clock.wall())
        folder = _late("folder").place_for(options.folder, self.options.service.name)
        requests.intervals = _late("intervals").Intervals(self.clock.wall)
        self.store = writer.Writer(
            folder,
            self.clock,
            self.keeper.closed,
            self._intervals,
            cap=options.bytes,
            retention=options.retention,
        )
        # Where nobody else gets the traces, an exemplar that is not in the store would lead nowhere.
        requests.exemplars_are_kept = not self.pipeline.senders
        self.pipeline.sinks.append(self.store)
        self.pipeline.every(1.0, self.store.write, "store")
        self.pipeline.ending.extend((lambda: self.store.flush(self.collect()), self.store.close))
        if folder is not None and self._threads and _late("locks").KNOWN:
            self.workers = _late("workers").Workers(folder, self.clock, self._of_this_worker, self.environ, _told)
            self.pipeline.every(PUBLISH_SECONDS, self.workers.publish_in_time, "workers")
            self.pipeline.ending.insert(0, self.workers.close)
        self.pipeline.every(SAMPLE_SECONDS, lambda: self.store.sample(self.collect()), "samples")

    def _intervals(self) -> Any:
        requests.fold()
        return requests.intervals.take(all_of_them=not self.pipeline.open) if requests.intervals is not None else []

    def _keep(self, records: Sequence[Record]) -> list[Record]:
        """Decide what the store keeps, and return what goes any further: exporters get every sampled trace."""
        if self.keeper is not None:
            self.keeper.decide([record for record in records if type(record) is LocalTrace], self.clock.wall())
            if self.pipeline.sinks == [self.store]:
                return [record for record in records if type(record) is not LocalTrace or record.kept]
        return [record for record in records if type(record) is not LocalTrace or record.sampled]

    def _sdk_resource(self) -> Any:
        return _late("readable").sdk_resource(self.resource)

    # --- our own paths ---

    def api(self) -> Any:
        """Return what answers our own paths."""
        if self._api is None:
            page = _late("prometheus").Page(self._scrape, self.resource, several=self._has_several_workers)
            token = self.options.web.token or None
            self._api = _late("api").Api({"/metrics": page.render}, token, self._monitoring())
        return self._api

    def _monitoring(self) -> Any:
        home = self.options.web.page
        if self.store is None or not home:
            return None
        reader, folder = _late("reader").Reader(self.store.folder, self.store.database), self.store.folder
        name = self.options.service.name
        return _late("monitoring").Monitoring(
            reader,
            self.clock.wall,
            neighbours=_late("neighbours").Neighbours(name, reader, folder.parent if folder is not None else None),
            pages=_late("pages").Pages(),
            about=self.resource.attributes,
            live=self._scrape,
            home=home,
        )

    def _of_this_worker(self) -> Iterable[Family]:
        """Return every metric of this process, and what the user keeps in prometheus_client."""
        yield from self.collect()
        kept = _late("prometheus_registry")
        if (found := kept.of_application()) is not None:
            yield from kept.families(found)

    @staticmethod
    def _has_several_workers() -> bool:
        workers = current().workers
        return workers is not None and workers.are_several()

    def _scrape(self) -> Iterable[Family]:
        running = current()
        running.pipeline.drain(0.05)
        return running.workers.merged() if self._has_several_workers() else running.collect()


# --- the process's one runtime
# ------------------------------------------------------------------------------------------------

requests = Requests(tracing.provider, registry)
_told: list[Any] = []
"""What this process has told other workers: its instruments outlive a shutdown, and count on after the next start."""
_runtime: Runtime | None = None
_lock = threading.RLock()


def current() -> Runtime:
    """Return the running runtime; RuntimeError when there is none."""
    if _runtime is None:
        raise RuntimeError("insitu.init() has not been called")
    return _runtime


@guard.safe("init")
def init(**options: Any) -> None:
    """Start insitu in this process. A second call changes nothing; after `shutdown` it starts anew.

    Args:
        options: see `insitu.config.SETTINGS`; each can also come from INSITU_<NAME>, from OpenTelemetry's own
            variables, or from
            [tool.insitu] in pyproject.toml or insitu.toml. The most used: `service`, `version`, `environment`,
            `exporters`, `sample`, `exclude`, `token`, `log_output`.

    """
    with _lock:
        if _runtime is not None and (_runtime.asked or not options):
            return
        shutdown()
        chosen = read(options, os.environ, Path.cwd())
        if chosen.process.disabled:
            return
        adopt(Runtime(chosen, dict(os.environ)))
    logging.getLogger("insitu").debug("insitu started for %s", chosen.service.name)


@guard.safe("run")
def start_unasked() -> None:
    """Start insitu in a process whose code may not mention it, and instrument what it serves: `insitu run`."""
    init()
    if _runtime is not None:
        _runtime.asked = False
        _late("automatic").watch(instrument)


def _parts() -> Parts | None:
    init()
    if _runtime is None:
        return None
    _runtime.asked = True
    return _runtime.parts()


parts.start = _parts


def reset_counts() -> None:
    """Let everything that counts start at zero: in a forked child, whose parent has counted the rest, and for tests."""
    for counted in (registry, requests, errors, logs):
        counted.reset()


def adopt(started: Runtime) -> None:
    """Make `started` the runtime of this process and start it."""
    global _runtime
    with _lock:
        _runtime = started
        started.start()


def instrument(app: T, **options: Any) -> T:
    """Instrument an application: FastAPI, Starlette, Flask, or any ASGI or WSGI callable.

    Calls `init(**options)` if nobody has.

    Returns:
        The very application for FastAPI, Starlette and Flask, a wrapper for a bare ASGI or WSGI callable;
        `app = instrument(app)` is right for all.

    """
    init(**options)
    if _runtime is None:
        return app
    _runtime.asked = True
    return guard.call("instrument", _runtime.instrument, app, default=app)


@guard.safe("flush", default=False)
def flush(timeout: float = 5.0) -> bool:
    """Deliver everything recorded so far.

    False when something was lost, `timeout` seconds were not enough, or no back-end took it and it waits on disk.
    """
    return _runtime.flush(timeout) if _runtime is not None else True


@guard.safe("shutdown", default=False)
def shutdown(timeout: float = 5.0) -> bool:
    """Deliver what there is within `timeout` seconds and stop. False when something was lost."""
    global _runtime
    with _lock:
        stopped, _runtime = _runtime, None
    return stopped.stop(timeout) if stopped is not None else True


def _flush_at_exit() -> None:
    if _runtime is not None:
        _runtime.flush(EXIT_SECONDS, hurry=True)
