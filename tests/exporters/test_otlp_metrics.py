import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1 import metrics_pb2

from insitu.core import guard
from insitu.core.records import Exemplar, Family, Point, Scope
from insitu.exporters.otlp_encoding import scoped
from insitu.exporters.otlp_metrics import Encoder

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA


def counter(value, time, start=100, **fields):
    return Family(
        "orders", "counter", [Point({"plan": "pro"}, value)], unit="{order}", start=start, time=time, **fields
    )


def histogram(total, buckets, time, start=100, exemplars=()):
    point = Point({"route": "/"}, total, buckets, exemplars)
    return Family(
        "latency", "histogram", [point], unit="s", help="How long.", bounds=(0.1, 1.0), start=start, time=time
    )


def parsed(encoder, family):
    """The metric as the official library reads it, or None where nothing is sent."""
    encoder.begin()
    metric = encoder.metric(family)
    if not metric.points:
        assert metric.data == b""
        return None
    (scope,) = metrics_pb2.ResourceMetrics.FromString(scoped(family.scope, [metric.data])).scope_metrics
    (read,) = scope.metrics
    data = getattr(read, read.WhichOneof("data"))
    assert len(data.data_points) == metric.points
    return read


def test_a_counter_is_a_monotonic_cumulative_sum_of_integers():
    metric = parsed(Encoder("cumulative"), counter(3, 200))
    assert (metric.name, metric.unit, metric.description) == ("orders", "{order}", "")
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == CUMULATIVE
    (point,) = metric.sum.data_points
    assert (point.as_int, point.WhichOneof("value")) == (3, "as_int")
    assert (point.start_time_unix_nano, point.time_unix_nano) == (100, 200)
    assert [(pair.key, pair.value.string_value) for pair in point.attributes] == [("plan", "pro")]


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        (0, "as_int", 0),
        (-5, "as_int", -5),
        (2**63 - 1, "as_int", 2**63 - 1),
        (2.5, "as_double", 2.5),
        (2**70, "as_double", 2.0**70),
        (math.inf, "as_double", math.inf),
    ],
)
def test_a_number_keeps_its_kind_where_64_bits_can_hold_it(value, kind, read):
    family = Family("queue", "updown", [Point({}, value)], start=1, time=2)
    (point,) = parsed(Encoder("cumulative"), family).sum.data_points
    assert point.WhichOneof("value") == kind
    assert getattr(point, kind) == read


def test_an_up_down_counter_is_a_sum_that_may_fall_and_a_gauge_has_no_start():
    updown = parsed(Encoder("delta"), Family("queue", "updown", [Point({}, 4)], start=1, time=2))
    assert not updown.sum.is_monotonic
    assert updown.sum.aggregation_temporality == CUMULATIVE
    (point,) = parsed(
        Encoder("delta"), Family("temperature", "gauge", [Point({}, math.nan)], start=1, time=2)
    ).gauge.data_points
    assert math.isnan(point.as_double)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (0, 2)


def test_a_histogram_has_bounds_counts_sum_and_exemplars():
    exemplar = Exemplar(0.5, 150, 0xABC, 0xDEF)
    metric = parsed(Encoder("cumulative"), histogram(1.7, [2, 1, 4], 200, exemplars=[None, exemplar, None]))
    assert metric.description == "How long."
    assert metric.histogram.aggregation_temporality == CUMULATIVE
    (point,) = metric.histogram.data_points
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([0.1, 1.0], [2, 1, 4])
    assert (point.count, point.sum, point.start_time_unix_nano, point.time_unix_nano) == (7, 1.7, 100, 200)
    (kept,) = point.exemplars
    assert (kept.as_double, kept.time_unix_nano) == (0.5, 150)
    assert (int.from_bytes(kept.trace_id, "big"), int.from_bytes(kept.span_id, "big")) == (0xABC, 0xDEF)
    assert (len(kept.trace_id), len(kept.span_id)) == (16, 8)


def test_delta_says_what_was_added_since_the_last_collection():
    encoder = Encoder("delta")
    points = [parsed(encoder, counter(value, time)).sum for value, time in ((3, 200), (10, 300), (11, 400))]
    assert {each.aggregation_temporality for each in points} == {DELTA}
    seen = [
        (each.data_points[0].as_int, each.data_points[0].start_time_unix_nano, each.data_points[0].time_unix_nano)
        for each in points
    ]
    assert seen == [(3, 100, 200), (7, 200, 300), (1, 300, 400)]


def test_delta_histograms_subtract_bucket_by_bucket_and_name_each_exemplar_once():
    encoder = Encoder("delta")
    parsed(encoder, histogram(1.0, [1, 1, 0], 200, exemplars=[Exemplar(0.05, 150, 1, 1), None, None]))
    exemplars = [Exemplar(0.05, 150, 1, 1), None, Exemplar(9.0, 250, 2, 2)]
    (point,) = parsed(encoder, histogram(11.0, [1, 2, 1], 300, exemplars=exemplars)).histogram.data_points
    assert (list(point.bucket_counts), point.count, point.sum) == ([0, 1, 1], 2, 10.0)
    assert [exemplar.as_double for exemplar in point.exemplars] == [9.0]


def test_delta_sends_nothing_for_a_series_that_stood_still():
    encoder = Encoder("delta")
    parsed(encoder, counter(3, 200))
    assert parsed(encoder, counter(3, 300)) is None
    assert parsed(encoder, counter(4, 400)).sum.data_points[0].as_int == 1


def test_delta_takes_a_series_that_began_anew_as_a_whole():
    encoder = Encoder("delta")
    parsed(encoder, counter(30, 200))
    fallen = parsed(encoder, counter(2, 300)).sum.data_points[0]
    assert (fallen.as_int, fallen.start_time_unix_nano) == (2, 100)
    restarted = parsed(encoder, counter(50, 400, start=350)).sum.data_points[0]
    assert (restarted.as_int, restarted.start_time_unix_nano) == (50, 350)
    encoder.forget()
    assert parsed(encoder, counter(60, 500, start=350)).sum.data_points[0].as_int == 60


def test_delta_remembers_a_series_that_was_missing_for_a_while():
    encoder = Encoder("delta")
    parsed(encoder, counter(3, 200))
    for _ in range(5):
        encoder.begin()
    assert parsed(encoder, counter(5, 300)).sum.data_points[0].as_int == 2
    for _ in range(20):
        encoder.begin()
    assert encoder._seen == {}


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.floats(0, 10)), min_size=1, max_size=8)
)
def test_the_differences_add_up_to_the_whole(steps):
    encoder = Encoder("delta")
    counts, total, sent, sum_sent = [0, 0, 0], 0.0, [0, 0, 0], 0.0
    for round_number, (added, value) in enumerate(steps):
        counts = [old + new for old, new in zip(counts, added, strict=True)]
        total += value
        metric = parsed(encoder, histogram(total, counts, 200 + round_number))
        if metric is not None:
            (point,) = metric.histogram.data_points
            sent = [old + new for old, new in zip(sent, point.bucket_counts, strict=True)]
            sum_sent += point.sum
    assert sent == counts
    assert math.isclose(sum_sent, total, abs_tol=1e-9)


def test_a_point_that_cannot_be_encoded_is_lost_alone():
    points = [Point({"n": number}, number if number != 50 else "poison") for number in range(100)]
    metric = Encoder("cumulative").metric(Family("n", "counter", points, start=1, time=2, scope=Scope("s")))
    assert (metric.points, metric.lost) == (99, 1)
    assert guard.counts["otlp.point"] >= 1


def test_a_family_without_points_gives_nothing():
    assert parsed(Encoder("cumulative"), Family("none", "counter", [])) is None
