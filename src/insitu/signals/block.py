"""`insitu.span`: a block of the application's own work as a span of the current trace.

with insitu.span("load cart", tier="gold") as span:
    span.set(items=3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.trace import SpanKind

from insitu.core import clock as clocks
from insitu.core import context, guard, values
from insitu.core.budget import turns
from insitu.signals.limits import clean
from insitu.signals.spans import PARTIAL_NANOSECONDS, PARTIAL_SPANS, SilentSpan, Span
from insitu.signals.tracing import OWN, SILENT, provider

if TYPE_CHECKING:
    from types import TracebackType

INTERNAL: Final = SpanKind.INTERNAL
SPAN_KEY: Final = context.SPAN_KEY
_current: Final = context.current
_attach: Final = context.attach
_enter: Final = context.enter
_restore: Final = context.restore
_clean_text: Final = values.text
_SMALL: Final = values.SMALL
_INT64_MIN, _INT64_MAX = values.INT64_MIN, values.INT64_MAX
_turns: Final = turns()


class Block(Span):
    """What `insitu.span` returns: a context manager that is the span itself.

    Entering does what `TracerProvider.start` and `context.enter` do, leaving what `close` does, written out for the
    common case: a span below a span, the hottest path of an application that traces itself.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        """Start the span and make it current. In a trace that is not recorded a stand-in is returned."""
        if not provider.on or self._token is not None or self.end_time:
            return self._refused()
        now = provider.monotonic()
        current = _current()
        parent: Any = current.get(SPAN_KEY)
        if provider.full and isinstance(parent, Span) and (trace := parent.trace).recording:
            self.trace = trace
            self.span_id = clocks.random_bits(64) or 1
            self.parent_id = parent.span_id
            self.start_time = now + trace.offset
            self.local_root = self.parent_remote = False
            context: Any = current.copy()
            context[SPAN_KEY] = self
            self._token = _attach(context)
            if trace.metered:
                provider.hot(provider.monotonic() - now)
            return self
        span: Any = provider.start(self, parent)
        if span is not self:
            self.end_time = 1  # it never began: `close` has nothing to do
            self.trace = span.trace
        if span is self or span.span_id != getattr(parent, "span_id", 0):  # a stand-in changes nothing for who is below
            self._token = _enter(span)
        if span.trace.metered:
            provider.hot(provider.monotonic() - now)
        return span  # type: ignore[no-any-return]

    def _refused(self) -> Self:
        if provider.on:
            guard.warn(
                "span", "insitu: the same span(%r) was entered twice; call insitu.span for each block", self.name
            )
        return SILENT  # type: ignore[return-value] # it has all that a span offers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the context, record the exception, end the span. The exception goes on as it is."""
        token = self._token
        if token is None:
            return
        now = provider.monotonic()
        try:
            _restore(token)
        except (ValueError, RuntimeError):
            pass  # in another context, see `context.leave`
        self._token = None
        if error is not None:
            self.fail(error)
        trace = self.trace
        end = now + trace.offset
        if (
            provider.full
            and not (self.end_time or self.local_root)
            and len(trace.spans) < PARTIAL_SPANS - 1
            and end - trace.since < PARTIAL_NANOSECONDS
            and not trace.closed
        ):
            self.end_time = end if end > self.start_time else self.start_time
            trace.spans.append(self)
        else:
            self.close(now)
        if trace.metered:
            provider.hot(provider.monotonic() - now)


def _omitted() -> SilentSpan | None:
    """Return what stands for a span that the budget leaves out; None where it would begin a trace.

    What other processes do, and what is logged, hangs on the span that is there: no context changes.
    """
    parent: Any = _current().get(SPAN_KEY)
    trace = getattr(parent, "trace", None)
    return None if trace is None else SilentSpan(trace, None, parent.span_id)


def span(name: str, /, **attributes: Any) -> Block | SilentSpan:
    """Time a block as a span of the current trace, or as a trace of its own.

    Args:
        name: what is done, in few words and without ids (`load cart`).
        attributes: what is known about it; more can be added by `span.set(...)`.

    Returns:
        A context manager that yields the span.

    """
    began = provider.monotonic() if next(_turns) and provider.on else 0
    if not provider.children and (omitted := _omitted()) is not None:
        if began:
            provider.hot(provider.monotonic() - began)
        return omitted
    if type(name) is not str or len(name) > _SMALL:
        name = _clean_text(name, _SMALL)
    small = provider.limits.small
    for value in attributes.values():
        kind = type(value)
        if kind is str:
            ready = len(value) <= small
        elif kind is int:
            ready = _INT64_MIN <= value <= _INT64_MAX
        else:
            ready = kind is float or kind is bool
        if not ready:
            attributes = clean(attributes, provider.limits)
            break
    made = Block(name, INTERNAL, attributes or None, OWN)
    if began:
        provider.hot(provider.monotonic() - began)
    return made
