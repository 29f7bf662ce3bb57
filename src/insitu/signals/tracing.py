"""OpenTelemetry's TracerProvider and Tracer: who owns every local trace, and where its spans begin."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import trace as api
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, SpanKind

from insitu.core import clock as clocks
from insitu.core import context, guard, values
from insitu.core.budget import EVERYTHING
from insitu.core.records import LocalTrace, Scope
from insitu.signals import spans
from insitu.signals.limits import Limits, clean
from insitu.signals.sampling import LOW_64_BITS, Ratio
from insitu.signals.spans import Absorbed, SilentSpan, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource as SdkResource

    from insitu.core.budget import Detail
    from insitu.core.pipeline import Pipeline
    from insitu.core.records import Attributes
    from insitu.signals.sampling import Sampler

T = TypeVar("T")

OWN: Final = Scope("insitu")
SILENT: Final = SilentSpan(None, INVALID_SPAN_CONTEXT, 0)
INTERNAL: Final = SpanKind.INTERNAL
_RANDOM, _SAMPLED = 2, 3
"""Flags of the ids that we make: random (W3C trace context, level 2), and sampled as well."""
_SMALL: Final = values.SMALL
_LONGEST_FLUSH: Final = 3_600.0
_clean_text: Final = values.text


class TracerProvider(api.TracerProvider):
    """OpenTelemetry's provider, and the owner of every local trace of this process.

    It exists from import on, does nothing until `attach`, and can be detached and attached again: tracers that were
    handed out stay valid.
    """

    def __init__(self) -> None:
        self.on = False
        self.pipeline: Pipeline
        self.limits = self._limits = Limits()
        self.processors: tuple[Any, ...] = ()
        self.wall = clocks.SYSTEM.wall
        self.monotonic = clocks.SYSTEM.monotonic
        self.detail = EVERYTHING
        self.children = True
        """Whether there are spans below a request's: the budget's word."""
        self.full = False
        """Whether a span below a span needs no second look: nothing is left out, and no processor wants to see it."""
        self.sampler = Ratio()
        self._sdk_resource: Callable[[], SdkResource] | None = None
        self.put: Callable[[Any, int], None]
        self.hot: Callable[[int], None]

    def attach(
        self, pipeline: Pipeline, sampler: Sampler, limits: Limits, sdk_resource: Callable[[], SdkResource]
    ) -> None:
        """Record from now on."""
        self.pipeline, self.sampler, self._limits, self._sdk_resource = pipeline, sampler, limits, sdk_resource
        self.wall, self.monotonic = pipeline.clock.wall, pipeline.clock.monotonic
        self.put, self.hot = pipeline.put, pipeline.meter.hot
        self.on = True
        self.reduce(EVERYTHING)

    def detach(self) -> None:
        """Record nothing from now on; open spans end without being shipped."""
        self.on = self.full = False

    @property
    def sampler(self) -> Sampler:
        """Who takes the head decision."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.reduce(self.detail)

    def reduce(self, detail: Detail) -> None:
        """Record so much from now on."""
        self.detail = detail
        self.limits = self._limits if detail.attributes else replace(self._limits, attributes=0)
        self._thin = round(detail.share * (LOW_64_BITS + 1))
        self._bound = min(self.sampler.bound, self._thin) if isinstance(self.sampler, Ratio) else -1
        self.children = detail.children
        self.full = self.on and detail is EVERYTHING and not self.processors

    # --- starting spans ---

    def start(
        self, span: Span, parent: object, start_time: int = 0, above_it: Context | None = None
    ) -> Span | SilentSpan:
        """Start a new span below `parent`, which is whatever some context holds as its current span.

        Args:
            span: made, but without a place yet.
            parent: the span above, ours or not, or None.
            start_time: wall nanoseconds; 0 is now.
            above_it: the context that the caller gave, for processors.

        Returns:
            The span, or its stand-in where the trace is not recorded.

        """
        if type(parent) is Absorbed:
            parent = parent.stands_for
        if isinstance(parent, Span):
            trace = parent.trace
            if not trace.recording or not self.detail.children:
                return SilentSpan(
                    trace, None, parent.span_id
                )  # what other processes do hangs on the span that is there
            span.place(
                trace, parent.span_id, start_time or self.monotonic() + trace.offset, local_root=False, remote=False
            )
            if self.full:
                return span
        elif isinstance(parent, SilentSpan) and parent.trace is not None:
            return parent
        else:
            above = _ids(parent)
            trace, added = self.begin(above, span.name, span.kind, span.own)
            if not trace.recording:
                return silent(trace)
            parent_id, remote = (above[1], above[4]) if above is not None else (0, False)
            span.place(trace, parent_id, start_time or trace.since, local_root=True, remote=remote)
            if added:
                span.set_attributes(added)
        if not self.detail.attributes:
            span.own = None
        if self.processors:
            self.started(span, above_it)
        return span

    def begin(
        self, above: tuple[int, int, int, str, bool] | None, name: str, kind: SpanKind, own: Attributes | None
    ) -> tuple[LocalTrace, Mapping[str, Any] | None]:
        """Begin a local trace below a remote parent or none; return it with what the sampler adds to its root."""
        if above is None:
            trace_id = clocks.random_bits(128) or 1
            if self._bound >= 0:  # our own sampler, in one comparison
                flags = _SAMPLED if trace_id & LOW_64_BITS < self._bound else _RANDOM
                return LocalTrace(self, trace_id, flags, "", self.wall(), self.monotonic()), None
            parent, state, flags = None, "", _RANDOM
        else:
            parent = above[:4]
            trace_id, _, flags, state = parent
        decision = self.sampler.decide(trace_id, parent, name, kind, own)
        flags = flags | 1 if decision.sampled else flags & _RANDOM
        if decision.state is not None:
            state = decision.state
        trace = LocalTrace(self, trace_id, flags, state, self.wall(), self.monotonic())
        # Less than the sampler wants, where the budget says so; what other processes do is not ours to decide.
        trace.recording = decision.recording and trace_id & LOW_64_BITS < self._thin
        trace.sampled = trace.sampled and trace.recording
        return trace, decision.attributes

    def ship(self, trace: LocalTrace) -> None:
        """Hand a finished record to the pipeline."""
        if self.on and trace.recording:
            self.put(trace, trace.size())

    # --- processors brought by the user ---

    def add_span_processor(self, span_processor: Any) -> None:
        """Add an SDK SpanProcessor: `on_start` in the caller, `on_end` once for each span, both guarded.

        It sees unredacted values.
        """
        self.processors = (*self.processors, span_processor)
        self.full = False

    def started(self, span: Span, given: Context | None = None) -> None:
        """Show a new span to the processors, with the context that it was started in."""
        parent = given if given is not None else context.current()
        for processor in self.processors:
            guard.call("processor.on_start", processor.on_start, span, parent)

    def on_end(self, span: Span) -> None:
        """Show an ended span to the processors."""
        readable = guard.call("processor.on_end", self._readable, span)
        for processor in self.processors if readable is not None else ():
            guard.call("processor.on_end", processor.on_end, readable)

    def _readable(self, span: Span) -> object:
        return self.readable(span, self.sdk_resource())

    readable: Callable[[Span, Any], object]
    """Makes the SDK's ReadableSpan.

    Set by the runtime, because the SDK is only imported where somebody brings a processor.
    """

    def sdk_resource(self) -> SdkResource | None:
        """Return the resource as the SDK's object."""
        return self._sdk_resource() if self._sdk_resource is not None else None

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the pipeline and all processors."""
        seconds = guard.attempt(lambda: min(max(float(timeout_millis) / 1000, 0.0), _LONGEST_FLUSH), default=30.0)
        done = self.pipeline.flush(seconds) if self.on else True
        for processor in self.processors:
            done = (
                bool(guard.call("processor.force_flush", processor.force_flush, timeout_millis, default=False)) and done
            )
        return done

    def shutdown(self) -> None:
        """Shut the user's processors down; insitu itself ends with `insitu.shutdown()`."""
        processors, self.processors = self.processors, ()
        self.full = self.on and self.detail is EVERYTHING
        for processor in processors:
            guard.call("processor.shutdown", processor.shutdown)

    # --- OpenTelemetry's API ---

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Tracer:
        """Return a tracer for an instrumentation scope."""
        made = guard.call("get_tracer", _scope_attributes, attributes, default=()) if attributes is not None else ()
        named = [
            values.text("" if given is None else given, _SMALL)
            for given in (instrumenting_module_name, instrumenting_library_version, schema_url)
        ]
        return Tracer(self, Scope(named[0], named[1], named[2], made))


def _scope_attributes(attributes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((values.text(key, _SMALL), values.plain(item)) for key, item in attributes.items())


class Tracer(api.Tracer):
    """OpenTelemetry's Tracer."""

    def __init__(self, provider: TracerProvider, scope: Scope) -> None:
        self._provider = provider
        self.scope = scope
        self._own_work = scope.name in ABSORBED

    def start_span(  # type: ignore[override] # our spans are virtual subclasses of the API's
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[api.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span | SilentSpan:
        """Start a span; it is not made current."""
        provider = self._provider
        if not provider.on:
            return SILENT
        if context is not None and not issubclass(type(context), dict):
            context = None
        parent = (_current() if context is None else context).get(SPAN_KEY)
        if self._own_work and (ours := _inside_request()) is not None:
            return ours
        if type(name) is not str or len(name) > _SMALL:
            name = _clean_text(name, _SMALL)
        own = clean(attributes, provider.limits) if attributes is not None else None
        kind = kind if type(kind) is SpanKind else INTERNAL
        if record_exception is True and set_status_on_exception is True:
            made = Span(name, kind, own, self.scope)
        else:
            made = _Particular(name, kind, own, self.scope)
            made.records, made.sets_status = values.truth(record_exception), values.truth(set_status_on_exception)
        start = spans.moment(start_time, 0) if start_time is not None else 0
        span = provider.start(made, parent, start, context)
        if own is not None and len(own) >= provider.limits.attributes:
            made.dropped = [guard.attempt(len, attributes, default=0) - len(own), 0, 0]
        if links is not None and span is made:
            guard.call("start_span.links", _add_links, made, links)
        return span

    def start_as_current_span(  # type: ignore[override] # noqa: PLR0917 the API's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[api.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        """Return a context manager (and decorator, for functions and coroutines) in which a new span is current."""
        arguments = (name, context, kind, attributes, links, start_time)
        return CurrentSpan(self, arguments, record_exception, set_status_on_exception, end_on_exit)


class _Particular(Span):
    """A span whose caller does not want both of what an exception in its `with` block does by default."""

    __slots__ = ("records", "sets_status")

    records: bool
    sets_status: bool

    def fail(self, error: BaseException) -> None:
        """Mark the span with the exception that it ends with, as far as the caller wants."""
        if self.records:
            self.record_exception(error)
        if self.sets_status and isinstance(error, Exception):
            self.set_status(api.StatusCode.ERROR, f"{type(error).__name__}: {guard.render(error)}")


SPAN_KEY: Final = context.SPAN_KEY
_current: Final = context.current
_enter: Final = context.enter
_leave: Final = context.leave

ABSORBED: Final = frozenset(
    {
        "fastapi",
        "starlette",
        "opentelemetry.instrumentation.asgi",
        "opentelemetry.instrumentation.django",
        "opentelemetry.instrumentation.fastapi",
        "opentelemetry.instrumentation.flask",
        "opentelemetry.instrumentation.starlette",
        "opentelemetry.instrumentation.wsgi",
    }
)
"""Scopes that make a server span of a request. Inside one of ours they get ours: one request is one SERVER span."""


def _inside_request() -> Absorbed | None:
    span = _current().get(SPAN_KEY)
    span = getattr(span, "stands_for", span)
    return Absorbed(span) if isinstance(span, Span) and span.kind is SpanKind.SERVER and not span.end_time else None


class CurrentSpan:
    """What `start_as_current_span` returns: a context manager, and a decorator that makes a new span for each call."""

    __slots__ = ("_arguments", "_end", "_record", "_span", "_status", "_token", "_tracer")

    def __init__(self, tracer: Tracer, arguments: tuple[Any, ...], record: bool, status: bool, end: bool) -> None:
        self._tracer, self._arguments = tracer, arguments
        self._record, self._status, self._end = values.truth(record), values.truth(status), values.truth(end)
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span | SilentSpan:
        """Start the span and make it current."""
        self._span = span = self._tracer.start_span(*self._arguments)
        self._token = _enter(span)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the context, record the exception as asked, end the span."""
        if self._token is None:
            return  # it was never entered
        _leave(self._token)
        span = self._span
        if error is not None and span.is_recording():
            self._fail(span, error)
        if self._end:
            span.end()

    def _fail(self, span: Span | SilentSpan, error: BaseException) -> None:
        if self._record and self._status:
            span.fail(error)
        elif self._record and isinstance(error, Exception):
            span.record_exception(error)
        elif self._status and isinstance(error, Exception):
            span.set_status(api.StatusCode.ERROR, f"{type(error).__name__}: {guard.render(error)}")

    def __call__(self, function: Callable[..., T]) -> Callable[..., T]:
        """Decorate a function or coroutine function."""
        settings = (self._tracer, self._arguments, self._record, self._status, self._end)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
                with CurrentSpan(*settings):
                    return await function(*args, **kwargs)

            return traced_coroutine  # type: ignore[return-value]

        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> T:
            with CurrentSpan(*settings):
                return function(*args, **kwargs)

        return traced


provider = TracerProvider()
"""The one provider of this process."""


def silent(trace: LocalTrace) -> SilentSpan:
    """Return the stand-in for the spans of a trace that is not recorded; its ids go out to other processes."""
    return SilentSpan(trace, None, clocks.random_bits(64) or 1)


def _ids(parent: object) -> tuple[int, int, int, str, bool] | None:
    """Return the ids of a parent span that is not ours: a remote one, or another provider's."""
    if parent is None or parent is SILENT or not isinstance(parent, api.Span):
        return None
    ids = guard.call("parent", parent.get_span_context)
    if not isinstance(ids, SpanContext) or not ids.is_valid:
        return None
    return (
        ids.trace_id,
        ids.span_id,
        int(ids.trace_flags),
        ids.trace_state.to_header() if ids.trace_state else "",
        ids.is_remote,
    )


def _add_links(span: Span, links: Sequence[api.Link]) -> None:
    for link in links:
        span.add_link(link.context, link.attributes)


def trace_id() -> str:
    """Return the current trace's id as 32 hex digits, "" outside of a trace: for error pages and support."""
    span = _current().get(SPAN_KEY)
    ids = span.trace.trace_id if isinstance(span, Span) else (_ids(span) or (0,))[0]
    return f"{ids:032x}" if ids else ""
