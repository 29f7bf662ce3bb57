import math
import string
import subprocess
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import parser as openmetrics_parser

from insitu.core import guard
from insitu.core.records import Exemplar, Family, Point, Resource, Scope
from insitu.exporters.prometheus import Format, Page, content_type, negotiate, render
from tests.servers import get_json, until

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
BOUNDS = (0.005, 0.1, 1.0, 1_000_000.0)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def family(name="jobs", kind="counter", value=3, unit="", **more):
    points = more.pop("points", None) or [Point(more.pop("labels", {}), value)]
    return Family(name, kind, points, unit, **{"help": "Help.", **more})


def histogram(name="wait", bounds=BOUNDS, buckets=(1, 2, 0, 0, 1), value=2.5, unit="s", exemplars=(), **more):
    point = Point(more.pop("labels", {}), value, buckets, exemplars)
    return Family(name, "histogram", [point], unit, "Help.", bounds=bounds, **more)


def lines(*families, form=TEXT, resource=None):
    """The sample lines of a page."""
    return [line for line in page(*families, form=form, resource=resource).splitlines() if not line.startswith("#")]


def page(*families, form=TEXT, resource=None):
    return render(families, resource, form).decode()


def samples(text, form):
    """What a parser of others reads on a page: value (or exemplar) by sample name and labels, each series once."""
    read = parser if form is TEXT else openmetrics_parser
    found = {}
    for metric in read.text_string_to_metric_families(text):
        for sample in metric.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def warnings(monkeypatch, caplog):
    monkeypatch.setattr(guard, "_last_logged", {})
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def registry(monkeypatch):
    fresh = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", fresh)
    return fresh


# -- formats


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3",
            OPENMETRICS,
        ),
        ("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.7", TEXT),
        ("application/openmetrics-text;q=high", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        (";;,,=;q,application/openmetrics-text", OPENMETRICS),
    ],
)
def test_openmetrics_is_given_to_who_names_it_and_wants_it_no_less_than_text(accept, expected):
    assert negotiate(accept) is expected


@given(st.text(alphabet=';,=q./*0123456789 opentxalichr-\x00"é'))
def test_no_accept_header_is_too_strange(accept):
    assert negotiate(accept) in Format


def test_the_content_types_are_those_of_the_two_specifications():
    assert content_type(TEXT) == "text/plain; version=0.0.4; charset=utf-8"
    assert content_type(OPENMETRICS) == "application/openmetrics-text; version=1.0.0; charset=utf-8"


# -- names


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "gauge", "http_server_request_duration_seconds"),
        ("process.memory.usage", "By", "updown", "process_memory_usage_bytes"),
        ("process.cpu.time", "s", "counter", "process_cpu_time_seconds_total"),
        ("system.memory.utilization", "1", "gauge", "system_memory_utilization_ratio"),
        ("hits", "1", "counter", "hits_total"),
        ("orders", "{order}", "counter", "orders_total"),
        ("orders_total", "", "counter", "orders_total"),
        ("wait_seconds", "s", "gauge", "wait_seconds"),
        ("wait.seconds.total", "s", "counter", "wait_seconds_total"),
        ("seconds_left", "s", "gauge", "seconds_left_seconds"),
        ("seconds", "s", "gauge", "seconds"),
        ("pause", "ms", "gauge", "pause_milliseconds"),
        ("speed", "By/s", "gauge", "speed_bytes_per_second"),
        ("rate", "{request}/s", "gauge", "rate_per_second"),
        ("price", "EUR", "gauge", "price_EUR"),
        ("a..b--c__d", "", "gauge", "a_b_c_d"),
        ("(lambda).runs(#)", "", "gauge", "_lambda_runs"),
        ("9lives", "", "gauge", "_9lives"),
        ("größe", "", "gauge", "gr_e"),
        ("", "", "gauge", "_"),
        ("job:rate5m", "", "gauge", "job:rate5m"),
        ("process.thread.count", "{thread}", "updown", "process_threads"),
        ("system.cpu.logical.count", "{cpu}", "updown", "system_cpu_logical_cpus"),
        ("process.unix.file_descriptor.count", "{file_descriptor}", "gauge", "process_unix_file_descriptors"),
        ("retries.count", "{retry}", "counter", "retries_count_total"),
        ("my_count", "", "gauge", "my_count"),
    ],
)
def test_a_name_is_mapped_as_the_compatibility_specification_says(name, unit, kind, expected):
    assert lines(family(name, kind, unit=unit)) == [f"{expected} 3"]


def test_a_counter_is_called_without_total_above_its_samples_in_openmetrics_only():
    assert (
        page(family("jobs", labels={"a": "b"}))
        == '# HELP jobs_total Help.\n# TYPE jobs_total counter\njobs_total{a="b"} 3\n'
    )
    assert page(family("jobs"), form=OPENMETRICS) == "# HELP jobs Help.\n# TYPE jobs counter\njobs_total 3\n# EOF\n"


def test_a_unit_line_stands_only_where_the_name_ends_with_the_unit():
    whole = page(family("wait", "gauge", unit="s"), family("plain", "gauge"), family("n", unit="By"), form=OPENMETRICS)
    assert [line for line in whole.splitlines() if "UNIT" in line] == [
        "# UNIT wait_seconds seconds",
        "# UNIT n_bytes bytes",
    ]
    assert "UNIT" not in page(family("wait", "gauge", unit="s"))


def test_help_is_escaped_for_each_format_and_never_missing():
    told = family(help='back\\slash "quote"\nline \ud800')
    assert '# HELP jobs_total back\\\\slash "quote"\\nline \ufffd\n' in page(told)
    assert '# HELP jobs back\\\\slash \\"quote\\"\\nline \ufffd\n' in page(told, form=OPENMETRICS)
    assert "# HELP jobs_total jobs total\n" in page(family(help=""))


# -- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"http.route": "/a"}, 'http_route="/a"'),
        ({"b": "2", "a": "1"}, 'a="1",b="2"'),
        ({"a.b": "dot", "a_b": "line", "a-b": "dash"}, 'a_b="dash;dot;line"'),
        ({"__name__": "x", "1st": "y"}, '_1st="y",_name_="x"'),
        ({"v": 'a"b\\c\nd'}, 'v="a\\"b\\\\c\\nd"'),
        ({"v": "\ud83d lone \udc00"}, 'v="\ufffd lone \ufffd"'),
        ({"v": True, "w": False}, 'v="true",w="false"'),
        ({"v": 1, "w": 1.0, "x": 1e300}, 'v="1",w="1.0",x="1e+300"'),
        ({"v": math.nan, "w": -math.inf}, 'v="NaN",w="-Infinity"'),
        ({"v": ("a", 1, True, None)}, 'v="[\\"a\\",1,true,null]"'),
        ({"v": ["a"], "w": {"k": b"x"}}, 'v="[\\"a\\"]",w="{\\"k\\":\\"eA==\\"}"'),
        ({"v": b"\x00\xff"}, 'v="AP8="'),
        ({"v": "", "w": None, "x": "y"}, 'x="y"'),
        ({"v": Scope}, f'v="{Scope}"'),
    ],
)
def test_a_label_is_written_as_opentelemetry_renders_it(labels, expected):
    for form in Format:
        assert lines(family("up", "gauge", 1, labels=labels), form=form) == [f"up{{{expected}}} 1"]


def test_a_number_is_not_taken_for_the_truth_it_equals():
    assert lines(family(labels={"x": 1})) == ['jobs_total{x="1"} 3']
    assert lines(family(labels={"x": True})) == ['jobs_total{x="true"} 3']
    assert lines(family(labels={"x": 1.0})) == ['jobs_total{x="1.0"} 3']


def test_labels_that_become_equal_on_the_page_are_one_series_and_no_count_is_lost():
    points = [Point({"n": 1, "m": "x"}, 2), Point({"m": "x", "n": "1"}, 3), Point({"m": "x", "n": "1", "o": ""}, 4)]
    assert lines(family(points=points)) == ['jobs_total{m="x",n="1"} 9']
    assert lines(family("size", "gauge", points=points)) == ['size{m="x",n="1"} 4']
    twice = Family("wait", "histogram", [Point({"n": 1}, 2.0, (1, 1)), Point({"n": "1"}, 3.0, (0, 2))], bounds=(1.0,))
    assert lines(twice)[-2:] == ['wait_sum{n="1"} 5.0', 'wait_count{n="1"} 4']


def test_what_is_kept_of_label_texts_is_bounded():
    from insitu.exporters import prometheus

    for start in range(0, 20_000, 1_000):
        page(family(points=[Point({"k": str(start + n)}, 1) for n in range(1_000)]))
    assert 0 < len(prometheus._label_sets) <= prometheus._LABEL_SETS


# -- values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (2**53 + 1, "9007199254740993"),
        (10**400, "+Inf"),
        (-(10**400), "-Inf"),
        (2**70, "1.1805916207174113e+21"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (1e-7, "1e-07"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (True, "1.0"),
    ],
)
def test_a_value_is_written_so_that_every_parser_reads_it(value, expected):
    assert lines(family("v", "gauge", value)) == [f"v {expected}"]


def test_a_histogram_is_cumulative_and_its_bounds_are_written_as_go_does():
    expected = [
        'wait_seconds_bucket{le="0.005"} 1',
        'wait_seconds_bucket{le="0.1"} 3',
        'wait_seconds_bucket{le="1.0"} 3',
        'wait_seconds_bucket{le="1e+06"} 3',
        'wait_seconds_bucket{le="+Inf"} 4',
        "wait_seconds_sum 2.5",
        "wait_seconds_count 4",
    ]
    assert lines(histogram()) == expected
    assert lines(histogram(), form=OPENMETRICS) == expected


def test_bounds_beyond_a_million_have_the_shortest_exponent():
    bounds = (-2_500_000.0, 1e-5, 999_999.0, 1_234_567.5, 10_000_000.0, 1e16)
    assert [line.split('"')[1] for line in lines(histogram(bounds=bounds, buckets=[0] * 7))[:-2]] == [
        "-2.5e+06", "1e-05", "999999.0", "1.2345675e+06", "1e+07", "1e+16", "+Inf",
    ]  # fmt: skip


def test_a_label_le_of_the_users_own_does_not_meet_that_of_the_buckets():
    first = lines(histogram(labels={"le": "mine"}))[0]
    assert first == 'wait_seconds_bucket{exported_le="mine",le="0.005"} 1'


def test_openmetrics_gets_no_sum_that_can_fall_and_no_counter_that_is_no_number():
    below = histogram(bounds=(-1.0, 1.0), buckets=(1, 1, 0), value=-3.0)
    falling = histogram("fall", bounds=(1.0,), buckets=(1, 1), value=math.nan)
    counters = family(points=[Point({"n": "nan"}, math.nan), Point({"n": "neg"}, -1), Point({"n": "ok"}, 1)])
    samples(page(below, falling, counters, form=OPENMETRICS), OPENMETRICS)
    assert not [line for line in lines(below, falling, form=OPENMETRICS) if "_sum" in line or "_count" in line]
    assert lines(counters, form=OPENMETRICS) == ['jobs_total{n="ok"} 1']
    assert len(lines(counters)) == 3
    assert "wait_seconds_sum -3.0" in lines(below)


def test_exemplars_stand_behind_their_buckets_in_openmetrics_only():
    exemplar = Exemplar(0.07, 1_700_000_000_123_456_789, 0xABC, 0x1F)
    given = histogram(exemplars=(None, exemplar, None, None, Exemplar(9.0, 0, 0, 0)))
    marked = [line for line in lines(given, form=OPENMETRICS) if "#" in line]
    ids = f'trace_id="{"0" * 29}abc",span_id="{"0" * 14}1f"'
    assert marked == [f'wait_seconds_bucket{{le="0.1"}} 3 # {{{ids}}} 0.07 1700000000.123456789']
    assert "#" not in "".join(lines(given))
    (metric,) = openmetrics_parser.text_string_to_metric_families(page(given, form=OPENMETRICS))
    read = [sample.exemplar for sample in metric.samples if sample.exemplar]
    assert [(each.value, each.labels["trace_id"][-3:], each.timestamp.nsec) for each in read] == [
        (0.07, "abc", 123456789)
    ]


# -- several families, the resource


def test_the_first_of_two_clashing_metrics_wins_with_one_warning(warnings):
    for _ in range(3):
        found = lines(family("a.b", "gauge", 1), family("a_b", "counter", 2), histogram("a_b", unit=""))
        assert found == ["a_b 1"]
    assert len(warnings()) == 1
    assert "'a_b'" in warnings()[0]


def test_a_gauge_does_not_take_a_histograms_count(warnings):
    found = lines(histogram("h", unit=""), family("h.count", "gauge"))
    assert [line for line in found if line.startswith("h_count")] == ["h_count 4"]
    assert len(warnings()) == 1


def test_a_second_scope_is_told_apart_and_leaves_the_first_ones_series_alone():
    ours = family(labels={"a": "1"})
    alone = lines(ours)
    both = lines(ours, family(value=4, labels={"a": "1"}, scope=Scope("lib", "2.0")))
    assert both == [*alone, 'jobs_total{a="1",otel_scope_name="lib",otel_scope_version="2.0"} 4']
    assert page(ours, family(scope=Scope("lib"))).count("# TYPE") == 1


def test_up_down_counters_and_gauges_of_one_name_share_a_page_as_gauges():
    assert lines(family("size", "updown", 1), family("size", "gauge", 2, scope=Scope("b"))) == [
        "size 1",
        'size{otel_scope_name="b"} 2',
    ]


def test_the_resource_is_target_info():
    resource = Resource({"service.name": 'sh"op', "process.pid": 7, "tags": ("a",)})
    labels = '{process_pid="7",service_name="sh\\"op",tags="[\\"a\\"]"} 1'
    assert lines(resource=resource) == [f"target_info{labels}"]
    assert "# TYPE target_info gauge\n" in page(resource=resource)
    assert "# TYPE target info\n" in page(resource=resource, form=OPENMETRICS)
    assert page(resource=Resource({})) == ""


def test_a_family_without_series_is_not_on_the_page():
    assert render([Family("jobs", "counter", [])], None, TEXT) == b""


def test_a_family_that_cannot_be_written_costs_only_itself(warnings):
    broken = Family("bad", "histogram", [Point({}, 1.0, (1, 2, 3))], bounds=(1.0,))
    assert lines(family("one"), broken, Family("none", "gauge", None), family("two")) == ["one_total 3", "two_total 3"]
    assert len(warnings()) == 1


# -- read back by others

text = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "\\n", "\r\n", "\x00", "\u2028", "\x85", "🦊", "\ud800x", "},{", " # {"]
)
names = st.text(alphabet=string.ascii_letters + "._-/é0123456789", max_size=8)
label_sets = st.dictionaries(names, text | st.booleans() | st.integers() | st.floats(), max_size=3)
numbers = st.integers(-(2**80), 2**80) | st.floats()
counts = st.integers(0, 2**40)
scopes = st.sampled_from([Scope("insitu"), Scope("lib", "1"), Scope("lib", "2"), Scope('"')])
units = st.sampled_from(["", "s", "By", "1", "{thing}", "ms", "By/s"])
bounds_lists = st.lists(st.floats(-1e9, 1e9), max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def families(draw):
    kind = draw(st.sampled_from(["counter", "updown", "gauge", "histogram"]))
    bounds = draw(bounds_lists) if kind == "histogram" else ()
    values = counts | st.floats(0, 1e300) if kind in {"counter", "histogram"} else numbers
    points = [
        Point(labels, draw(values), [draw(counts) for _ in range(len(bounds) + 1)] if kind == "histogram" else ())
        for labels in draw(st.lists(label_sets, min_size=1, max_size=3))
    ]
    return Family(draw(names), kind, points, draw(units), draw(text), draw(scopes), bounds)


@settings(max_examples=300, deadline=None)
@given(st.lists(families(), max_size=4))
def test_any_families_are_read_by_the_parsers_of_others(given):
    for form in Format:
        written = page(*given, form=form, resource=Resource({"service.name": "\ud800\n"}))
        assert samples(written, form)[("target_info", frozenset({("service_name", "\ufffd\n")}))] == 1


ordinary_names = st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=6)
plain_labels = st.dictionaries(ordinary_names.filter(lambda name: name != "le"), text.filter(bool), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        ordinary_names.map("x_".__add__), st.tuples(st.lists(plain_labels, max_size=4), st.data()), max_size=3
    )
)
def test_the_samples_read_back_are_those_that_were_given(given):
    families, expected = [], {}
    for index, (name, (label_sets, data)) in enumerate(given.items()):
        kind = ("counter", "gauge", "histogram")[index % 3]
        family, samples_of = _family_and_samples(f"{name}{index}", kind, label_sets, data)
        families.append(family)
        expected |= samples_of
    for form in Format:
        found = samples(page(*families, form=form), form)
        assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def _family_and_samples(name, kind, label_sets, data):
    points, expected = {}, {}
    for labels in label_sets:
        clean = frozenset((key, value.replace("\ud800", "\ufffd")) for key, value in labels.items())
        if kind == "histogram":
            value, buckets = data.draw(st.floats(0, 1e9)), data.draw(st.lists(counts, min_size=3, max_size=3))
            for le, total in zip(("0.5", "2.0", "+Inf"), (buckets[0], sum(buckets[:2]), sum(buckets)), strict=True):
                expected[(f"{name}_bucket", clean | {("le", le)})] = total
            expected |= {(f"{name}_sum", clean): value, (f"{name}_count", clean): sum(buckets)}
            points[clean] = Point(labels, value, buckets)
        else:
            value = data.draw(counts if kind == "counter" else st.floats())
            expected[(f"{name}_total" if kind == "counter" else name, clean)] = value
            points[clean] = Point(labels, value)
    return Family(name, kind, list(points.values()), bounds=(0.5, 2.0) if kind == "histogram" else ()), expected


HOSTILE = [
    'quo"te',
    "back\\slash",
    "li\nne",
    "cr\r\n",
    "n\x00ul",
    "fox 🦊",
    "sep\u2028arator",
    "lone \udc80",
    "} # {",
    "\x7f\x1b[0m",
]


def everything():
    """One page with all that a page can hold."""
    exemplar = Exemplar(0.05, time.time_ns(), 0xFEED, 0xBEEF)
    return [
        family(
            "hostile.values",
            points=[Point({"v": value, "k.k": True}, n) for n, value in enumerate(HOSTILE)],
            unit="{value}",
        ),
        family(
            "odd.numbers",
            "gauge",
            points=[Point({"n": n}, v) for n, v in enumerate((math.nan, -math.inf, 10**400, -0.0))],
        ),
        family("process.thread.count", "updown", 3, "{thread}"),
        family("process.cpu.utilization", "gauge", 0.5, "1"),
        family("process.cpu.time", "counter", 1.5, "s", labels={"cpu.mode": "user"}),
        family("process.memory.usage", "updown", 5, "By"),
        histogram(
            "http.server.request.duration", labels={"http.route": "/a"}, exemplars=(None, exemplar, None, None, None)
        ),
    ]


def test_promtool_has_nothing_to_say_about_the_page(promtool):
    body = render(everything(), Resource({"service.name": "shop"}), TEXT)
    result = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=20, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.fixture
def served():
    """The address of a server that answers with a page of everything, and the content types that it gave."""
    given = []
    whole = Page(everything, Resource({"service.name": "shop"}), user_registry=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = whole.render(self.headers.get("Accept", ""))
            given.append(kind)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", given
        server.shutdown()
        thread.join()


def test_a_real_prometheus_reads_hostile_values_and_exemplars(prometheus, served):
    target, given = served
    url = prometheus(target)
    until(lambda: get_json(f"{url}/api/v1/query", query="up == 1")["data"]["result"], what="the first good scrape")
    found = get_json(f"{url}/api/v1/query", query="hostile_values_total")["data"]["result"]
    assert {int(each["value"][1]): each["metric"]["v"] for each in found} == {
        number: value.replace("\udc80", "\ufffd") for number, value in enumerate(HOSTILE)
    }
    assert get_json(f"{url}/api/v1/query", query="http_server_request_duration_seconds_count")["data"]["result"]
    answer = get_json(
        f"{url}/api/v1/query_exemplars",
        query="http_server_request_duration_seconds_bucket",
        start=str(time.time() - 60),
        end=str(time.time() + 60),
    )
    (exemplar,) = {each["labels"]["trace_id"] for series in answer["data"] for each in series["exemplars"]}
    assert exemplar.endswith("feed")
    assert set(given) == {content_type(OPENMETRICS)}


# -- the user's own registry


def test_what_the_user_keeps_in_prometheus_client_is_on_the_page_in_both_formats(registry):
    prometheus_client.Counter("mine", "Theirs.", ["k"], registry=registry).labels("v").inc(
        2, exemplar={"trace_id": "1"}
    )
    prometheus_client.Histogram("slow", "Theirs.", registry=registry).observe(0.3)
    prometheus_client.Info("build", "Theirs.", registry=registry).info({"v": "1"})
    whole = Page(lambda: [family()], None)
    for accept, form in (("", TEXT), (PROMETHEUS_2, OPENMETRICS)):
        kind, body = whole.render(accept)
        found = samples(body.decode(), form)
        assert kind == content_type(form)
        assert found[("mine_total", frozenset({("k", "v")}))] == 2
        assert found[("slow_count", frozenset())] == 1
        assert found[("jobs_total", frozenset())] == 3
        assert body.count(b"# EOF") == (1 if form is OPENMETRICS else 0)


def test_the_user_registry_can_be_left_out(registry):
    prometheus_client.Counter("mine", "Theirs.", registry=registry)
    assert b"mine" not in Page(lambda: [family()], None, user_registry=False).render("")[1]


def test_ours_wins_a_clash_of_names_with_a_warning(registry, warnings):
    prometheus_client.Gauge("jobs", "Theirs.", registry=registry).set(99)
    prometheus_client.Gauge("other", "Theirs.", registry=registry).set(1)
    body = Page(lambda: [family()], None).render("")[1].decode()
    assert [line for line in body.splitlines() if not line.startswith("#")] == ["jobs_total 3", "other 1.0"]
    assert len(warnings()) == 1
    assert "'jobs'" in warnings()[0]


def test_a_collector_that_raises_costs_only_itself(registry, warnings):
    class Raising:
        def collect(self):
            yield GaugeMetricFamily("before", "x", 1)
            raise RuntimeError("boom")

    class Unwritable:
        def collect(self):
            yield GaugeMetricFamily("text", "x", "not a number")

    registry.register(Raising())
    registry.register(Unwritable())
    prometheus_client.Gauge("fine", "Theirs.", registry=registry).set(1)
    for accept, form in (("", TEXT), (PROMETHEUS_2, OPENMETRICS)):
        found = samples(Page(lambda: [family()], None).render(accept)[1].decode(), form)
        assert set(found) == {("jobs_total", frozenset()), ("fine", frozenset())}
    assert len(warnings()) == 1


def test_a_collector_of_ours_that_raises_leaves_on_the_page_what_came_before_it_and_the_users(registry, warnings):
    def collect():
        yield family()
        raise RuntimeError("boom")

    prometheus_client.Gauge("fine", "Theirs.", registry=registry).set(1)
    body = Page(collect, None).render("")[1]
    assert b"jobs_total 3\n" in body
    assert b"fine 1.0\n" in body
    assert len(warnings()) == 1


def test_the_standard_collectors_give_way_without_a_warning(registry, warnings):
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    ours = [family("python.info", "gauge", 1, labels={"version": "3"}), family("process.cpu", "counter", 1, "s")]
    found = samples(Page(lambda: ours, None).render("")[1].decode(), TEXT)
    names = defaultdict(list)
    for name, labels in found:
        names[name].append(labels)
    assert names["python_info"] == [frozenset({("version", "3")})]
    assert len(names["process_cpu_seconds_total"]) == 1
    if sys.platform == "linux":
        assert "process_resident_memory_bytes" in names
    assert warnings() == []


def test_the_registrys_target_info_stands_only_where_we_have_none(registry, warnings):
    registry.set_target_info({"env": "test"})
    assert b'target_info{env="test"} 1.0' in Page(list, None).render("")[1]
    body = Page(list, Resource({"service.name": "shop"})).render("")[1].decode()
    assert [line for line in body.splitlines() if not line.startswith("#")] == ['target_info{service_name="shop"} 1']
    assert warnings() == []


def test_two_names_of_the_users_that_become_one_are_not_both_written(registry, warnings):
    class Custom:
        def collect(self):
            yield GaugeMetricFamily("twice", "x", 1)
            yield GaugeMetricFamily("twice", "x", 2)
            yield InfoMetricFamily("about", "x", {"a": "b"})

    registry.register(Custom())
    found = samples(Page(list, None).render(PROMETHEUS_2)[1].decode(), OPENMETRICS)
    assert found == {("twice", frozenset()): 1, ("about_info", frozenset({("a", "b")})): 1}
    assert len(warnings()) == 1


def test_prometheus_client_is_not_imported_by_us():
    code = (
        "import sys; from insitu.exporters.prometheus import Page; Page(list, None).render('');"
        "print([name for name in sys.modules if name.startswith('prometheus_client')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
