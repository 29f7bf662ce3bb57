import asyncio
import http.server
import logging
import threading

import pytest
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

import insitu
from insitu.core import guard
from insitu.core.records import Error, Unset
from insitu.signals.tracing import provider
from insitu.testing import FakeClock, recording

before_init = api.get_tracer("made before init")


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


@pytest.fixture
def processors(recorded):
    """Processors added in a test are gone after it."""
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(recorded):
    return provider.get_tracer("shop", "1.2", "https://schema", {"team": "cart"})


REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "1")]))


# --- what is current ---


def test_a_started_span_is_not_made_current_by_with(tracer):
    with tracer.start_span("outer") as span:
        assert api.get_current_span() is api.INVALID_SPAN
        with api.use_span(span):
            assert api.get_current_span() is span
    assert span.end_time


def test_start_as_current_span_is_current_in_its_block_only(tracer, recorded):
    with tracer.start_as_current_span("outer") as outer:
        assert api.get_current_span() is outer
        with insitu.span("inner") as inner:
            assert api.get_current_span() is inner
        assert api.get_current_span() is outer
    assert api.get_current_span() is api.INVALID_SPAN
    assert recorded.span("inner").parent_id == recorded.span("outer").span_id
    assert len(recorded.traces) == 1


def test_start_as_current_span_decorates_functions_and_coroutines(tracer, recorded):
    @tracer.start_as_current_span("sync", attributes={"a": 1})
    def sync(number):
        return number, api.get_current_span()

    @tracer.start_as_current_span("async")
    async def coroutine(number):
        await asyncio.sleep(0)
        return number, api.get_current_span()

    assert sync(1)[1] is not sync(2)[1]
    assert asyncio.run(coroutine(3))[0] == 3
    assert asyncio.iscoroutinefunction(coroutine)
    assert [span.name for span in recorded.spans] == ["sync", "sync", "async"]
    assert recorded.spans[1].attributes == {"a": 1}


def test_end_on_exit_false_leaves_the_span_open(tracer, recorded):
    with tracer.start_as_current_span("open", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    span.end()
    assert not span.is_recording()
    assert recorded.span("open")


@pytest.mark.parametrize(
    ("record", "status"),
    [(True, True), (True, False), (False, True), (False, False)],
    ids="both event status none".split(),
)
def test_the_flags_for_exceptions_are_followed(tracer, recorded, record, status):
    with pytest.raises(ValueError, match="text"):  # noqa: SIM117
        with tracer.start_as_current_span("failing", record_exception=record, set_status_on_exception=status):
            raise ValueError("text")
    span = recorded.span("failing")
    assert [event.name for event in span.events or ()] == ["exception"] * record
    assert (span.status_code, span.status_text) == ((Error, "ValueError: text") if status else (Unset, ""))


def test_the_flags_for_exceptions_are_followed_by_a_span_that_is_not_current(tracer, recorded):
    with pytest.raises(ValueError, match="text"):  # noqa: SIM117
        with tracer.start_span("failing", record_exception=False, set_status_on_exception=False):
            raise ValueError("text")
    span = recorded.span("failing")
    assert (span.status_code, span.events) == (Unset, None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_ways_to_end_a_process_or_a_task_are_no_errors(tracer, recorded, error):
    with pytest.raises(error):  # noqa: SIM117
        with tracer.start_as_current_span("ending"), insitu.span("own"):
            raise error
    assert {span.status_code for span in recorded.spans} == {Unset}
    assert recorded.errors == []


# --- parents ---


def test_an_explicit_context_gives_the_parent(tracer, recorded):
    first = tracer.start_span("first")
    with tracer.start_as_current_span("current"):
        child = tracer.start_span("child", context=api.set_span_in_context(first, Context()))
        root = tracer.start_span("root", context=Context())
    for span in (child, first, root):
        span.end()
    assert child.parent_id == first.span_id
    assert child.trace is first.trace
    assert root.parent is None
    assert len({span.trace.trace_id for span in recorded.spans}) == 3


@pytest.mark.parametrize("parent", [api.INVALID_SPAN, NonRecordingSpan(SpanContext(0, 5, is_remote=True)), "no span"])
def test_an_invalid_parent_begins_a_new_trace(tracer, parent):
    span = tracer.start_span("root", context=Context({**api.set_span_in_context(parent)}))
    assert span.parent is None
    assert span.get_span_context().is_valid


def test_a_remote_parent_is_followed(tracer, recorded):
    with tracer.start_as_current_span("child", context=api.set_span_in_context(NonRecordingSpan(REMOTE))) as span:
        ids = span.get_span_context()
        assert (ids.trace_id, ids.is_remote) == (REMOTE.trace_id, False)
        assert ids.trace_state.to_header() == "a=1"
        assert (span.parent.span_id, span.parent.is_remote) == (REMOTE.span_id, True)
    assert recorded.span("child").local_root


def test_a_remote_parent_that_was_not_sampled_is_followed(tracer, recorded):
    unsampled = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(0))
    with tracer.start_as_current_span("child", context=api.set_span_in_context(NonRecordingSpan(unsampled))) as span:
        assert not span.is_recording()
        assert span.get_span_context().trace_id == 0xABC
        assert span.get_span_context().trace_flags == 0
        with insitu.span("grandchild") as grandchild:
            assert grandchild.get_span_context().trace_id == 0xABC
    assert recorded.spans == []


def test_a_span_of_another_provider_is_a_parent(tracer, recorded):
    with SdkProvider().get_tracer("other").start_as_current_span("theirs") as theirs, insitu.span("ours"):
        pass
    span = recorded.span("ours")
    assert span.trace.trace_id == theirs.get_span_context().trace_id
    assert span.parent_id == theirs.get_span_context().span_id
    assert not span.parent_remote


def test_our_span_is_a_parent_of_another_provider(tracer):
    with tracer.start_as_current_span("ours") as ours:
        theirs = SdkProvider().get_tracer("other").start_span("theirs")
    assert theirs.parent.span_id == ours.span_id
    assert theirs.get_span_context().trace_id == ours.trace.trace_id


def test_a_second_extract_of_one_traceparent_loses_no_span(tracer, recorded):
    context = api.set_span_in_context(NonRecordingSpan(REMOTE))
    with tracer.start_as_current_span("outer", context=context):
        tracer.start_span("second", context=context).end()
    assert {span.name for span in recorded.spans} == {"outer", "second"}


# --- what is given at the start ---


def test_attributes_links_kind_and_times_are_taken_at_the_start(tracer, recorded):
    span = tracer.start_span(
        "given",
        kind=SpanKind.CLIENT,
        attributes={"a": (1, 2), "b": "c"},
        links=[Link(REMOTE, {"why": "queue"})],
        start_time=5,
    )
    span.end(9)
    found = recorded.span("given")
    assert (found.kind, found.start_time, found.end_time) == (SpanKind.CLIENT, 5, 9)
    assert found.attributes == {"a": (1, 2), "b": "c"}
    assert [(link.trace_id, link.span_id, link.state, link.attributes) for link in found.links] == [
        (0xABC, 0xDEF, "a=1", {"why": "queue"})
    ]
    assert (found.scope.name, found.scope.version, found.scope.schema_url) == ("shop", "1.2", "https://schema")
    assert found.scope.attributes == (("team", "cart"),)


def test_a_later_change_of_the_given_attributes_changes_nothing(tracer, recorded):
    given = {"a": 1}
    with tracer.start_as_current_span("given", attributes=given) as span:
        span.set_attribute("b", 2)
        given["c"] = 3
    assert given == {"a": 1, "c": 3}
    assert recorded.span("given").attributes == {"a": 1, "b": 2}


def test_ids_are_random_and_not_the_applications_random():
    import random

    seen = set()
    for _ in range(2):
        random.seed(7)
        with recording() as recorded:
            with insitu.span("a"):
                assert len(insitu.trace_id()) == 32
            seen.add(recorded.span("a").trace.trace_id)
    assert len(seen) == 2
    assert insitu.trace_id() == ""


# --- clock ---


def test_a_clock_set_back_inside_a_span_makes_no_negative_duration():
    clock = FakeClock()
    with recording(clock=clock) as recorded:
        start = clock.wall()
        with insitu.span("slow"):
            clock.advance(2.0)
            clock.set_back(3_600.0)
            with insitu.span("inner"):
                clock.advance(1.0)
        slow, inner = recorded.span("slow"), recorded.span("inner")
    print(f"durations {slow.duration / 1e9} s and {inner.duration / 1e9} s with the clock set back 3,600 s")
    assert (slow.start_time, slow.duration, inner.duration) == (start, 3_000_000_000, 1_000_000_000)
    assert slow.start_time <= inner.start_time <= inner.end_time <= slow.end_time


# --- before, after, again ---


def test_tracers_and_spans_made_before_init_work_after_it():
    insitu.shutdown()
    decorated = insitu.trace(lambda: api.get_current_span())
    early = [insitu.span("early"), insitu.span("early")]
    ours = provider.get_tracer("ours")
    with before_init.start_as_current_span("nothing") as silent:
        assert not silent.is_recording()
    for _ in range(2):  # a second start re-arms the same objects
        with recording() as recorded:
            before_init.start_span("proxied").end()
            ours.start_span("own").end()
            decorated()
            with early.pop():
                pass
            assert len(recorded.spans) == 4
        assert not ours.start_span("off").is_recording()
        assert not decorated().is_recording()


def test_a_span_that_outlives_the_shutdown_ends_quietly():
    with recording():
        span = provider.get_tracer("late").start_span("late")
    span.set_attribute("a", 1)
    span.end()
    with recording() as recorded:
        assert recorded.spans == []


# --- processors ---


class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None):
        raise RuntimeError("on_start")

    def on_end(self, span):
        raise RuntimeError("on_end")

    def shutdown(self):
        raise RuntimeError("shutdown")

    def force_flush(self, timeout_millis=30_000):
        raise RuntimeError("force_flush")


class BrokenSampler:
    def should_sample(self, *_, **__):
        raise RuntimeError("sampler")


def test_a_processor_and_a_sampler_that_raise_do_not_reach_the_application():
    with recording(strict=False) as recorded:
        provider.sampler = insitu.signals.sampling.Custom(BrokenSampler())
        provider.add_span_processor(Broken())
        with insitu.span("outer"), provider.get_tracer("a").start_as_current_span("inner"):
            pass
        assert provider.force_flush(1) is False
        provider.shutdown()
        assert len(recorded.spans) == 2
        counted = {point.labels["where"]: point.value for point in recorded.family("insitu.internal_errors").points}
    print(f"0 of {sum(counted.values())} errors propagated: {counted}")
    assert counted == {
        "processor.on_start": 2,
        "processor.on_end": 2,
        "processor.force_flush": 1,
        "processor.shutdown": 1,
        "sampler": 1,
    }


class Remembering(SpanProcessor):
    def __init__(self):
        self.started, self.ended = [], []

    def on_start(self, span, parent_context=None):
        self.started.append((span, api.get_current_span(parent_context)))
        span.set_attribute("from.processor", value=True)

    def on_end(self, span):
        self.ended.append(span)


def test_a_processor_sees_each_sampled_span_once_and_may_write_at_the_start(processors, recorded):
    seen = Remembering()
    processors.add_span_processor(seen)
    with insitu.span("outer") as outer, insitu.span("inner"):
        pass
    assert [span.name for span, _ in seen.started] == ["outer", "inner"]
    assert seen.started[1][1] is outer
    assert [span.name for span in seen.ended] == ["inner", "outer"]
    assert all(span.attributes["from.processor"] for span in recorded.spans)


def test_a_processor_is_told_the_context_that_was_given(processors, tracer):
    seen = Remembering()
    processors.add_span_processor(seen)
    tracer.start_span("child", context=api.set_span_in_context(NonRecordingSpan(REMOTE))).end()
    assert seen.started[0][1].get_span_context() == REMOTE


def test_a_processor_sees_unredacted_values_and_the_store_does_not(processors, recorded):
    seen = Remembering()
    processors.add_span_processor(seen)
    with insitu.span("call", password="s3cret-value"):
        pass
    assert seen.ended[0].attributes["password"] == "s3cret-value"
    assert "s3cret-value" not in repr(recorded.span("call").attributes)


def test_a_processor_sees_nothing_of_a_trace_that_is_not_sampled():
    with recording(sample=0.0):
        seen = Remembering()
        provider.add_span_processor(seen)
        with insitu.span("outer"), insitu.span("inner"):
            pass
        provider.shutdown()
    assert (seen.started, seen.ended) == ([], [])


# --- the same spans by the official exporter and by ours ---


class Collector(http.server.ThreadingHTTPServer):
    """A collector that keeps what each user agent sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.received = []


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, dict(self.headers.items()), body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def told(attributes):
    """All but the fingerprints of errors, which are worked out when a processor has long seen the span."""
    return {pair.key: pair.value.SerializeToString() for pair in attributes if pair.key != "insitu.fingerprint"}


def facts(path, received):
    """Everything of the spans sent to `path` that both exporters must agree on."""
    import gzip

    found = {}
    for where, headers, body in received:
        if where != path:
            continue
        if headers.get("Content-Encoding", headers.get("content-encoding")) == "gzip":
            body = gzip.decompress(body)  # noqa: PLW2901
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found[span.span_id] = (
                        {pair.key: pair.value.SerializeToString() for pair in resource.resource.attributes},
                        scope.scope.name,
                        # The official exporter leaves out the trace flags (bits 0 to 7) that the protocol asks for.
                        (
                            span.trace_id,
                            span.parent_span_id,
                            span.name,
                            span.kind,
                            span.trace_state,
                            span.flags & ~0xFF,
                        ),
                        (span.start_time_unix_nano, span.end_time_unix_nano),
                        told(span.attributes),
                        (span.status.code, span.status.message),
                        [
                            (
                                event.name,
                                event.time_unix_nano,
                                told(event.attributes),
                            )
                            for event in span.events
                        ],
                        [(link.trace_id, link.span_id, link.flags & ~0xFF) for link in span.links],
                    )
    return found


def test_a_users_batch_processor_delivers_the_same_spans_as_our_exporter(collector):
    base = f"http://127.0.0.1:{collector.server_address[1]}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": base, "OTEL_METRICS_EXPORTER": "none"}
    with recording(threads=True, exporters=("otlp",), environ=environ):
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/theirs"))
        api.get_tracer_provider().add_span_processor(processor)
        tracer = api.get_tracer("shop", "1.0")
        with tracer.start_as_current_span("outer", kind=SpanKind.CLIENT, links=[Link(REMOTE)]) as outer:
            outer.add_event("cache miss", {"key": "cart"})
            with insitu.span("inner", items=3, price=1.5, ok=True, name="Zoë", tags=("a", "b")):
                pass
            with pytest.raises(LookupError):  # noqa: SIM117
                with tracer.start_as_current_span("failing"):
                    raise LookupError("nothing there")
            outer.set_status(StatusCode.OK)
        with tracer.start_as_current_span("child", context=api.set_span_in_context(NonRecordingSpan(REMOTE))):
            pass
        assert insitu.flush(5.0)
        assert processor.force_flush()
        provider.shutdown()
    ours, theirs = facts("/v1/traces", collector.received), facts("/theirs", collector.received)
    print(f"{len(ours)} spans by ours, {len(theirs)} by the official exporter")
    assert len(ours) == 4
    assert ours == theirs


def test_nothing_is_logged_on_the_way(recorded, tracer, caplog):
    caplog.set_level(logging.DEBUG)
    with tracer.start_as_current_span("a"), insitu.span("b"):
        pass
    assert recorded.spans
    assert caplog.records == []
    assert guard.counts == {}
