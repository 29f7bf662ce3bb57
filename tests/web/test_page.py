"""The page in a real browser: from the overview to the reason, in light and dark, and whatever a visitor has sent."""

import re
import threading

import pytest
from playwright.sync_api import expect

from insitu.core.clock import SYSTEM
from insitu.core.histogram import Histogram
from insitu.core.records import ErrorRecord, Family, Interval, Point, RouteTotals, SpanEvent
from insitu.core.stacktrace import FINGERPRINT
from insitu.store.neighbours import Neighbours
from insitu.store.reader import Reader
from insitu.store.rollups import TEN_SECONDS
from insitu.store.writer import Writer
from insitu.web.api import Api
from insitu.web.monitoring import Monitoring
from insitu.web.pages import Pages
from insitu.web.server import bound
from tests.store.facts import SECOND, a_log, a_span, a_trace
from tests.web.hostile import PAYLOADS

pytestmark = pytest.mark.backend

SLOW, QUICK = "GET /search", "GET /items/{id}"


class Kept:
    """A store of the last minute, and the page over it."""

    def __init__(self):
        self.now = SYSTEM.wall() // TEN_SECONDS * TEN_SECONDS
        self.counted = []
        self.writer = Writer(None, SYSTEM, list, self._intervals)
        self.families = []

    def _intervals(self):
        counted, self.counted = self.counted, []
        return counted

    def requests(self, name, seconds, count, errors=0):
        for ago in range(1, 6):
            durations = Histogram()
            for _ in range(count):
                durations.record(seconds)
            totals = {name: RouteTotals(count, errors, durations)}
            self.counted.append(Interval(self.now - ago * TEN_SECONDS, TEN_SECONDS, totals))

    def put(self, *records):
        self.writer.accept(records)

    def sample(self, *families):
        list(self.writer.sample(families))
        self.writer.write()

    def serve(self):
        self.writer.write()
        reader = Reader(None, self.writer.database)
        about = {"service.name": "shop", "service.version": "1.0", "process.pid": 1}
        monitoring = Monitoring(
            reader,
            SYSTEM.wall,
            pages=Pages(),
            about=about,
            neighbours=Neighbours("shop", reader, None),
            live=lambda: self.families,
        )
        return bound(Api({}, None, monitoring), "127.0.0.1", 0)


@pytest.fixture
def kept():
    made = Kept()
    yield made
    made.writer.close()


@pytest.fixture
def address(kept):
    """Serves what the test has put in, from the first time that it asks for the address."""
    started = []

    def serve(view=""):
        if not started:
            server = kept.serve()
            started.append((server, threading.Thread(target=server.serve_forever, args=(0.01,))))
            started[0][1].start()
        host, port = started[0][0].server_address[:2]
        return f"http://{host}:{port}/monitoring/{view}"

    yield serve
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def a_slow_search(kept):
    at = kept.now - 15 * SECOND
    root = a_span(SLOW, at=at, seconds=0.5, own={"http.route": "/search"})
    query = a_span(
        "SELECT review",
        at=at + 10_000_000,
        seconds=0.45,
        root=False,
        parent=root.span_id,
        own={"db.system.name": "sqlite"},
    )
    trace = a_trace(query, root, kept="slow")
    said = a_log("the index is stale: reading every review", at=at + SECOND // 50, severity=13, trace_id=trace.trace_id)
    said.level, said.span_id = "WARNING", query.span_id
    return trace, said


def test_from_the_overview_to_the_slow_route_to_its_trace_to_the_line_that_says_why(kept, address, page):
    trace, said = a_slow_search(kept)
    kept.requests(SLOW, 0.5, 5)
    kept.requests(QUICK, 0.004, 100, errors=3)
    kept.put(trace, said, a_trace(name=QUICK, at=kept.now - 20 * SECOND))
    page.goto(address())
    expect(page.locator(".card", has_text="slowest route")).to_contain_text(SLOW)
    expect(page.locator(".routes tbody tr").first).to_contain_text(QUICK)
    page.locator(".card", has_text="slowest route").click()
    expect(page.locator(".traces tbody tr")).to_have_count(1)
    page.locator(".traces tbody a", has_text=SLOW).click()
    expect(page.locator(".parts .most")).to_contain_text("90 % SELECT review")
    expect(page.locator(".waterfall li")).to_have_count(2)
    line = page.locator(".records button", has_text="the index is stale: reading every review")
    line.click()
    expect(page.locator(".waterfall .chosen")).to_contain_text("SELECT review")
    expect(page.locator(".details")).to_contain_text("sqlite")


def test_from_an_error_to_all_traces_with_the_same_one(kept, address, page):
    for number, told in enumerate(("5ca1ab1e", "5ca1ab1e", "deadbeef")):
        root = a_span(
            f"POST /orders/{number}", at=kept.now - (9 - number) * SECOND, own={FINGERPRINT: told}, failed=True
        )
        error = ErrorRecord("LookupError", "no price", fingerprint=told)
        root.events = [SpanEvent("exception", root.start_time, {}, error)]
        kept.put(a_trace(root, kept="error"))
    page.goto(address("#/traces?failed=true"))
    expect(page.locator(".traces tbody tr")).to_have_count(3)
    page.locator(".traces tbody a", has_text="POST /orders/0").click()
    page.locator(".waterfall button", has_text="POST /orders/0").click()
    page.locator(".event a", has_text="all traces with this error").click()
    expect(page.locator(".traces tbody tr")).to_have_count(2)
    expect(page.locator(".traces tbody")).to_contain_text("POST /orders/1")


def test_the_first_ten_seconds_are_a_point_in_the_traffic(kept, address, page):
    durations = Histogram()
    durations.record(0.1)
    kept.counted.append(Interval(kept.now - TEN_SECONDS, TEN_SECONDS, {QUICK: RouteTotals(80, 0, durations)}))
    page.goto(address())
    expect(page.locator(".routes tbody tr")).to_have_count(1)
    blue = """() => {
        const canvas = document.querySelector("canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let found = 0;
        for (let at = 0; at < pixels.length; at += 4)
            found += pixels.slice(at, at + 4).join() === "47,111,237,255";
        return found > 10;
    }"""
    page.wait_for_function(blue)


def test_requests_that_no_route_answers_say_so(kept, address, page):
    kept.requests("GET", 0.001, 5)
    kept.requests(QUICK, 0.001, 6)
    page.goto(address())
    expect(page.locator(".routes tbody tr")).to_have_count(2)
    expect(page.locator(".routes td.name", has_text="no such route")).to_have_text("GET no such route")


def test_a_dot_of_the_chart_opens_its_trace(kept, address, page):
    trace, said = a_slow_search(kept)
    kept.put(trace, said)
    page.goto(address(f"#/traces?name={SLOW}"))
    chart = page.locator(".u-over")
    expect(chart).to_be_visible()
    box = chart.bounding_box()
    page.wait_for_function("document.querySelector('.u-over')?.clientWidth > 0")
    # The only dot stands in the middle of the times, at the top of the values but for a tenth.
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 11)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 11)
    expect(page.locator("h1")).to_have_text(SLOW)


def test_traces_are_narrowed_down_by_what_a_visitor_types(kept, address, page):
    kept.put(*(a_trace(name=QUICK, at=kept.now - n * SECOND, own={"user.id": f"u{n % 3}"}) for n in range(1, 10)))
    page.goto(address("#/traces"))
    expect(page.locator(".traces tbody tr")).to_have_count(9)
    page.fill("input[name=key]", "user.id")
    page.fill("input[name=value]", "u1")
    page.keyboard.press("Enter")
    expect(page.locator(".traces tbody tr")).to_have_count(3)
    assert re.search(r"key=user.id&value=u1", page.url)
    page.reload()
    expect(page.locator(".traces tbody tr")).to_have_count(3)
    page.click("text=clear")
    expect(page.locator(".traces tbody tr")).to_have_count(9)


def test_what_is_being_typed_stays_while_the_page_is_drawn_anew(kept, address, page):
    page.goto(address("#/logs"))
    page.type("input[name=text]", "order sh")
    kept.put(a_log("order placed", at=kept.now))
    kept.writer.write()
    expect(page.locator(".lines li")).to_have_count(1)
    expect(page.locator("input[name=text]")).to_have_value("order sh")


def test_log_records_are_searched_opened_and_followed(kept, address, page):
    trace, said = a_slow_search(kept)
    kept.put(trace, said, a_log("order placed", at=kept.now - SECOND, fields={"order": 3}))
    page.goto(address("#/logs"))
    expect(page.locator(".lines li")).to_have_count(2)
    kept.put(a_log("order shipped", at=kept.now, fields={"order": 3}))
    kept.writer.write()
    expect(page.locator(".lines li").first).to_contain_text("order shipped")
    page.select_option("select[name=level]", "warning")
    expect(page.locator(".lines li")).to_have_count(1)
    page.click(".lines li button")
    page.click("text=the trace it belongs to")
    expect(page.locator("h1")).to_have_text(SLOW)


def test_a_metric_is_found_and_drawn(kept, address, page):
    kept.sample(
        Family("orders.waiting", "gauge", [Point({"shop": "a"}, 4), Point({"shop": "b"}, 1)], "{order}", "Orders.")
    )
    page.goto(address("#/metrics"))
    page.fill("input[type=search]", "WAITING")
    page.click("text=orders.waiting")
    expect(page.locator(".series tbody tr").first).to_contain_text("shop=a")
    expect(page.locator(".series tbody tr").first).to_contain_text("4 orders")
    expect(page.locator(".chart canvas")).to_be_visible()


def test_the_map_shows_who_is_called_and_how_it_goes(kept, address, page):
    peer = {"server.address": "prices.example", "server.port": "443"}
    calls = [Point(peer, 6.0, (50,)), Point({**peer, "error.type": "503"}, 4.0, (10,))]
    kept.sample(Family("http.client.request.duration", "histogram", calls, "s"))
    page.goto(address("#/services"))
    expect(page.locator(".map .node", has_text="prices.example:443")).to_have_count(1)
    expect(page.locator(".map .edge.failing")).to_contain_text("167 ms")
    row = page.locator("tbody tr", has_text="prices.example:443")
    expect(row).to_contain_text("16.7 %")


def test_a_queue_that_a_service_both_fills_and_empties_leaves_the_map_where_it_is(kept, address, page):
    hosts = [Point({"server.address": f"host-{number}", "server.port": "80"}, 1.0, (9,)) for number in range(8)]
    kept.sample(
        Family("insitu.task.published", "counter", [Point({"queue": "pictures"}, 20)]),
        Family("insitu.task.wait", "histogram", [Point({"queue": "pictures"}, 5.0, (10,))], "s"),
        Family("http.client.request.duration", "histogram", hosts, "s"),
    )
    page.goto(address("#/services"))
    queue = page.locator(".map .node", has_text="queue pictures")
    expect(queue).to_have_count(1)
    labels = page.locator(".map .edge text")
    expect(labels.filter(has_text="500 ms")).to_have_count(1)
    assert not [text for text in labels.all_text_contents() if "0 s" in text]  # nobody waits for what is only sent
    across = [node.get_attribute("transform") for node in page.locator(".map .node").all()]
    assert sorted({where.split()[0] for where in across}) == ["translate(0", "translate(340"]


def test_a_statement_that_repeats_is_told_on_its_trace(kept, address, page):
    told = {"insitu.repeated.statement": "SELECT author", "insitu.repeated.times": 51}
    trace = a_trace(a_span(at=kept.now - SECOND, own=told))
    kept.put(trace)
    page.goto(address(f"#/trace/{trace.trace_id:032x}"))
    expect(page.locator(".title")).to_contain_text("N+1: SELECT author ran 51 times")


def test_a_budget_that_is_reached_shows_what_is_left_out(kept, address, page):
    kept.families = [
        Family("insitu.budget.utilization", "gauge", [Point({}, 0.009)], "1"),
        Family("insitu.budget.limit", "gauge", [Point({}, 0.01)], "1"),
        Family("insitu.budget.step", "gauge", [Point({"detail": "no child spans"}, 2)]),
    ]
    page.goto(address())
    expect(page.locator(".card", has_text="insitu costs")).to_contain_text("0.90 %of 1 % allowed: no child spans")


def test_an_empty_store_says_that_it_is_empty(kept, address, page):
    page.goto(address())
    expect(page.locator(".empty")).to_contain_text("No request in this time")
    for view, told in (("traces", "No kept trace"), ("logs", "No record"), ("metrics", "there is nothing yet")):
        page.goto(address(f"#/{view}"))
        expect(page.locator(".empty")).to_contain_text(told)


def test_what_cannot_be_answered_is_shown_as_the_server_says_it(kept, address, page, problems):
    page.goto(address("#/traces?min_ms=soon"))
    expect(page.locator(".problem")).to_contain_text("give milliseconds")
    page.goto(address(f"#/trace/{'0' * 32}"))
    expect(page.locator(".problem")).to_contain_text("no trace")
    assert all("400" in each or "404" in each for each in problems)
    problems.clear()


def test_an_answer_that_breaks_off_is_said_to_have_and_the_page_goes_on(kept, address, page):
    """As a question does that is taken back between the head of its answer and the end, when somebody moves on."""
    trace, said = a_slow_search(kept)
    kept.put(trace, said)
    page.route("**/traces/*", lambda route: route.fulfill(body='{"trace_id": "'))
    page.goto(address(f"#/trace/{trace.trace_id:032x}"))
    expect(page.locator("main .problem")).to_contain_text("JSON")
    page.unroute("**/traces/*")
    page.locator("nav a", has_text="overview").click()
    expect(page.locator("main .problem")).to_have_count(0)
    page.goto(address(f"#/trace/{trace.trace_id:032x}"))
    expect(page.locator(".waterfall li")).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_as_the_system_does_and_as_the_visitor_chooses(kept, address, page, scheme, tmp_path):
    trace, said = a_slow_search(kept)
    kept.requests(SLOW, 0.5, 5)
    kept.put(trace, said)
    page.emulate_media(color_scheme=scheme)
    page.goto(address())
    expect(page.locator(".u-over")).to_be_visible()
    light, dark = "rgb(246, 247, 249)", "rgb(15, 20, 27)"
    body = page.locator("body")
    expect(body).to_have_css("background-color", {"light": light, "dark": dark}[scheme])
    page.screenshot(path=tmp_path / f"{scheme}.png")
    page.click("text=auto")
    expect(body).to_have_css("background-color", light)
    page.click("header button:has-text('light')")
    expect(body).to_have_css("background-color", dark)
    page.reload()
    expect(body).to_have_css("background-color", dark)


def test_no_text_of_a_stranger_becomes_part_of_the_page(kept, address, page):
    """FAULTS 48: what visitors and libraries have put into every field, seen in every view."""
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    at = kept.now - 30 * SECOND
    for number, payload in enumerate(PAYLOADS):
        span = a_span(payload, at=at, own={payload: payload}, answer=payload[:20], failed=number % 2 == 0)
        span.status_text = payload
        trace = a_trace(span, kept="error", trace_id=(number + 1) << 64 | 1)
        log = a_log(payload, at=at, fields={payload: payload}, logger=payload, trace_id=trace.trace_id)
        kept.put(trace, log)
        kept.requests(payload, 0.1, 1)
    kept.sample(*(Family(payload, "gauge", [Point({payload: payload}, 1)], "", payload) for payload in PAYLOADS))
    seen = 0
    for view in (
        "",
        "#/traces",
        "#/logs",
        "#/metrics",
        *(f"#/trace/{number << 64 | 1:032x}" for number in range(1, 21)),
    ):
        page.goto(address(view))
        page.locator("main section, main .cards").first.wait_for()
        seen += page.evaluate("document.querySelectorAll('main *').length")
        assert (
            page.evaluate(
                "document.querySelectorAll('main script, main iframe, main object, main svg, main [onerror]').length"
            )
            == 0
        )
        assert page.evaluate("window.owned") is None
    print(f"FAULTS 48: {len(PAYLOADS)} payloads in every field, {seen} elements drawn, {len(dialogs)} dialogs")
    assert dialogs == []
