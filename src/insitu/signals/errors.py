"""Exceptions as records: what was raised, where, and what caused it, without holding a single frame.

A traceback keeps every local variable of every frame alive, so only code objects and line numbers are kept here. Text
is made of them later, on the worker, and only where somebody asks (formatting at once costs OpenTelemetry 517 of its
557 µs).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

from insitu.core import context, guard, values
from insitu.core.records import ERROR_BYTES, ErrorRecord, Family, Frame, LogRecord, Point
from insitu.core.stacktrace import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from insitu.core.clock import Clock
    from insitu.core.pipeline import Pipeline

FRAMES: Final = 100
_new: Final = tuple.__new__  # what Frame(...) does, without the call of its Python constructor
CHAIN: Final = 8
MEMBERS: Final = 8
MESSAGE: Final = 4_096
TYPES: Final = 1_000

CANCELLATIONS: Final = (asyncio.CancelledError, GeneratorExit)
"""Ways to end that are nobody's error."""
LEFT: Final = frozenset({"starlette.websockets.WebSocketDisconnect", "starlette.requests.ClientDisconnect"})
"""The visitor hung up: raised by the framework out of ordinary code, and named here because no framework is known."""


def type_name(error: BaseException) -> str:
    """Return `module.Class`, builtins without their module: OpenTelemetry's `exception.type`."""
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" or type(module) is not str else f"{module}.{kind.__qualname__}"


def is_nobodys(error: BaseException) -> bool:
    """Whether an exception is a way to end rather than an error: a cancellation, or a visitor who left."""
    return issubclass(type(error), CANCELLATIONS) or type_name(error) in LEFT


def frames(traceback: TracebackType | None) -> tuple[list[Frame], int]:
    """Return the frames of a traceback, outermost first, and how many were left out of the middle."""
    taken: list[Frame] = []
    while traceback is not None:
        taken.append(_new(Frame, (traceback.tb_frame.f_code, traceback.tb_lineno)))
        traceback = traceback.tb_next
    omitted = len(taken) - FRAMES
    if omitted <= 0:
        return taken, 0
    return taken[:HEAD] + taken[HEAD + omitted :], omitted


def describe(error: BaseException) -> ErrorRecord:
    """Return the record of an exception with its causes, contexts and group members, all capped."""
    record: ErrorRecord | None = guard.call("errors.describe", _describe, error)
    # What is no exception was given by a mistake that should not be lost either.
    return record if record is not None else ErrorRecord(type(error).__name__, guard.render(error, MESSAGE))


def _describe(error: BaseException) -> ErrorRecord:
    record = _single(error, "")
    seen = {id(error)}
    _follow(record, error, seen)
    return record


def _follow(record: ErrorRecord, error: BaseException, seen: set[int]) -> None:
    """Hang the causes and contexts of `error` below its record."""
    last, current = record, error
    for _ in range(CHAIN):
        relation: Literal["cause", "context"] = "cause" if current.__cause__ is not None else "context"
        following = (
            current.__cause__
            if current.__cause__ is not None
            else None
            if current.__suppress_context__
            else current.__context__
        )
        if following is None or id(following) in seen:
            break
        seen.add(id(following))
        linked = _single(following, relation)
        last.chain.append(linked)
        last, current = linked, following


def _single(error: BaseException, relation: Literal["", "cause", "context", "member"]) -> ErrorRecord:
    taken, omitted = frames(error.__traceback__)
    record = ErrorRecord(type_name(error), guard.render(error, MESSAGE), taken, omitted, relation)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions[:MEMBERS]:
            record.chain.append(_single(member, "member"))
    return record


def weight(record: ErrorRecord) -> int:
    """Return about how many bytes the record holds."""
    return ERROR_BYTES + len(record.message) + sum(weight(linked) for linked in record.chain)


class Errors:
    """Captures errors, and counts them by type (`insitu.errors`)."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self._clock: Clock | None = None
        self._counts: dict[str, int] = {}

    def attach(self, pipeline: Pipeline | None) -> None:
        """Send to `pipeline` from now on; None switches off."""
        self.pipeline = pipeline
        self._clock = pipeline.clock if pipeline is not None else None

    def capture(
        self, error: BaseException, *, handled: bool = True, attributes: dict[str, Any] | None = None
    ) -> ErrorRecord | None:
        """Record an exception: on the current span when there is one that records, else as a record of its own."""
        pipeline = self.pipeline
        if pipeline is None or not isinstance(error, BaseException):
            return None
        current = context.current()
        if current.get(context.SUPPRESS_KEY):
            return None
        span = current.get(context.SPAN_KEY)
        span = getattr(span, "stands_for", span)
        trace = getattr(span, "trace", None)
        if trace is not None and trace.recording and not trace.closed:
            record: ErrorRecord = span.record_exception(error, attributes)  # type: ignore[attr-defined]
            record.handled = handled
            return record
        return self.emit(error, trace, handled=handled, attributes=attributes)

    def emit(
        self, error: BaseException, trace: Any, *, handled: bool, attributes: dict[str, Any] | None = None
    ) -> ErrorRecord | None:
        """Send an error record of its own, for errors outside of a trace that is recorded."""
        pipeline = self.pipeline
        if pipeline is None:
            return None
        record = describe(error)
        record.timestamp = pipeline.clock.wall()
        record.handled = handled
        fields = trace.bound if trace is not None else context.fields.get()
        record.attributes = {
            **(fields or {}),
            **{values.text(key): values.plain(value) for key, value in (attributes or {}).items()},
        }
        if trace is not None and trace.sampled:
            record.trace_id = trace.trace_id
        pipeline.put(record, weight(record))
        return record

    def count(self, records: Iterable[ErrorRecord]) -> None:
        """Fold errors into the counter; called once for each."""
        counts = self._counts
        for record in records:
            name = record.type if record.type in counts or len(counts) < TYPES else "_OTHER"
            counts[name] = counts.get(name, 0) + 1

    def reset(self) -> None:
        """Start at zero: in a forked child."""
        self._counts = {}

    def collect(self) -> Sequence[Family]:
        """Return the counter."""
        points = [Point({"error.type": name}, times) for name, times in list(self._counts.items())]
        return [Family("insitu.errors", "counter", points, help="Exceptions recorded, by type.")]


errors = Errors()


@guard.safe("capture")
def capture(error: BaseException, **attributes: Any) -> None:
    """Record an exception that the application has handled itself.

    Args:
        error: the exception; anything else is ignored.
        attributes: fields that help to understand it.

    """
    errors.capture(error, attributes=attributes)


_MESSAGE_LEVELS: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}


@guard.safe("message")
def message(text: str, level: str = "info", **attributes: Any) -> None:
    """Record a message that is not an exception, with the current trace.

    Args:
        text: what to say.
        level: debug, info, warning, error or critical.
        attributes: fields that help to understand it.

    """
    pipeline = errors.pipeline
    if pipeline is None:
        return
    severity = _MESSAGE_LEVELS.get(values.text(level).lower(), 9)
    record = LogRecord(pipeline.clock.wall(), severity, values.text(level).upper(), "insitu", values.text(text))
    record.attributes = {values.text(key): values.plain(value) for key, value in attributes.items()}
    span = context.current().get(context.SPAN_KEY)
    trace = getattr(span, "trace", None)
    if trace is not None:
        record.trace_id, record.span_id, record.flags = trace.trace_id, getattr(span, "span_id", 0), trace.flags
    pipeline.put(record, ERROR_BYTES)
