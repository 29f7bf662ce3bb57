import math
import random
from math import inf, nan, nextafter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from insitu.core.histogram import MAX_BUCKETS, MAX_SCALE, MIN_SCALE, Histogram, bucket_index

SMALLEST = 2.0**-1022
positive = st.floats(min_value=SMALLEST, allow_infinity=False)
ordinary = st.floats(min_value=1e-6, max_value=1e5)
powers = st.integers(-1021, 1023).map(lambda exponent: math.ldexp(1.0, exponent))
near_powers = st.tuples(powers, st.integers(-3, 3)).map(lambda pair: _steps(*pair))
anything = st.floats() | near_powers
lists = st.lists(ordinary | anything, max_size=40)


def _steps(value, steps):
    for _ in range(abs(steps)):
        value = nextafter(value, math.copysign(inf, steps))
    return value if value < inf else 1.0


def of(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def merged(*parts):
    total = Histogram()
    for part in parts:
        total.merge(part)
    return total


def test_a_new_histogram_is_empty_and_as_fine_as_can_be():
    empty = Histogram()
    assert (empty.count, empty.sum, empty.scale, empty.counts, empty.zero_count) == (0, 0.0, 20, [], 0)
    assert math.isnan(empty.quantile(0.5))


def test_an_exact_power_of_two_is_the_upper_end_of_its_bucket():
    assert bucket_index(1.0, 0) == -1
    assert bucket_index(2.0, 0) == 0
    assert bucket_index(nextafter(2.0, 3.0), 0) == 1
    assert bucket_index(4.0, 3) == 15


@given(value=positive, scale=st.integers(1, MAX_SCALE))
@settings(max_examples=500, deadline=None)
def test_the_bucket_is_the_one_of_the_opentelemetry_sdk(value, scale):
    assume(abs(math.frexp(value)[0] - 0.75) < 0.25 - 1e-12 or math.frexp(value)[0] == 0.5)
    assert bucket_index(value, scale) == LogarithmMapping(scale).map_to_index(value)


@given(value=near_powers, scale=st.integers(1, MAX_SCALE))
def test_beside_a_power_of_two_the_bucket_is_at_most_one_from_the_sdks_whose_logarithm_rounds_across(value, scale):
    ours = bucket_index(value, scale)
    assert abs(ours - LogarithmMapping(scale).map_to_index(value)) <= 1
    assert ours >> scale == ExponentMapping(0).map_to_index(value)


@given(value=positive | near_powers, scale=st.integers(-10, 0))
@settings(max_examples=500, deadline=None)
def test_the_bucket_of_a_coarse_scale_is_the_one_of_the_opentelemetry_sdk(value, scale):
    assert bucket_index(value, scale) == ExponentMapping(scale).map_to_index(value)


@given(pair=st.tuples(near_powers, near_powers) | st.tuples(positive, positive), scale=st.integers(-10, MAX_SCALE))
def test_a_larger_value_never_stands_in_a_lower_bucket(pair, scale):
    low, high = sorted(pair)
    assert bucket_index(low, scale) <= bucket_index(high, scale)


@given(value=positive | near_powers, fine=st.integers(MIN_SCALE, MAX_SCALE), steps=st.integers(0, 24))
def test_a_coarser_bucket_is_the_finer_one_shifted(value, fine, steps):
    coarse = max(MIN_SCALE, fine - steps)
    assert bucket_index(value, coarse) == bucket_index(value, fine) >> (fine - coarse)


@given(values=lists)
def test_every_call_is_counted_and_the_buckets_stay_bounded(values):
    histogram = of(values)
    assert histogram.count == len(values)
    assert histogram.zero_count == sum(not SMALLEST <= value < inf for value in values)
    assert len(histogram.counts) <= MAX_BUCKETS
    assert histogram.scale >= MIN_SCALE


@given(values=st.lists(ordinary, min_size=1, max_size=60))
def test_each_value_stands_in_the_bucket_of_its_scale(values):
    histogram = of(values)
    expected = {}
    for value in values:
        index = bucket_index(value, histogram.scale)
        expected[index] = expected.get(index, 0) + 1
    got = {index: number for index, number in enumerate(histogram.counts, histogram.offset) if number}
    assert got == expected


def test_what_is_not_a_positive_finite_number_counts_as_a_zero_and_adds_nothing():
    histogram = of([0.0, -0.0, -3.0, nan, inf, -inf, 5e-324, 2.5])
    assert (histogram.count, histogram.zero_count, histogram.sum) == (8, 7, 2.5)
    assert (histogram.minimum, histogram.maximum) == (2.5, 2.5)


@pytest.mark.parametrize("values", [[SMALLEST, 1.7976931348623157e308], [1e-300, 1.0], [2.0**-1022, 2.0**1023]])
def test_the_whole_range_of_floats_fits(values):
    histogram = of(values)
    assert histogram.count == 2
    assert len(histogram.counts) <= MAX_BUCKETS
    assert histogram.sum == pytest.approx(sum(values))


def test_a_sum_beyond_every_float_is_infinite_and_the_histogram_lives_on():
    histogram = of([1.7976931348623157e308] * 3)
    assert histogram.sum == inf
    assert Histogram.from_bytes(histogram.to_bytes()) == histogram


def test_whole_numbers_and_integers_are_recorded_as_floats_are():
    assert of([1, 8, 200]) == of([1.0, 8.0, 200.0])


@given(values=st.lists(st.floats(min_value=2**-12, max_value=1e9), max_size=60))
def test_the_sum_is_exact(values):
    assert of(values).sum == math.fsum(values)


@given(values=lists, seed=st.integers(0, 1000))
def test_the_order_of_the_records_does_not_matter(values, seed):
    shuffled = random.Random(seed).sample(values, len(values))
    assert of(shuffled).to_bytes() == of(values).to_bytes()


@given(values=lists, cuts=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_merged_parts_equal_the_whole_whatever_the_cuts(values, cuts):
    low, high = sorted(cuts)
    parts = of(values[:low]), of(values[low:high]), of(values[high:])
    assert merged(*parts) == of(values)


@given(a=lists, b=lists, c=lists)
def test_merging_is_commutative_and_associative(a, b, c):
    first, second, third = of(a), of(b), of(c)
    assert merged(first, second) == merged(second, first)
    assert merged(merged(first, second), third) == merged(first, merged(second, third))
    assert merged(first, second).count == len(a) + len(b)


@given(values=lists)
def test_an_empty_histogram_changes_nothing(values):
    assert merged(of(values), Histogram()) == of(values) == merged(Histogram(), of(values))


@given(a=lists, b=lists)
def test_merging_leaves_the_other_as_it_was(a, b):
    other, target = of(b), of(a)
    target.merge(other)
    target.record(3.0)
    target.record(1e-9)
    assert other == of(b)


def test_merging_with_itself_doubles_it():
    histogram = of([0.0, 1.0, 3.0])
    histogram.merge(histogram)
    assert histogram == of([0.0, 1.0, 3.0] * 2)


@given(values=st.lists(ordinary | st.just(0.0), min_size=1, max_size=80), q=st.floats(0, 1))
def test_a_quantile_is_within_the_relative_error_of_the_recorded_value(values, q):
    histogram = of(values)
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    assert histogram.quantile(q) == pytest.approx(exact, rel=histogram.relative_error * (1 + 1e-9) + 1e-12, abs=0)


@given(values=st.lists(positive, min_size=1, max_size=20), q=st.floats(0, 1))
def test_a_quantile_never_leaves_what_was_recorded(values, q):
    assert min(values) <= of(values).quantile(q) <= max(values)


@pytest.mark.parametrize("q", [-0.1, 1.1, nan])
def test_a_quantile_outside_0_to_1_is_refused(q):
    with pytest.raises(ValueError, match="between 0 and 1"):
        of([1.0]).quantile(q)


def test_a_service_between_one_millisecond_and_ten_seconds_is_known_to_five_percent():
    histogram = of([0.001 * 10 ** (step / 250) for step in range(1001)])
    print(f"scale {histogram.scale}, {len(histogram.counts)} buckets, relative error {histogram.relative_error:.4f}")
    assert histogram.relative_error < 0.05


@given(values=lists)
def test_bytes_give_the_same_histogram_back(values):
    histogram = of(values)
    assert Histogram.from_bytes(histogram.to_bytes()) == histogram


@given(many=st.lists(lists, max_size=6))
def test_many_merged_at_once_are_those_merged_one_by_one(many):
    one_by_one = Histogram()
    for values in many:
        one_by_one.merge(of(values))
    assert Histogram.merged(of(values).to_bytes() for values in many) == one_by_one


def test_one_that_is_damaged_among_many_is_a_value_error():
    with pytest.raises(ValueError, match="not the bytes of a histogram"):
        Histogram.merged([of([1.0]).to_bytes(), b"\x02"])


def test_bytes_are_compact():
    rng = random.Random(1)
    size = len(of([rng.lognormvariate(-4, 0.5) for _ in range(10_000)]).to_bytes())
    print(f"{size} bytes for 10,000 durations")
    assert size < 300


@given(values=lists, cut=st.integers(0, 200))
def test_cut_bytes_are_refused_or_are_another_valid_histogram(values, cut):
    data = of(values).to_bytes()[:cut]
    try:
        histogram = Histogram.from_bytes(data)
    except ValueError:
        return
    assert histogram.to_bytes() == data


@given(data=st.binary(max_size=60))
def test_bytes_of_something_else_never_break_more_than_a_value_error(data):
    for candidate in (data, b"\x01" + data, b"\x01\x0d\x00" + data):
        try:
            histogram = Histogram.from_bytes(candidate)
        except ValueError:
            continue
        histogram.record(1.0)
        assert histogram.count >= 1


def test_a_later_format_is_refused():
    with pytest.raises(ValueError, match="not the bytes of a histogram"):
        Histogram.from_bytes(b"\x02" + of([1.0]).to_bytes()[1:])


def test_it_equals_nothing_but_a_histogram():
    assert of([1.0]) != 1.0
    assert of([1.0]) != of([2.0])
