"""`/monitoring/...`: questions by URL, answers in JSON."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.core.questions import Answer, Called, Facts, LogSearch, Period, RemoteSpan, TraceSearch
from insitu.core.records import Family, Point
from insitu.web.api import Api
from insitu.web.messages import Request
from insitu.web.monitoring import Monitoring
from insitu.web.pages import Pages

NOW = 1_700_000_000 * 10**9
QUARTER = 900 * 10**9
PREFIX = "/monitoring/"
ABOUT = {"service.name": "shop", "service.version": "1.0", "process.pid": 7, "telemetry.sdk.name": "insitu"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Reader:
    """Remembers what it is asked."""

    def traces(self, search, period):
        self.asked = (search, period)
        return Answer([{"trace_id": TRACE}], 12, 3, 10)

    def logs(self, search, period):
        self.asked = (search, period)
        return Answer()

    def routes(self, since, until, name):
        self.asked = (since, until, name)
        return {"routes": []}

    def metrics(self):
        return [{"name": "orders"}]

    def metric(self, name, since, until):
        self.asked = (name, since, until)
        return {"name": name, "series": []} if name == "orders/a b" else None


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def monitoring(reader):
    return made(reader)


class Neighbours:
    """One service that has called another one, as a kept call shows, and a database."""

    def __init__(self):
        self.asked = []

    def facts(self, since, until):
        self.asked.append((since, until))
        total = {"name": "", "count": 7, "errors": 1, "rate": 0.1, "p50": 0.1, "p95": 0.2, "p99": 0.3, "longest": 0.4}
        peer = {"server.address": "10.0.0.7", "server.port": "8000"}
        calls = {"http.client.request.duration": [Called(peer, 60, 6.0)]}
        shop = Facts({"total": total}, calls, [RemoteSpan("a1", "", "10.0.0.7:8000")], since, until)
        prices = Facts({"total": {**total, "count": 60}}, {}, [RemoteSpan("b2", "a1", "")])
        return {"shop": shop, "prices": prices}

    def trace(self, trace_id):
        return {"trace_id": trace_id, "spans": []} if trace_id == TRACE else None


def made(reader, **options):
    given = {"neighbours": Neighbours(), **options}
    return Monitoring(reader, lambda: NOW, pages=Pages(), about=ABOUT, **given)


def get(monitoring, path, query=""):
    return monitoring.answer(Request("GET", path, {}, "127.0.0.1", query))


def ask(monitoring, path, query=""):
    response = get(monitoring, PREFIX + path, query)
    assert response.content_type == ("application/json" if response.status == 200 else "application/problem+json")
    return response.status, json.loads(response.body)


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


def test_routes_are_asked_for_by_time_and_name(monitoring, reader):
    ask(monitoring, "routes")
    assert reader.asked == (NOW - QUARTER, NOW, "")
    ask(monitoring, "routes", "since=1h&until=30m&name=GET%20/a")
    assert reader.asked == (NOW - 4 * QUARTER, NOW - 2 * QUARTER, "GET /a")
    assert ask(monitoring, "routes", "since=1m&until=1h")[0] == 400


def test_metrics_are_listed_and_asked_for_by_name(monitoring, reader):
    assert ask(monitoring, "metrics") == (200, {"metrics": [{"name": "orders"}]})
    assert ask(monitoring, "metrics/orders%2Fa%20b")[0] == 200
    assert reader.asked == ("orders/a b", NOW - QUARTER, NOW)
    assert ask(monitoring, "metrics/nothing")[0] == 404


def test_the_overview_says_what_runs_and_how_it_is():
    families = [
        Family("http.server.request.duration", "histogram", [Point({}, 1.5, (3, 4)), Point({}, 2.0, (1, 0))]),
        Family("insitu.cpu", "counter", [Point({"part": "worker"}, 0.25)]),
        Family("process.uptime", "gauge", [Point({}, 60.0)]),
        Family("insitu.dropped_records", "counter", [Point({"signal": "logs", "reason": "queue_full"}, 3)]),
        Family("insitu.dropped_records", "counter", [Point({"signal": "logs", "reason": "none"}, 0)]),
        Family("insitu.seen_traces", "counter", [Point({"reason": "slow"}, 9)]),
        Family("insitu.kept_traces", "counter", [Point({"reason": "slow"}, 2)]),
        Family(
            "system.cpu.utilization",
            "gauge",
            [Point({"cpu.mode": "user"}, 0.25), Point({"cpu.mode": "system"}, 0.5), Point({"cpu.mode": "idle"}, 0.25)],
            "1",
        ),
        Family("insitu.event_loop.lag", "histogram", [Point({}, 0.5, (1, 4))], "s"),
        Family("orders", "counter", [Point({}, 1.0)]),
    ]
    status, shown = ask(made(Reader(), live=lambda: families), "overview")
    assert status == 200
    assert shown == {
        "now": NOW,
        "service": "shop",
        "version": "1.0",
        "pid": 7,
        "streams": False,
        "live": {
            "uptime": 60.0,
            "requests": 8,
            "cost": {"worker": 0.25},
            "budget": None,
            "dropped": [{"signal": "logs", "reason": "queue_full", "count": 3}],
            "kept": [{"reason": "slow", "seen": 9, "kept": 2}],
            "saturation": [
                {"title": "CPU of the host", "name": "system.cpu.utilization", "unit": "1", "value": 0.75},
                {"title": "lag of the event loop, mean", "name": "insitu.event_loop.lag", "unit": "s", "value": 0.1},
            ],
        },
    }


def test_the_overview_of_several_workers_is_as_old_as_the_oldest_and_records_as_little_as_the_one_that_records_least():
    def of_each(name, *values):
        points = [Point({"worker": str(number), **labels}, value) for number, (value, labels) in enumerate(values)]
        return Family(name, "gauge", points)

    families = [
        of_each("process.uptime", (60.0, {}), (20.0, {})),
        of_each("insitu.budget.utilization", (0.02, {}), (0.01, {})),
        of_each("insitu.budget.limit", (0.01, {}), (0.01, {})),
        of_each("insitu.budget.step", (0, {"detail": "everything"}), (2, {"detail": "no child spans"})),
    ]
    live = ask(made(Reader(), live=lambda: families), "overview")[1]["live"]
    assert live["uptime"] == 60.0
    assert live["budget"] == {"used": 0.02, "limit": 0.01, "step": 2, "detail": "no child spans"}


def test_the_overview_of_a_store_alone_has_nothing_live(monitoring):
    assert ask(monitoring, "overview")[1]["live"] is None


def test_services_are_told_with_their_requests_the_busiest_first(monitoring):
    status, told = ask(monitoring, "services", "since=5m")
    assert (status, [service["name"] for service in told["services"]]) == (200, ["prices", "shop"])
    assert monitoring._neighbours.asked == [(NOW - 300 * 10**9, NOW)]


def test_dependencies_are_a_map(monitoring):
    status, told = ask(monitoring, "dependencies", "since=1m")
    assert status == 200
    assert told["nodes"] == [{"name": "prices", "kind": "service"}, {"name": "shop", "kind": "service"}]
    (edge,) = told["edges"]
    assert edge == {
        "from": "shop", "to": "prices", "kind": "service", "count": 60, "errors": 0, "rate": 1.0, "mean": 0.1,
    }  # fmt: skip


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


@pytest.mark.parametrize(
    "path", ["nothing", "traces/", "logs/x", "traces/a/b", "assets/nothing.js", "assets/../api.py"]
)
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
    response = get(made(Reader()), PREFIX + path, query)
    assert response.status in (200, 400)
    json.loads(response.body)


def test_the_page_is_found_where_people_look_for_it(monitoring):
    moved = get(monitoring, "/monitoring")
    assert (moved.status, moved.headers["location"]) == (307, "monitoring/")
    page = get(monitoring, PREFIX)
    assert (page.status, page.content_type) == (200, "text/html; charset=utf-8")


def test_the_page_may_have_another_path():
    monitoring = made(Reader(), home="/ops/insitu")
    assert get(monitoring, "/ops/insitu").headers["location"] == "insitu/"
    assert get(monitoring, "/ops/insitu/traces").status == 200
    api = Api({}, None, monitoring)
    assert [api.owns(path) for path in ("/ops/insitu", "/ops/insitu/x", "/monitoring", "/ops")] == [
        True,
        True,
        False,
        False,
    ]


def test_it_is_as_closed_as_every_other_page(monitoring):
    api = Api({}, "s3cret", monitoring)
    local, elsewhere = {"host": "localhost"}, {"host": "shop.example"}
    basic = "Basic " + base64.b64encode(b"anybody:s3cret").decode()
    for path in ("/monitoring", PREFIX, f"{PREFIX}assets/app.js", f"{PREFIX}traces", f"{PREFIX}openapi.json"):
        assert api.handle(Request("GET", path, local, "127.0.0.1")).status in (200, 307)
        assert api.handle(Request("GET", path, elsewhere, "192.0.2.7")).status == 401
        assert api.handle(Request("GET", path, {"host": "evil.example"}, "127.0.0.1")).status == 401
        assert api.handle(Request("GET", path, {**elsewhere, "authorization": basic}, "192.0.2.7")).status in (200, 307)
        assert api.handle(Request("POST", path, local, "127.0.0.1")).status == 405


def test_a_browser_asks_for_the_token_where_there_is_one(monitoring):
    def challenge(token):
        refused = Api({}, token, monitoring).handle(Request("GET", PREFIX, {"host": "a"}, "192.0.2.7"))
        return refused.headers["www-authenticate"]

    assert challenge("s3cret") == 'Bearer, Basic realm="insitu"'
    assert challenge(None) == "Bearer"


def test_new_log_records_are_streamed_where_the_server_can(monitoring, reader):
    path = f"{PREFIX}logs/streams"
    assert get(monitoring, path).status == 503
    response = monitoring.answer(Request("GET", path, {}, "127.0.0.1", "level=error&logger=shop", streams=True))
    assert response.content_type == "text/event-stream"
    next(response.events)
    assert reader.asked == (LogSearch(17, "shop"), Period(NOW - 5 * 10**9))
    wrong = monitoring.answer(Request("GET", path, {}, "127.0.0.1", "since=1h", streams=True))
    assert wrong.status == 400
