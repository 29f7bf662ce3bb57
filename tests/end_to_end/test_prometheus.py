"""A real application, real requests, and a real Prometheus that scrapes it: what was sent is what is counted."""

import subprocess
import time

import pytest

from tests.end_to_end.serving import SECRET, serving
from tests.servers import get_json, until

pytestmark = pytest.mark.backend

COUNT = "http_server_request_duration_seconds_count"
REQUESTS = (
    ("GET", "/items/3", "/items/{number}", 200, 40),
    ("GET", "/items/4?colour=red", "/items/{number}", 200, 20),
    ("GET", "/items/three", "/items/{number}", 422, 7),
    ("POST", "/orders/3?value=20", "/orders/{number}", 201, 15),
    ("GET", "/nothing/here", "", 404, 9),
    ("DELETE", "/busy", "/busy", 405, 3),
    ("GET", "/busy", "/busy", 503, 5),
    ("GET", "/fails", "/fails", 500, 6),
)
"""Method, path, the route that it matches, the status that answers, and how often it is sent."""
SENT = {(method, route, str(status)): 0 for method, _, route, status, _ in REQUESTS}
for method, _, route, status, times in REQUESTS:
    SENT[method, route, str(status)] += times
TOKEN = "scrape-me"


@pytest.fixture(name="application")
def _application(tmp_path):
    with serving(tmp_path, INSITU_TRACE_HEADER="x-trace-id", OTEL_SERVICE_NAME="shop") as application:
        yield application


def send(application):
    """Sends all requests, and gives the route by the trace id that the answer names."""
    traces = {}
    with application.client() as client:
        for method, path, route, status, times in REQUESTS:
            for _ in range(times):
                answer = client.request(method, path)
                assert answer.status_code == status
                traces[answer.headers["x-trace-id"]] = route
    return traces


def query(url, expression):
    return get_json(f"{url}/api/v1/query", query=expression)["data"]["result"]


def value(url, expression):
    """The one value of an expression, 0 while there is none."""
    return sum(float(series["value"][1]) for series in query(url, expression))


def by_series(url):
    by = "http_request_method, http_route, http_response_status_code"
    return {
        tuple(series["metric"].get(label, "") for label in by.split(", ")): float(series["value"][1])
        for series in query(url, f"sum by ({by}) ({COUNT})")
    }


def test_prometheus_counts_exactly_the_requests_that_were_sent(application, prometheus):
    url = prometheus(application.target)
    traces = send(application)
    assert len(traces) == sum(SENT.values())
    until(lambda: value(url, f"sum({COUNT})") >= len(traces), what="the count in Prometheus")
    assert by_series(url) == SENT
    assert value(url, f"sum({COUNT})") == len(traces)
    assert value(url, 'orders_total{plan="pro"}') == SENT["POST", "/orders/{number}", "201"]
    (resource,) = query(url, "target_info")
    assert resource["metric"]["service_name"] == "shop"


def test_an_exemplar_in_prometheus_leads_to_a_request_that_was_made(application, prometheus):
    url = prometheus(application.target)
    begin = time.time()
    traces = send(application)

    def exemplars():
        window = {"start": str(begin - 60), "end": str(time.time() + 60)}
        found = get_json(f"{url}/api/v1/query_exemplars", query=COUNT.replace("_count", "_bucket"), **window)["data"]
        return [
            (series["seriesLabels"].get("http_route", ""), exemplar)
            for series in found
            for exemplar in series["exemplars"]
        ]

    routes = set(traces.values())
    until(lambda: {route for route, _ in exemplars()} == routes, what="the exemplars in Prometheus")
    for route, exemplar in exemplars():
        assert traces[exemplar["labels"]["trace_id"]] == route
        assert len(exemplar["labels"]["span_id"]) == 16
        assert 0 < float(exemplar["value"]) < 5


def test_promtool_finds_nothing_to_say_about_the_page(application, promtool):
    send(application)
    page = application.metrics()
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert page.count(COUNT) >= len(SENT)
    assert SECRET not in page


def test_prometheus_needs_the_token_where_it_does_not_ask_for_loopback(tmp_path, prometheus):
    asks = {
        "right": {"authorization": {"credentials": TOKEN}},
        "wrong": {"authorization": {"credentials": "x"}},
        "none": {},
    }
    with serving(tmp_path, "--http=httptools", INSITU_TOKEN=TOKEN) as application:
        # To its proxy, which the application plays, Prometheus names the host that it means: no name of loopback.
        remote = {"proxy_url": application.url, "static_configs": [{"targets": ["shop.example:80"]}]}
        url = prometheus(
            config={"scrape_configs": [{"job_name": name, **remote, **more} for name, more in asks.items()]}
        )

        def scraped():
            found = {
                target["scrapePool"]: target for target in get_json(f"{url}/api/v1/targets")["data"]["activeTargets"]
            }
            return found.keys() == asks.keys() and all(each["health"] != "unknown" for each in found.values()) and found

        errors = {name: (each["health"], each["lastError"]) for name, each in until(scraped, 15).items()}
    refused = ("down", "server returned HTTP status 401 Unauthorized")
    assert errors == {"right": ("up", ""), "wrong": refused, "none": refused}
