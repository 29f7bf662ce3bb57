import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.analysis.keeping import ERROR, FIRST, FLAG, FLAGGED, REASONS, SLOW, STEADY, Keeper, Policy
from insitu.core.records import UNDECIDED
from tests.store.facts import SECOND, START, a_span, a_trace


def trace_of(name="GET /", seconds=0.01, *, at=START, error=False, own=None, trace_id=None, root=True, answer="200"):
    span = a_span(name, at=at, seconds=seconds, root=root, own=own, answer=answer, failed=error)
    trace = a_trace(span, trace_id=random.getrandbits(128) if trace_id is None else trace_id, kept="")
    trace.since = at
    return trace


def keeper(**quotas):
    return Keeper(Policy(quotas={**dict.fromkeys(REASONS, 1_000), **quotas}), START)


def decided(judge, trace, now=START):
    judge.decide([trace], now)
    return trace.kept


@pytest.fixture
def judge():
    """A keeper that has seen the one kind of request, and how long it takes."""
    judge = keeper()
    rng = random.Random(1)
    judge.decide([trace_of(seconds=rng.uniform(0.009, 0.011)) for _ in range(200)], START)
    return judge


def test_the_first_of_a_kind_is_kept(judge):
    kinds = [("GET /a", "200"), ("GET /a", "404"), ("GET /a", "200"), ("POST /a", "200")]
    assert [decided(judge, trace_of(name, answer=answer)) for name, answer in kinds] == [FIRST, FIRST, STEADY, FIRST]


def test_an_error_is_kept_whether_the_root_or_a_span_below_it_has_failed(judge):
    handled = trace_of()
    handled.errors = {1: object()}
    assert (decided(judge, trace_of(error=True)), decided(judge, handled)) == (ERROR, ERROR)


def test_a_flag_on_any_span_keeps_the_trace(judge):
    trace = trace_of()
    trace.spans.insert(0, trace_of(own={FLAG: True}, root=False).spans[0])
    assert decided(judge, trace) == FLAGGED


@pytest.mark.parametrize(("seconds", "reason"), [(0.0112, SLOW), (0.0101, STEADY), (0.001, STEADY)])
def test_what_is_slow_follows_from_the_route(judge, seconds, reason):
    assert decided(judge, trace_of(seconds=seconds)) == reason


def test_the_limit_of_a_route_follows_when_the_route_becomes_slower():
    judge = keeper()
    judge.decide([trace_of(seconds=0.01) for _ in range(2_000)], START)
    judge.decide([trace_of(seconds=0.1) for _ in range(2_000)], START)
    assert decided(judge, trace_of(seconds=0.1)) != SLOW


def test_a_quota_holds_in_each_window_and_what_is_over_it_is_counted_as_seen():
    judge = keeper(error=3)
    for window in range(3):
        now = START + window * 10 * SECOND
        traces = [trace_of(error=True, at=now) for _ in range(10)]
        judge.decide(traces, now)
        assert sum(trace.kept == ERROR for trace in traces) == 3
    judge.turn(START + 30 * SECOND)
    assert [(tally.seen[ERROR], tally.kept[ERROR], tally.weight(ERROR)) for tally in judge.closed()] == [
        (10, 3, 10 / 3)
    ] * 3
    assert judge.closed() == []


def test_little_traffic_is_kept_whole():
    judge = keeper(steady=100)
    traces = [trace_of(at=START + number * SECOND) for number in range(60)]
    for trace in traces:
        judge.decide([trace], trace.since)
    assert all(trace.kept for trace in traces)


def test_the_steady_share_falls_under_load_and_rises_again_behind_it():
    judge = keeper(steady=100)
    judge.decide([trace_of() for _ in range(20_000)], START + SECOND)
    assert judge.level >= 6
    for window in range(1, 12):
        now = START + window * 10 * SECOND
        judge.decide([trace_of(at=now) for _ in range(20)], now)
    assert judge.level == 0


def test_of_two_processes_the_one_with_the_lower_rate_keeps_what_the_other_keeps_too():
    few, many = keeper(), keeper()
    few.level, many.level = 5, 2
    pairs = [
        (trace_of("a", trace_id=ident), trace_of("a", trace_id=ident))
        for ident in map(random.Random(2).getrandbits, [128] * 4_000)
    ]
    few.decide([one for one, _ in pairs], START)
    many.decide([other for _, other in pairs], START)
    kept = Counter((bool(one.kept), bool(other.kept)) for one, other in pairs[1:] if SLOW not in (one.kept, other.kept))
    assert kept[True, False] == 0
    assert kept[True, True] > 60


def test_a_part_is_undecided_until_the_trace_ends_and_then_the_rest_follows():
    judge = keeper()
    early, root = trace_of("query", root=False, trace_id=7), trace_of(error=True, trace_id=7)
    late, stranger = trace_of("late", root=False, trace_id=7), trace_of("other", root=False, trace_id=8)
    judge.decide([early, root, late, stranger], START + SECOND)
    assert [trace.kept for trace in (early, root, late, stranger)] == [UNDECIDED, ERROR, ERROR, UNDECIDED]


def test_after_a_minute_a_trace_is_decided_by_what_there_is():
    judge = keeper()
    part = trace_of("query", root=False, trace_id=7)
    part.errors = {1: object()}
    judge.decide([part], START + 61 * SECOND)
    root = trace_of(trace_id=7)
    judge.decide([root], START + 70 * SECOND)
    assert (part.kept, root.kept) == (ERROR, ERROR)


def test_an_unsampled_trace_is_not_kept(judge):
    trace = trace_of(error=True)
    trace.sampled = False
    assert decided(judge, trace) == ""


def test_rates_estimated_from_kept_traces_and_their_weights_are_right():
    """200,000 requests of two routes with 0.1 % errors and a slow tail, ten times as fast in the second half."""
    rng = random.Random(3)
    judge = Keeper(Policy(), START)
    exact, kept, now = Counter(), [], START
    for number in range(200_000):
        now += round(rng.expovariate(40.0 if number < 100_000 else 400.0) * SECOND)
        kind = rng.choice(("GET /", "GET /cart")), rng.random() < 0.001
        trace = trace_of(kind[0], rng.lognormvariate(-4, 1.0), at=now, error=kind[1], trace_id=rng.getrandbits(128))
        judge.decide([trace], now)
        exact[kind] += 1
        if trace.kept:
            kept.append((kind, trace))
    judge.turn(now)
    tallies, estimated = judge.closed(), Counter()
    for kind, trace in kept:
        estimated[kind] += next(each for each in tallies if trace.since <= each.end).weight(trace.kept)
    assert estimated["GET /", False] == pytest.approx(exact["GET /", False], rel=0.05)
    assert estimated["GET /cart", False] == pytest.approx(exact["GET /cart", False], rel=0.05)
    assert sum(estimated.values()) == pytest.approx(200_000, rel=0.001)
    assert sum(number for (_, failed), number in exact.items() if failed) == judge.kept[ERROR]


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans(), st.integers(0, 2**128 - 1)), max_size=200))
def test_every_trace_is_seen_once_and_no_window_keeps_more_than_its_quota(stream):
    quotas = {ERROR: 3, FLAGGED: 3, FIRST: 2, SLOW: 2, STEADY: 4}
    judge = Keeper(Policy(quotas=quotas), START)
    now = START
    idents = set()
    for pause, failed, ident in stream:
        now += round(pause * SECOND)
        judge.decide([trace_of(at=now, error=failed, trace_id=ident)], now)
        idents.add(ident)
    judge.turn(now)
    judge.turn(now)
    tallies = judge.closed()
    assert all(tally.kept[reason] <= quotas[reason] for tally in tallies for reason in REASONS)
    assert len(idents) <= sum(judge.seen.values()) <= len(stream)
    assert sum(sum(tally.seen.values()) for tally in tallies) + sum(judge._tally.seen.values()) == sum(
        judge.seen.values()
    )
