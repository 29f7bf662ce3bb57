import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider as SdkProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import insitu
from insitu.signals.meter import MeterProvider
from insitu.signals.metrics import registry
from insitu.testing import recording

before_init = api.get_meter("made before init").create_counter("proxied")
meters = MeterProvider(registry)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test has its own instruments and callbacks."""
    monkeypatch.setattr(registry, "instruments", dict(registry.instruments))
    monkeypatch.setattr(registry, "callbacks", list(registry.callbacks))


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def test_the_global_provider_is_ours_and_early_instruments_work(recorded):
    assert isinstance(api.get_meter_provider(), MeterProvider)
    before_init.add(2, {"a": 1})
    assert recorded.point("proxied").value == 2


def test_instruments_stay_valid_through_shutdown_and_init():
    counter = meters.get_meter("again").create_counter("again")
    for _ in range(2):
        with recording() as recorded:
            counter.add(3)
            assert recorded.point("again").value == 3
        counter.add(100)


def test_a_scope_keeps_its_metrics_apart(recorded):
    for version in ("1", "2"):
        meters.get_meter("shop", version, "https://schema").create_counter("sold", "{item}", "Sold.").add(int(version))
    families = [family for family in recorded.runtime.collect() if family.name == "sold"]
    assert {(family.scope.version, family.points[0].value) for family in families} == {("1", 1), ("2", 2)}
    assert {(family.unit, family.help, family.scope.schema_url) for family in families} == {
        ("{item}", "Sold.", "https://schema")
    }


def test_observable_instruments_ask_functions_and_generators(recorded):
    meter = meters.get_meter("observed")

    def rising():
        number = 0
        options = yield
        while True:
            assert isinstance(options, api.CallbackOptions)
            number += 1
            options = yield [api.Observation(number, {"from": "generator"})]

    meter.create_observable_counter("seen", [lambda _: [api.Observation(5, {"from": "function"})], rising()])
    meter.create_observable_gauge("level", [lambda _: [api.Observation(1.5)]])
    meter.create_observable_up_down_counter("waiting", [lambda _: iter([api.Observation(-3)])])
    assert recorded.point("seen", {"from": "function"}).value == 5
    assert recorded.point("seen", {"from": "generator"}).value == 2
    assert (recorded.point("level").value, recorded.point("waiting").value) == (1.5, -3)


def test_a_callback_that_raises_costs_only_itself():
    def broken(options):
        raise RuntimeError("callback")

    with recording(strict=False) as recorded:
        meters.get_meter("observed").create_observable_gauge(
            "half", [broken, lambda _: [api.Observation("no number"), api.Observation(4), None]]
        )
        assert recorded.point("half").value == 4
        counted = {point.labels["where"]: point.value for point in recorded.family("insitu.internal_errors").points}
    print(f"0 propagated; {counted}")
    assert counted["callback half"] >= 2


def test_a_measurement_in_a_trace_is_an_exemplar(recorded):
    histogram = meters.get_meter("exemplars").create_histogram("sizes")
    with insitu.span("a") as span:
        histogram.record(7)
    (exemplar,) = [exemplar for exemplar in recorded.point("sizes").exemplars if exemplar]
    assert (exemplar.value, exemplar.span_id) == (7, span.span_id)


def test_label_sets_are_bounded_and_the_total_exact(recorded):
    counter = meters.get_meter("bounded").create_counter("bounded")
    for number in range(5_000):
        counter.add(1, {"user": number})
    points = recorded.family("bounded").points
    assert len(points) == 2_001
    assert sum(point.value for point in points) == 5_000


def test_the_order_of_attributes_makes_no_difference(recorded):
    counter = meters.get_meter("order").create_counter("order")
    counter.add(1, {"a": 1, "b": 2})
    counter.add(1, {"b": 2, "a": 1})
    assert recorded.point("order").value == 2


def test_unhashable_attribute_values_are_counted(recorded):
    counter = meters.get_meter("lists").create_counter("lists")
    counter.add(1, {"a": [1, 2]})
    counter.add(1, {"a": [1, 2]})
    counter.add(5, {"a": {"b": 1}})
    assert {tuple(point.labels.items()): point.value for point in recorded.family("lists").points} == {
        (("a", (1, 2)),): 2,
        (("a", "{'b': 1}"),): 5,
    }


# --- against OpenTelemetry's SDK ---

labels = st.dictionaries(
    st.sampled_from("ab"), st.text("xy", max_size=2) | st.integers(2, 4) | st.booleans(), max_size=2
)
amounts = st.integers(-100, 100) | st.floats(-20_000, 20_000)
KINDS = ("counter", "up_down_counter", "gauge", "histogram", "histogram_of_three")
measurements = st.lists(st.tuples(st.sampled_from(KINDS), amounts, labels), max_size=25)


def play(meter, measured):
    """Make one instrument of each kind and feed it."""
    made = {
        "counter": meter.create_counter("counter").add,
        "up_down_counter": meter.create_up_down_counter("up_down_counter").add,
        "gauge": meter.create_gauge("gauge").set,
        "histogram": meter.create_histogram("histogram").record,
        "histogram_of_three": meter.create_histogram(
            "histogram_of_three", explicit_bucket_boundaries_advisory=[1.0, 10.0]
        ).record,
    }
    for kind, amount, attributes in measured:
        # The SDK drops a negative measurement of a counter and of a histogram with a warning each.
        made[kind](abs(amount) if "histogram" in kind or kind == "counter" else amount, attributes)


def theirs(measured):
    reader = InMemoryMetricReader()
    provider = SdkProvider([reader], shutdown_on_exit=False)
    play(provider.get_meter("test"), measured)
    found = {}
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        for point in metric.data.data_points:
            key = metric.name, frozenset((name, type(value), value) for name, value in point.attributes.items())
            found[key] = (
                (pytest.approx(point.sum), tuple(point.bucket_counts), tuple(point.explicit_bounds))
                if "histogram" in metric.name
                else (pytest.approx(point.value),)
            )
    return found


def ours(measured):
    found = {}
    with recording() as recorded:
        play(meters.get_meter("test"), measured)
        for family in recorded.runtime.collect():
            for point in family.points if family.scope.name == "test" else ():
                key = family.name, frozenset((name, type(value), value) for name, value in point.labels.items())
                found[key] = (
                    (point.value, tuple(point.buckets), tuple(family.bounds))
                    if family.kind == "histogram"
                    else (point.value,)
                )
    return found


@settings(max_examples=100, deadline=None)
@given(measurements)
def test_random_measurements_give_the_points_of_opentelemetrys_sdk(measured):
    assert ours(measured) == theirs(measured)
