"""Records made by hand, as the signals make them."""

import time

from opentelemetry.trace import SpanKind

from insitu.core.records import LocalTrace, Scope, SpanRecord


class Owner:
    """Whoever owns a trace; only its clock is used."""

    monotonic = staticmethod(time.perf_counter_ns)


def a_trace(spans=(), trace_id=0xABC, flags=1, state="", bound=None):
    trace = LocalTrace(Owner, 1, flags, state, 0, 0)
    trace.trace_id, trace.bound = trace_id, bound  # a poisoned id comes from nobody's constructor
    for span in spans:
        span.trace = trace
        trace.spans.append(span)
    return trace


def a_span(**fields):
    span = SpanRecord()
    values = {
        "dropped": None,
        "end_time": 2_000,
        "events": None,
        "kind": SpanKind.INTERNAL,
        "links": None,
        "local_root": False,
        "name": "span",
        "own": None,
        "parent_id": 0,
        "parent_remote": False,
        "scope": Scope("scope"),
        "span_id": 7,
        "start_time": 1_000,
        "status_code": 0,
        "status_text": "",
    }
    for name, value in (values | fields).items():
        setattr(span, name, value)
    return span
