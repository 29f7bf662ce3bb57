"""Traces and log records made by hand, and a store to put them in."""

import itertools

from opentelemetry.trace import SpanKind

from insitu.core.records import Error, LocalTrace, LogRecord, Scope, SpanRecord, Unset

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
_numbers = itertools.count(1)


class Owner:
    @staticmethod
    def monotonic():
        return 0


class Span(SpanRecord):
    __slots__ = ("answer",)

    def outcome(self):
        return self.answer


def a_span(name="GET /", *, at=START, seconds=0.01, root=True, own=None, answer="200", parent=0, failed=False):
    span = Span()
    values = {
        "dropped": None,
        "end_time": at + round(seconds * SECOND),
        "events": None,
        "kind": SpanKind.SERVER,
        "links": None,
        "local_root": root,
        "name": name,
        "own": own,
        "parent_id": parent,
        "parent_remote": False,
        "scope": Scope("shop"),
        "span_id": next(_numbers),
        "start_time": at,
        "status_code": Error if failed else Unset,
        "status_text": "",
        "answer": answer,
    }
    for key, value in values.items():
        setattr(span, key, value)
    return span


def a_trace(*spans, trace_id=None, kept="steady", **fields):
    """Return a trace whose last span is its local root."""
    trace = LocalTrace(Owner, next(_numbers) << 64 | 7 if trace_id is None else trace_id, 1, "", START, 0)
    trace.kept = kept
    for span in spans or [a_span(**fields)]:
        span.trace = trace
        trace.spans.append(span)
    return trace


def a_log(body="order placed", *, at=START, severity=9, logger="shop", fields=None, trace_id=0):
    return LogRecord(at, severity, "INFO", logger, body, fields, trace_id=trace_id)
