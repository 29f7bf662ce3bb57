import random

import pytest
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState, set_span_in_context

import insitu
from insitu.core import guard
from insitu.signals.sampling import Custom, Ratio, from_names
from insitu.signals.tracing import provider
from insitu.testing import recording


@pytest.fixture(autouse=True)
def unheard(monkeypatch):
    """No warning was given a moment ago, so that each is heard."""
    monkeypatch.setattr(guard, "_last_logged", {})


IDS = [random.Random(7).getrandbits(128) for _ in range(5_000)]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.25, 0.5, 0.999, 1.0])
def test_a_share_of_traces_is_the_one_that_opentelemetrys_sdk_takes(share):
    ours, theirs = Ratio(share), sdk.TraceIdRatioBased(share)
    assert [ours.decide(number, None, "a", SpanKind.INTERNAL, None).sampled for number in IDS] == [
        theirs.should_sample(None, number, "a").decision.is_sampled() for number in IDS
    ]


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_the_decision_of_a_parent_is_followed(flags):
    parent = (5, 6, flags, "")
    assert Ratio(0.0).decide(5, parent, "a", SpanKind.SERVER, None).sampled == bool(flags & 1)
    assert Ratio(1.0).decide(5, parent, "a", SpanKind.SERVER, None).sampled == bool(flags & 1)
    assert Ratio(1.0, parent_based=False).decide(5, parent, "a", SpanKind.SERVER, None).sampled
    assert not Ratio(0.0, parent_based=False).decide(5, parent, "a", SpanKind.SERVER, None).sampled


@pytest.mark.parametrize(
    "name",
    [
        "always_on",
        "ALWAYS_OFF",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ],
)
@pytest.mark.parametrize("flags", [None, 0, 1])
def test_the_standard_names_mean_what_they_mean_in_the_sdk(name, flags, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name.lower())
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    ours, theirs = from_names(name, "0.5", lambda _: None), sdk._get_from_env_or_default()
    for number in IDS[:200]:
        above = context = None
        if flags is not None:
            above = (number, 6, flags, "")
            ids = SpanContext(number, 6, is_remote=True, trace_flags=TraceFlags(flags))
            context = set_span_in_context(NonRecordingSpan(ids))
        expected = theirs.should_sample(context, number, "a").decision.is_sampled()
        assert ours.decide(number, above, "a", SpanKind.INTERNAL, None).sampled == expected


@pytest.mark.parametrize("argument", ["", "text", "-1", "2", "nan"])
def test_a_bad_ratio_samples_everything_and_says_so(argument, caplog):
    sampler = from_names("traceidratio", argument, lambda _: None)
    assert all(sampler.decide(number, None, "a", SpanKind.INTERNAL, None).sampled for number in IDS[:100])
    assert len(caplog.records) == 1


def test_an_unknown_sampler_warns(caplog):
    assert from_names("odd", "", lambda _: None) is None
    assert "OTEL_TRACES_SAMPLER=odd" in caplog.text


def test_a_sampler_that_the_user_installed_is_made_with_its_argument():
    made = from_names("mine", "arg", lambda name: lambda argument: Asked(name, argument))
    made.decide(1, None, "a", SpanKind.SERVER, {"k": 1})
    assert (made._sampler.name, made._sampler.argument) == ("mine", "arg")


class Asked(sdk.Sampler):
    def __init__(self, name="", argument="", decision=sdk.Decision.RECORD_AND_SAMPLE):
        self.name, self.argument, self.decision, self.asked = name, argument, decision, []

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None):
        self.asked.append((trace_id, name, kind, dict(attributes)))
        return sdk.SamplingResult(self.decision, {"by": "sampler"}, TraceState([("s", "1")]))

    def get_description(self):
        return "asked"


@pytest.mark.parametrize("decision", sdk.Decision)
def test_a_users_sampler_is_asked_once_for_each_local_root(decision, monkeypatch):
    with recording() as recorded:
        asked = Asked(decision=decision)
        provider.sampler = Custom(asked)
        with provider.get_tracer("t").start_as_current_span("root", kind=SpanKind.CLIENT, attributes={"a": 1}) as root:
            recording_now = root.is_recording()
            with insitu.span("child"):
                pass
            ids = root.get_span_context()
        names = [span.name for span in recorded.spans]
    assert [(name, kind, attributes) for _, name, kind, attributes in asked.asked] == [
        ("root", SpanKind.CLIENT, {"a": 1})
    ]
    assert ids.trace_state.to_header() == "s=1"
    assert ids.trace_flags.sampled == decision.is_sampled()
    assert recording_now == decision.is_recording()
    assert names == (["child", "root"] if decision.is_sampled() else [])


def test_a_sampler_that_raises_samples_everything(caplog):
    class Broken:
        def should_sample(self, *_, **__):
            raise RuntimeError("sampler")

    assert Custom(Broken()).decide(1, None, "a", SpanKind.INTERNAL, None).sampled


def test_a_share_of_zero_records_nothing_and_costs_no_error():
    with recording(sample=0.0) as recorded:
        with insitu.span("a") as span, insitu.span("b"):
            span.set(a=1)
            assert not span.is_recording()
            assert len(insitu.trace_id()) == 32
        assert recorded.spans == []
