import io
import logging

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

import insitu
from insitu.core.records import Error, Resource
from insitu.signals.readable import JoinedProcessor, sdk_resource
from insitu.signals.tracing import provider
from insitu.testing import recording

REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "1")]))


@pytest.fixture
def finished():
    """What a user's processor got."""
    memory = InMemorySpanExporter()
    with recording():
        provider.add_span_processor(SimpleSpanProcessor(memory))
        yield memory.get_finished_spans
        provider.shutdown()


def test_an_ended_span_reads_as_the_sdks(finished):
    with insitu.bind(user="u1"), insitu.span("outer") as outer:
        tracer = provider.get_tracer("shop", "1.2", "https://schema", {"team": "cart"})
        with (
            pytest.raises(LookupError),
            tracer.start_as_current_span(
                "inner", kind=SpanKind.CLIENT, attributes={"a": 1}, links=[Link(REMOTE, {"why": "queue"})]
            ) as inner,
        ):
            inner.add_event("event", {"b": 2}, 5)
            raise LookupError("nothing there")
    read = finished()[0]
    assert (read.name, read.kind, read.parent, read.context) == ("inner", SpanKind.CLIENT, outer.context, inner.context)
    assert (read.start_time, read.end_time) == (inner.start_time, inner.end_time)
    assert read.attributes == {"user.id": "u1", "a": 1, "error.type": "LookupError"}
    assert (read.status.status_code, read.status.description) == (StatusCode.ERROR, "LookupError: nothing there")
    scope = read.instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url, dict(scope.attributes)) == (
        "shop",
        "1.2",
        "https://schema",
        {"team": "cart"},
    )
    assert read.resource.attributes["service.name"] == "test"
    (link,) = read.links
    assert (link.context.trace_id, link.context.trace_state.to_header(), dict(link.attributes)) == (
        0xABC,
        "a=1",
        {"why": "queue"},
    )
    event, exception = read.events
    assert (event.name, event.timestamp, dict(event.attributes)) == ("event", 5, {"b": 2})
    assert exception.attributes["exception.type"] == "LookupError"
    assert exception.attributes["exception.message"] == "nothing there"
    assert exception.attributes["exception.stacktrace"].endswith("LookupError: nothing there\n")


def test_the_sdks_own_exporters_can_write_it(finished):
    out = io.StringIO()
    with insitu.span("written", items=(1, 2), price=1.5):
        pass
    (read,) = finished()
    assert '"name": "written"' in read.to_json()
    ConsoleSpanExporter(out=out).export([read])
    assert '"name": "written"' in out.getvalue()


def test_a_span_under_way_can_be_read_by_a_processor():
    seen = []

    class Reading(SimpleSpanProcessor):
        def on_start(self, span, parent_context=None):
            seen.append(
                (
                    span.name,
                    span.attributes,
                    span.parent,
                    span.status.status_code,
                    span.resource.attributes["service.name"],
                )
            )

    with recording():
        provider.add_span_processor(Reading(InMemorySpanExporter()))
        with insitu.span("a", k=1):
            pass
        provider.shutdown()
    assert seen == [("a", {"k": 1}, None, StatusCode.UNSET, "test")]


def test_the_resource_is_taken_over_whole():
    assert dict(sdk_resource(Resource({"service.name": "a", "process.pid": 5})).attributes) == {
        "service.name": "a",
        "process.pid": 5,
    }


# --- a provider that was there first ---


@pytest.fixture
def joined():
    with recording() as recorded:
        other = SdkProvider(shutdown_on_exit=False)
        other.add_span_processor(JoinedProcessor(provider))
        yield other.get_tracer("theirs", "3"), recorded


def test_spans_of_another_provider_are_recorded(joined):
    tracer, recorded = joined
    with pytest.raises(ValueError, match="text"), tracer.start_as_current_span("outer") as outer:
        outer.set_attribute("a", (1, 2))
        with tracer.start_as_current_span("inner"):
            pass
        raise ValueError("text")
    inner, found = recorded.spans
    assert (found.name, found.attributes, found.status_code) == ("outer", {"a": (1, 2)}, Error)
    assert (found.span_id, found.trace.trace_id) == (outer.context.span_id, outer.context.trace_id)
    assert (inner.parent_id, inner.parent_remote) == (found.span_id, False)
    assert (found.start_time, found.end_time) == (outer.start_time, outer.end_time)
    assert (found.scope.name, found.scope.version) == ("theirs", "3")
    assert found.events[0].attributes["exception.type"] == "ValueError"


def test_links_of_another_providers_spans_are_kept(joined):
    tracer, recorded = joined
    tracer.start_span("linked", links=[Link(REMOTE, {"why": "queue"})]).end()
    assert [(link.trace_id, link.span_id) for link in recorded.span("linked").links or ()] == [(0xABC, 0xDEF)]


def test_what_another_provider_does_not_sample_is_not_recorded():
    with recording() as recorded:
        other = SdkProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        other.add_span_processor(JoinedProcessor(provider))
        other.get_tracer("t").start_span("unsampled").end()
        assert recorded.spans == []


def test_init_joins_a_provider_that_is_set_and_says_so_once(monkeypatch, caplog):
    insitu.shutdown()
    memory, other = InMemorySpanExporter(), SdkProvider(shutdown_on_exit=False)
    other.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(api, "_TRACER_PROVIDER", other)
    caplog.set_level(logging.WARNING)
    with recording() as recorded:
        api.get_tracer("app").start_span("theirs").end()
        with insitu.span("ours"):
            pass
        assert {span.name for span in recorded.spans} == {"theirs", "ours"}
    with recording() as recorded:
        api.get_tracer("app").start_span("again").end()
        assert [span.name for span in recorded.spans] == ["again"]
    assert [span.name for span in memory.get_finished_spans()] == ["theirs", "again"]
    assert len([record for record in caplog.records if "joined" in record.getMessage()]) == 1
