import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.store import blocks
from insitu.store.blocks import LogBlock, Malformed, TraceBlock
from tests.store.facts import START, a_log, a_span, a_trace

TEXTS = st.text(max_size=30)
VALUES = st.one_of(
    TEXTS, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
ATTRIBUTES = st.dictionaries(TEXTS, VALUES, max_size=5)
MOMENTS = st.integers(0, 2**62)


@given(
    st.lists(
        st.tuples(TEXTS, TEXTS, MOMENTS, st.floats(0, 1e5), ATTRIBUTES, st.integers(1, 2**128 - 1)),
        min_size=1,
        max_size=8,
    )
)
def test_traces_come_back_as_they_went_in(given_traces):
    filling = TraceBlock()
    for name, outcome, at, seconds, own, trace_id in given_traces:
        child = a_span("child", at=at, root=False, own=dict(own))
        filling.add(a_trace(child, a_span(name, at=at, seconds=seconds, answer=outcome), trace_id=trace_id), "slow")
    block = filling.block()
    entries = list(blocks.trace_entries(block.hot))
    lines = blocks.lines_of(block.rest)
    assert len(entries) == len(lines) == block.entries == len(given_traces)
    for number, (name, outcome, at, seconds, own, trace_id) in enumerate(given_traces):
        entry, (child, root) = entries[number], blocks.spans_of(lines[number])
        assert (entry.name, entry.outcome, entry.start, entry.duration) == (name, outcome, at, round(seconds * 1e9))
        assert (entry.spans, entry.reason, entry.whole) == (2, "slow", True)
        assert number in blocks.places(block.ids, trace_id.to_bytes(16, "big"))
        assert (root["name"], root["kind"], child["attributes"]) == (name, "server", own)
        assert block.start <= at <= block.end


@given(st.lists(st.tuples(VALUES, MOMENTS, st.integers(1, 24), TEXTS, ATTRIBUTES), min_size=1, max_size=8))
def test_log_records_come_back_as_they_went_in(records):
    filling = LogBlock()
    made = [
        a_log(body, at=at, severity=severity, logger=logger, fields=fields)
        for body, at, severity, logger, fields in records
    ]
    filling.extend(made[:3])
    for each in made[3:]:
        filling.extend([each])
    block = filling.block()
    read = zip(blocks.log_entries(block.hot), blocks.logs_of(block.rest), records, strict=True)
    for entry, line, (body, at, severity, logger, fields) in read:
        assert (entry.timestamp, entry.severity, entry.logger) == (at, severity, logger)
        assert blocks.log_of(line) | {} == {
            "level": "INFO", "body": body, "attributes": fields, "span_id": None, "exception": None, "event": None,
        }  # fmt: skip


def test_an_id_is_found_only_where_an_entry_begins():
    filling = TraceBlock()
    filling.add(a_trace(trace_id=0x0102 << 112 | 0xAA), "steady")
    filling.add(a_trace(trace_id=0xAA << 120 | 0x01), "steady")
    ids = filling.block().ids
    across = ids[8:24]
    assert list(blocks.places(ids, across)) == []
    assert list(blocks.places(ids, ids[16:])) == [1]


@given(st.binary(max_size=200))
def test_what_is_no_block_is_malformed_and_nothing_else(data):
    hot = (lambda: list(blocks.trace_entries(data)), lambda: list(blocks.log_entries(data)))
    for read in (
        *hot,
        lambda: blocks.lines_of(data),
        lambda: blocks.spans_of(data),
        lambda: blocks.logs_of(data),
        lambda: blocks.log_of(data),
    ):
        try:
            read()
        except Malformed:
            continue


def test_a_span_takes_little_room():
    filling = TraceBlock()
    for number in range(200):
        query = {"db.system.name": "sqlite", "db.query.text": "SELECT * FROM product WHERE id = ?", "db.rows": number}
        spans = [a_span("SELECT product", at=START + number, root=False, own=query, parent=number) for _ in range(4)]
        filling.add(a_trace(*spans, a_span("GET /products/{id}", at=START + number)), "steady")
    block = filling.block()
    assert (len(block.ids) + len(block.hot) + len(block.rest)) / 1_000 < 130


def test_a_cut_block_is_malformed():
    filling = TraceBlock()
    filling.add(a_trace(), "steady")
    block = filling.block()
    with pytest.raises(Malformed):
        list(blocks.trace_entries(block.hot[:-1]))
    with pytest.raises(Malformed):
        blocks.lines_of(block.rest[:-3])
