import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from insitu.core import guard
from insitu.core.ports import Delivery, ExporterContext
from insitu.core.ports import Exporter as ExporterProtocol
from insitu.core.records import ErrorRecord, Frame, LogRecord, Resource, SpanEvent
from insitu.exporters import console
from tests.exporters.facts import a_span, a_trace

CODE = compile("pass", "shop/pay.py", "exec")
NO_FUNDS = ErrorRecord("shop.NoFunds", "no funds", [Frame(CODE, 1), Frame(CODE, 12)])
MS = 1_000_000


def printed(records, **options):
    stream = io.StringIO()
    exporter = console.Exporter(stream, **options)
    for part in exporter.encode(records):
        assert exporter.send(part.signal, [part], 1.0) == Delivery(part.items)
    return stream.getvalue()


def without_times(text):
    return re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "T", text).splitlines()


def a_request():
    error = SpanEvent("exception", 5, {}, NO_FUNDS)
    return a_trace(
        [
            a_span(
                name="SELECT orders",
                kind=SpanKind.CLIENT,
                span_id=4,
                parent_id=2,
                start_time=3 * MS,
                end_time=3 * MS + 800_000,
            ),
            a_span(name="load cart", span_id=2, parent_id=1, start_time=2 * MS, end_time=5 * MS),
            a_span(
                name="pay", span_id=3, parent_id=1, start_time=6 * MS, end_time=16 * MS, status_code=2, events=[error]
            ),
            a_span(
                name="GET /orders/{id}",
                kind=SpanKind.SERVER,
                span_id=1,
                parent_id=99,
                parent_remote=True,
                local_root=True,
                start_time=1 * MS,
                end_time=124 * MS,
                own={"http.response.status_code": 500},
                status_code=2,
                status_text="boom",
            ),
        ],
        trace_id=0xABCDEF0123 << 88,
    )


def test_a_request_is_a_tree_of_its_spans_with_durations_and_the_last_frame_of_an_error():
    assert without_times(printed([a_request()])) == [
        "T GET /orders/{id} 500  123 ms  boom  [abcdef01]",
        "             ├ load cart  3 ms",
        "             │ └ SELECT orders  client  800 µs",
        "             └ pay  10 ms  shop.NoFunds: no funds (shop/pay.py:12 in <module>)",
    ]


def test_a_log_record_and_a_lone_error_are_one_line_each():
    log = LogRecord(1, 13, "WARNING", "shop.pay", "slow", {"ms": 12}, 0xABCDEF0123 << 88, 1)
    assert without_times(printed([log, NO_FUNDS])) == [
        "T WARNING  shop.pay slow ms=12  [abcdef01]",
        "T shop.NoFunds: no funds (shop/pay.py:12 in <module>)",
    ]


def test_a_trace_that_is_not_sampled_is_not_shown():
    assert printed([a_trace([a_span()], flags=0)]) == ""


def test_a_huge_trace_is_cut_and_a_deep_one_does_not_run_off_the_page():
    wide = a_trace([a_span(span_id=n + 2, parent_id=1) for n in range(500)] + [a_span(span_id=1, local_root=True)])
    lines = printed([wide]).splitlines()
    assert len(lines) == console.MOST_SPANS + 1
    assert lines[-1].strip() == "… 451 more spans"
    deep = a_trace([a_span(span_id=n + 1, parent_id=n, local_root=n == 0) for n in range(5_000)])
    assert max(map(len, printed([deep]).splitlines())) < 80


def test_spans_that_claim_to_be_their_own_parents_end():
    trace = a_trace([a_span(span_id=1, parent_id=1), a_span(span_id=1, parent_id=0), a_span(span_id=2, parent_id=1)])
    assert 1 <= len(printed([trace]).splitlines()) <= 10


HOSTILE = "a\nb\rc\x1b[2Jd\u2028e\u2029f\x85g\x9bh\u202ei\x00j\x7f"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_one_event_is_one_line_whatever_is_in_it():
    error = ErrorRecord(HOSTILE, HOSTILE, [Frame(compile("pass", "x\n\x1b.py", "exec"), 1)])
    records = [
        LogRecord(1, 17, HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, error=error),
        error,
        a_trace([a_span(name=HOSTILE, status_code=2, status_text=HOSTILE, own={"http.response.status_code": HOSTILE})]),
        a_trace([a_span(name="n", events=[SpanEvent("exception", 1, {}, error)])]),
    ]
    text = printed(records)
    raw = RAW.findall(text)
    print(f"{len(records)} events, {len(text.splitlines())} lines, {len(raw)} raw control characters")
    assert len(text.splitlines()) == text.count("\n") == len(records)
    assert raw == []
    assert "a\\nb\\rc\\x1b[2Jd\\u2028e" in text


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_shown_on_one_line_and_can_be_written(text):
    shown = console.shown(text)
    assert len(shown.splitlines()) <= 1
    assert not RAW.search(shown)
    shown.encode()


def test_a_long_message_is_cut():
    assert len(printed([LogRecord(1, 9, "INFO", "a", "x" * 100_000)])) < 1_000


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_stay_away_where_they_are_not_wanted(environ, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def create(environ):
        return console.create(ExporterContext(environ, Resource({}), lambda: 0.0, lambda _: False))

    monkeypatch.setattr("sys.stderr", Terminal())
    assert "\x1b[31m" in "".join(part.data for part in create({}).encode([a_request()]))
    assert "\x1b" not in "".join(part.data for part in create(environ).encode([a_request()]))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert "\x1b" not in "".join(part.data for part in create({}).encode([a_request()]))


def test_it_writes_to_what_standard_error_is_now(capsys):
    exporter = console.Exporter()
    assert isinstance(exporter, ExporterProtocol)
    assert exporter.metrics_interval is None
    assert list(exporter.encode_metrics([])) == []
    parts = list(exporter.encode([NO_FUNDS]))
    assert exporter.send("logs", parts, 1.0) == Delivery(1)
    exporter.close()
    assert "no funds" in capsys.readouterr().err


def test_a_stream_that_is_gone_costs_only_the_lines(monkeypatch):
    closed = io.StringIO()
    closed.close()
    parts = list(console.Exporter(colour=False).encode([NO_FUNDS, NO_FUNDS]))
    assert console.Exporter(closed).send("logs", parts, 1.0) == Delivery(0, 2, "unreachable")
    monkeypatch.setattr("sys.stderr", None)
    assert console.Exporter().send("logs", parts, 1.0) == Delivery(0, 2, "unreachable")


def test_a_stream_that_knows_only_ascii_gets_escapes():
    raw = io.BytesIO()
    exporter = console.Exporter(io.TextIOWrapper(raw, "ascii"))
    parts = list(exporter.encode([a_request()]))
    assert exporter.send("traces", parts, 1.0) == Delivery(4)
    assert b"800 \\xb5s" in raw.getvalue()


@pytest.mark.parametrize("field", ["name", "start_time", "kind", "own", "events"])
def test_a_record_that_cannot_be_shown_costs_one_line(field, monkeypatch):
    monkeypatch.setattr(guard, "_last_logged", {})
    broken = a_request()
    setattr(broken.spans[1], field, object())
    text = printed([broken, NO_FUNDS])
    assert "no funds" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_500, "1.5 µs"),
        (12_345_678, "12.3 ms"),
        (123_456_789, "123 ms"),
        (61_000_000_000, "61 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(nanoseconds, text):
    assert console.duration(nanoseconds) == text
