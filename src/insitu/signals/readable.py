"""The bridge to OpenTelemetry's SDK: our spans for a user's processors, and another provider's spans for us.

This is the only module that imports the SDK, and it is loaded when one of the two is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

from insitu.core import context, stacktrace, values
from insitu.core.records import LocalTrace, Resource, Scope, SpanEvent
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from insitu.signals.tracing import TracerProvider

_STATUS = {StatusCode.UNSET: 0, StatusCode.OK: 1, StatusCode.ERROR: 2}


def sdk_resource(resource: Resource) -> SdkResource:
    """Return the resource as the SDK's object."""
    return SdkResource(dict(resource.attributes))


def readable(span: Span, resource: SdkResource) -> ReadableSpan:
    """Return an ended span as the SDK's ReadableSpan."""
    scope = span.scope
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=resource,
        attributes={**(span.trace.bound or {}), **span.attributes},
        events=[_event(event) for event in span.events or ()],
        links=[_link(link) for link in span.links or ()],
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=InstrumentationScope(scope.name, scope.version, scope.schema_url, dict(scope.attributes)),
    )


def _event(event: SpanEvent) -> Event:
    attributes = dict(event.attributes)
    if event.error is not None:
        attributes = stacktrace.attributes_of(event.error) | attributes
    return Event(event.name, attributes, event.timestamp)


def _link(link: Any) -> Link:
    state = context.tracestate(link.state)
    return Link(
        SpanContext(
            link.trace_id, link.span_id, is_remote=link.remote, trace_flags=TraceFlags(link.flags), trace_state=state
        ),
        link.attributes,
    )


class JoinedProcessor(SpanProcessor):
    """Takes the spans of a provider that was set before ours."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def on_end(self, span: ReadableSpan) -> None:
        """Ship an ended span as a record of its own."""
        ids, parent, scope = span.context, span.parent, span.instrumentation_scope
        if not self._provider.on or ids is None or not ids.trace_flags.sampled:
            return
        start, end = span.start_time or 0, span.end_time or 0
        trace = LocalTrace(self._provider, ids.trace_id, int(ids.trace_flags), ids.trace_state.to_header(), start, 0)
        own = {values.text(key): values.plain(value) for key, value in (span.attributes or {}).items()}
        source = Scope(scope.name, scope.version or "", scope.schema_url or "") if scope is not None else Scope("")
        made = Span(span.name, span.kind, own, source)
        made.place(
            trace, parent.span_id if parent else 0, start, local_root=True, remote=bool(parent and parent.is_remote)
        )
        made.span_id = ids.span_id
        made.status_code, made.status_text = _STATUS[span.status.status_code], span.status.description or ""
        made.events = [SpanEvent(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events]
        for link in span.links:
            made.add_link(link.context, link.attributes)
        made.end_time = max(start, end)
        trace.spans.append(made)
        trace.closed = True
        self._provider.ship(trace)
