"""`/monitoring/...`: questions by URL, answers in JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.core.questions import Answer, LogSearch, Period, TraceSearch
from insitu.web.api import Api, Request
from insitu.web.monitoring import PREFIX, Monitoring

NOW = 1_700_000_000 * 10**9
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Reader:
    """Remembers what it is asked."""

    def traces(self, search, period):
        self.asked = (search, period)
        return Answer([{"trace_id": TRACE}], 12, 3, 10)

    def logs(self, search, period):
        self.asked = (search, period)
        return Answer()

    def trace(self, trace_id):
        return {"trace_id": trace_id, "spans": []} if trace_id == TRACE else None


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def monitoring(reader):
    return Monitoring(reader, lambda: NOW)


def ask(monitoring, path, query=""):
    status, kind, body = monitoring.answer(PREFIX + path, query)
    assert kind == ("application/json" if status == 200 else "application/problem+json")
    return status, json.loads(body)


def test_traces_are_asked_for_by_every_parameter_there_is(monitoring, reader):
    query = (
        "name=GET%20/items/%7Bid%7D&outcome=5&min_ms=1.5&max_ms=250&failed=true&reason=slow&key=tier&value=gold"
        "&since=15m&until=2023-11-14T22:13:20Z&limit=7&cursor=99"
    )
    assert ask(monitoring, "traces", query) == (
        200,
        {"traces": [{"trace_id": TRACE}], "cursor": "12", "partial": True, "progress": {"looked": 3, "blocks": 10}},
    )
    search = TraceSearch("GET /items/{id}", "5", 1_500_000, 250_000_000, True, "slow", "tier", "gold")
    assert reader.asked == (search, Period(NOW - 900 * 10**9, NOW, 7, 99))


def test_log_records_are_asked_for_by_level_logger_text_and_trace(monitoring, reader):
    status, _ = ask(
        monitoring, "logs", f"level=warning&logger=shop&text=a+b&trace_id={TRACE.upper()}&since=1700000000.5"
    )
    assert status == 200
    assert reader.asked == (LogSearch(13, "shop", "a b", TRACE), Period(since=NOW + 500_000_000))


def test_without_parameters_all_is_meant(monitoring, reader):
    ask(monitoring, "traces")
    assert reader.asked == (TraceSearch(), Period())


def test_a_trace_is_read_by_its_id(monitoring):
    assert ask(monitoring, f"traces/{TRACE}")[1]["trace_id"] == TRACE
    assert ask(monitoring, f"traces/{'0' * 32}") == (
        404,
        {"status": 404, "detail": f"no trace {'0' * 32} is kept here"},
    )


@pytest.mark.parametrize(
    ("path", "query", "detail"),
    [
        ("traces", "min_ms=soon", "give milliseconds"),
        ("traces", "limit=0", "from 1 to 1000"),
        ("traces", "limit=5&limit=6", "stands twice"),
        ("traces", "failed=maybe", "true or false"),
        ("traces", "reason=luck", "give one of error, flagged"),
        ("traces", "since=yesterday", "give 15m"),
        ("traces", "colour=red", "there is no parameter 'colour'; there are name"),
        ("traces", "&".join("a=b" for _ in range(60)), "too many parameters"),
        ("logs", "level=loud", "give one of trace, debug"),
        ("logs", "trace_id=12", "32 hexadecimal digits"),
        ("traces/12", "", "32 hexadecimal digits"),
        (f"traces/{TRACE}", "a=b", "there is no parameter"),
    ],
)
def test_what_is_asked_wrongly_is_told_what_would_be_right(monitoring, path, query, detail):
    status, problem = ask(monitoring, path, query)
    assert status == 400
    assert detail in problem["detail"]


@pytest.mark.parametrize("path", ["", "nothing", "traces/", "logs/x", "traces/a/b"])
def test_what_is_not_there_is_told_what_is(monitoring, path):
    status, _ = ask(monitoring, path)
    assert status in (400, 404)


def test_the_openapi_document_names_every_path_and_parameter(monitoring):
    _, document = ask(monitoring, "openapi.json")
    assert set(document["paths"]) == {PREFIX + each.path for each in monitoring.endpoints}
    names = [parameter["name"] for parameter in document["paths"]["/monitoring/traces"]["get"]["parameters"]]
    assert names == [
        "name",
        "outcome",
        "min_ms",
        "max_ms",
        "failed",
        "reason",
        "key",
        "value",
        "since",
        "until",
        "limit",
        "cursor",
    ]
    ids = [path["get"]["operationId"] for path in document["paths"].values()]
    assert len(ids) == len(set(ids))


@given(st.text(max_size=60), st.sampled_from(["traces", "logs", f"traces/{TRACE}"]))
def test_no_query_makes_it_fail(query, path):
    status, _, body = Monitoring(Reader(), lambda: NOW).answer(PREFIX + path, query)
    assert status in (200, 400)
    json.loads(body)


def test_it_is_as_closed_as_every_other_page(monitoring):
    api = Api({}, "s3cret", monitoring)
    request = {"host": "localhost"}
    assert api.handle(Request("GET", f"{PREFIX}traces", request, "127.0.0.1", "limit=3")).status == 200
    assert api.handle(Request("GET", f"{PREFIX}traces", request, "192.0.2.7")).status == 401
    assert api.handle(Request("GET", f"{PREFIX}traces", {"host": "evil.example"}, "127.0.0.1")).status == 401
    assert api.handle(Request("POST", f"{PREFIX}traces", request, "127.0.0.1")).status == 405
