"""urllib3, and requests, against a real server and a real proxy."""

import asyncio
import json
import ssl
import threading
from types import MappingProxyType

import pytest
import requests
import trustme
import urllib3
from opentelemetry import baggage, context
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from urllib3.util import Retry, Timeout

import insitu
from insitu.adapters.libraries import HOOKS
from insitu.core.records import SERIES
from insitu.core.transport import Transport
from insitu.testing import recording
from tests.adapters.serving import counted, plain
from tests.servers import free_port

hook = HOOKS["urllib3"]


@pytest.fixture
def pools(monkeypatch):
    """urllib3 as nobody has wrapped it, and as no proxy of this machine's changes it."""
    plain(monkeypatch, urllib3.HTTPConnectionPool, "urlopen")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def recorded(pools):
    with recording() as started:
        hook(urllib3)
        yield started


def by_urllib3(method, url, **more):
    """A request by a pool manager: its status, and its content as JSON."""
    with urllib3.PoolManager() as manager:
        response = manager.request(method, url, **more)
        return response.status, json.loads(response.data or b"{}")


def by_requests(method, url, **more):
    response = requests.request(method, url, timeout=10, **more)
    return response.status_code, json.loads(response.content or b"{}")


both = pytest.mark.parametrize("ask", [by_urllib3, by_requests], ids=["urllib3", "requests"])


def clients(recorded):
    return [span for span in recorded.spans if span.kind.name == "CLIENT"]


@both
def test_a_call_is_a_client_span_below_the_current_one_and_counted(recorded, echo, ask):
    with insitu.span("work"):
        _, sent = ask("GET", f"{echo.url}/a?x=1")
    call, work = recorded.span("GET"), recorded.span("work")
    assert (call.kind.name, call.scope.name, call.parent_id) == ("CLIENT", "insitu.urllib3", work.span_id)
    assert call.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "url.full": f"{echo.url}/a?x=1",
        "http.response.status_code": 200,
    }
    assert sent["traceparent"] == f"00-{work.trace.trace_id:032x}-{call.span_id:016x}-03"
    assert recorded.point("http.client.request.duration").labels == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "http.response.status_code": 200,
    }
    assert counted(recorded, "http.client.request.duration") == 1


@both
def test_after_a_call_the_current_span_is_what_it_was(recorded, echo, ask):
    with insitu.span("work") as work:
        ask("GET", echo.url)
        assert insitu.core.context.current()[insitu.core.context.SPAN_KEY] is work


@both
def test_baggage_travels_along(recorded, echo, ask):
    token = context.attach(baggage.set_baggage("tier", "gold class"))
    try:
        assert ask("GET", echo.url)[1]["baggage"] == "tier=gold%20class"
    finally:
        context.detach(token)


@pytest.mark.parametrize(
    "kind", [dict, urllib3.HTTPHeaderDict, MappingProxyType, requests.structures.CaseInsensitiveDict]
)
def test_the_callers_headers_are_sent_and_stay_as_they_were(recorded, echo, kind):
    mine = {"X-Mine": "1", "Traceparent": "00-" + 31 * "0" + "1-0000000000000001-01"}
    given = kind(mine)
    with urllib3.connection_from_url(echo.url) as pool:
        pool.urlopen("GET", "/", None, given)
    assert dict(given) == mine
    sent = echo.seen[0][1]
    assert sent["x-mine"] == "1"
    assert sent["traceparent"].split("-")[2] == f"{recorded.span('GET').span_id:016x}"


def test_a_header_that_stands_twice_is_sent_twice(recorded, echo):
    given = urllib3.HTTPHeaderDict([("accept", "text/html"), ("accept", "text/plain")])
    by_urllib3("GET", echo.url, headers=given)
    assert echo.seen[0][1]["accept"] == "text/html, text/plain"


def test_a_pools_own_headers_are_still_its_default(recorded, echo):
    with urllib3.connection_from_url(echo.url, headers={"X-Pool": "1"}) as pool:
        pool.urlopen("GET", "/")
        pool.urlopen("GET", "/", headers={"X-Mine": "1"})
        assert pool.headers == {"X-Pool": "1"}
    (_, first), (_, second) = echo.seen
    assert ("x-pool" in first, "x-pool" in second, "x-mine" in second) == (True, False, True)
    assert "traceparent" in first
    assert "traceparent" in second


@both
def test_each_hop_of_a_redirect_is_a_call_of_its_own(recorded, echo, ask):
    with insitu.span("work"):
        ask("GET", f"{echo.url}/hop/2")
    calls = clients(recorded)
    assert [span.attributes["http.response.status_code"] for span in calls] == [302, 302, 200]
    assert [span.attributes["url.full"] for span in calls] == [f"{echo.url}/{end}" for end in ("hop/2", "hop/1", "end")]
    assert [headers["traceparent"].split("-")[2] for _, headers in echo.seen] == [
        f"{span.span_id:016x}" for span in calls
    ]
    assert {span.parent_id for span in calls} == {recorded.span("work").span_id}


@both
def test_a_hop_that_becomes_a_get_is_a_call_of_its_own(recorded, echo, ask):
    ask("POST", f"{echo.url}/hop/2")
    assert [span.name for span in recorded.spans] == ["POST", "GET", "GET"]


def test_what_a_pool_sends_again_belongs_to_the_one_call(recorded, echo):
    with urllib3.connection_from_url(echo.url) as pool:
        pool.request("GET", "/hop/2")
    assert len(echo.seen) == 3
    assert recorded.span("GET").attributes["http.response.status_code"] == 200
    assert counted(recorded, "http.client.request.duration") == 1


@pytest.mark.parametrize("sample", [1, 0])
def test_retries_belong_to_the_one_call(pools, echo, sample):
    again = Retry(total=2, status_forcelist=[503], backoff_factor=0, raise_on_status=False)
    with recording(sample=sample) as recorded:
        hook(urllib3)
        by_urllib3("GET", f"{echo.url}/status/503", retries=again)
        assert len(echo.seen) == 3
        assert len({headers["traceparent"] for _, headers in echo.seen}) == 1
        assert len(recorded.spans) == sample
        assert counted(recorded, "http.client.request.duration", http_response_status_code=503) == 1


def test_a_call_made_while_another_sends_its_body_is_traced_below_it(recorded, echo):
    def body():
        yield json.dumps(by_urllib3("GET", f"{echo.url}/inner")[1]).encode()

    length = {"content-length": str(len(json.dumps(by_urllib3("GET", f"{echo.url}/inner")[1])))}
    echo.seen.clear()
    with urllib3.PoolManager() as manager:
        manager.request("POST", f"{echo.url}/outer", body=body(), headers=length)
    assert [path for path, _ in echo.seen] == ["/inner", "/outer"]
    *_, inner, outer = clients(recorded)
    assert (inner.name, outer.name, inner.parent_id) == ("GET", "POST", outer.span_id)


@both
@pytest.mark.parametrize("code", [404, 503])
def test_an_error_status_marks_the_span(recorded, echo, ask, code):
    assert ask("GET", f"{echo.url}/status/{code}")[0] == code
    (span,) = recorded.spans
    assert (span.attributes["error.type"], span.status_code) == (str(code), 2)
    assert counted(recorded, "http.client.request.duration", error_type=str(code)) == 1
    assert recorded.errors == []


@pytest.mark.parametrize(
    ("ask", "raised"), [(by_urllib3, urllib3.exceptions.MaxRetryError), (by_requests, requests.ConnectionError)]
)
def test_an_exception_is_the_applications_own_and_marks_the_span(recorded, ask, raised):
    with pytest.raises(raised):
        ask("GET", f"http://127.0.0.1:{free_port()}/")
    (span,) = recorded.spans
    assert (span.attributes["error.type"], span.status_code) == ("urllib3.exceptions.MaxRetryError", 2)
    assert [event.name for event in span.events] == ["exception"]
    assert counted(recorded, "http.client.request.duration", error_type="urllib3.exceptions.MaxRetryError") == 1


def test_a_timeout_marks_the_span(recorded, silent):
    port, _ = silent
    with urllib3.PoolManager() as manager, pytest.raises(urllib3.exceptions.ReadTimeoutError):
        manager.request("GET", f"http://127.0.0.1:{port}/", timeout=Timeout(read=0.1), retries=False)
    assert recorded.span("GET").attributes["error.type"] == "urllib3.exceptions.ReadTimeoutError"


@both
def test_a_password_in_the_url_stays_here(recorded, echo, ask):
    ask("GET", f"http://me:secret@127.0.0.1:{echo.server_port}/a")
    assert recorded.spans[0].attributes["url.full"] == f"{echo.url}/a"


def test_a_pool_that_is_given_a_whole_url_tells_it_without_the_password(recorded, echo):
    with urllib3.connection_from_url(echo.url) as pool:
        pool.urlopen("GET", f"http://me:secret@127.0.0.1:{echo.server_port}/a?x=1#part", assert_same_host=False)
    attributes = recorded.span("GET").attributes
    assert "secret" not in attributes["url.full"]
    assert attributes["url.full"].startswith(f"{echo.url}/a?x=1")
    assert attributes["server.port"] == echo.server_port


@both
def test_a_method_that_is_not_known_counts_as_other(recorded, echo, ask):
    ask("BREW", echo.url)
    attributes = recorded.span("HTTP").attributes
    assert (attributes["http.request.method"], attributes["http.request.method_original"]) == ("_OTHER", "BREW")
    assert counted(recorded, "http.client.request.duration", http_request_method="_OTHER") == 1


def test_a_long_url_is_cut(recorded, echo):
    by_urllib3("GET", f"{echo.url}/a?{'x' * 20_000}")
    assert len(recorded.span("GET").attributes["url.full"]) == 8_192
    assert len(echo.seen[0][0]) > 20_000


def test_an_address_of_ipv6_has_its_brackets_in_the_url_alone(recorded):
    with urllib3.connection_from_url("http://[::1]:1/") as pool, pytest.raises(urllib3.exceptions.HTTPError):
        pool.request("GET", "/a", retries=False, timeout=1)
    attributes = recorded.span("GET").attributes
    assert (attributes["url.full"], attributes["server.address"]) == ("http://[::1]:1/a", "::1")


# -- proxies


def test_behind_a_proxy_the_target_is_told(recorded, echo):
    with urllib3.ProxyManager(echo.url) as proxy:
        proxy.request("GET", "http://shop.example/a")
    requests.get("http://shop.example:81/b", proxies={"http": echo.url}, timeout=10)
    first, second = (span.attributes for span in recorded.spans)
    assert (first["url.full"], first["server.address"], first["server.port"]) == (
        "http://shop.example/a",
        "shop.example",
        80,
    )
    assert (second["url.full"], second["server.port"]) == ("http://shop.example:81/b", 81)
    assert [path for path, _ in echo.seen] == ["http://shop.example/a", "http://shop.example:81/b"]
    assert all("traceparent" in headers for _, headers in echo.seen)


def test_inside_a_tunnel_the_target_is_told_and_the_proxy_learns_nothing(recorded, echo, tmp_path):
    authority = trustme.CA()
    echo.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("shop.example").configure_cert(echo.tls)
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    with urllib3.ProxyManager(echo.url, ca_certs=str(trusted)) as proxy:
        proxy.request("GET", "https://shop.example/a")
    attributes = recorded.span("GET").attributes
    assert (attributes["url.full"], attributes["server.port"]) == ("https://shop.example/a", 443)
    (tunnel, asked), (path, sent) = echo.seen
    assert (tunnel, "traceparent" in asked) == ("shop.example:443", False)
    assert (path, "traceparent" in sent) == ("/a", True)


def test_a_crawler_of_many_hosts_is_counted_in_full_and_keeps_no_more_series_than_there_may_be(recorded, echo):
    hosts = SERIES + 200
    with urllib3.ProxyManager(echo.url) as proxy:
        for number in range(hosts):
            proxy.request("HEAD", f"http://host-{number}.example/")
    points = recorded.family("http.client.request.duration").points
    assert len(points) == SERIES + 1
    assert counted(recorded, "http.client.request.duration") == hosts


def test_a_name_that_no_host_can_have_takes_no_more_room_than_a_label(recorded, echo):
    with urllib3.ProxyManager(echo.url) as proxy:
        proxy.request("GET", f"http://{'x' * 30_000}.example/")
    assert len(recorded.point("http.client.request.duration").labels["server.address"]) == 256


# -- whose work it is


def test_what_is_suppressed_is_not_traced(recorded, echo):
    token = insitu.core.context.suppress()
    try:
        assert "traceparent" not in by_urllib3("GET", echo.url)[1]
    finally:
        insitu.core.context.leave(token)
    assert recorded.spans == []


def test_what_insitu_sends_is_not_traced_whatever_thread_it_is_sent_from(recorded, echo):
    transport = Transport(user_agent="insitu", wait=lambda _: True)
    with insitu.span("work"):
        assert transport.post(echo.url, b"", content_type="text/plain").outcome == "ok"
        by_urllib3("GET", echo.url)
    transport.close()
    assert [span.name for span in recorded.spans] == ["GET", "work"]
    assert "traceparent" not in echo.seen[0][1]


def test_after_shutdown_calls_are_untouched(recorded, echo):
    insitu.shutdown()
    assert "traceparent" not in by_requests("GET", echo.url)[1]


def test_calls_of_several_threads_and_tasks_do_not_mix(recorded, echo):
    def work(number):
        with insitu.span(f"work {number}"):
            for _ in range(5):
                by_requests("GET", f"{echo.url}/{number}")

    async def run():
        await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4, 8)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(run())
    for thread in threads:
        thread.join()
    assert len(recorded.traces) == 8
    for trace in recorded.traces:
        *calls, root = trace.spans
        assert [span.parent_id for span in calls] == [root.span_id] * 5
        assert {span.attributes["url.full"][-1] for span in calls} == {root.name[-1]}


@both
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("instrumentor", [URLLib3Instrumentor, RequestsInstrumentor], ids=["urllib3", "requests"])
def test_opentelemetrys_instrumentation_replaces_ours(pools, echo, ask, order, instrumentor):
    name = instrumentor.__module__
    theirs = ask is by_requests or instrumentor is URLLib3Instrumentor
    switches = [instrumentor().instrument, lambda: hook(urllib3)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            with insitu.span("work"):
                _, sent = ask("GET", echo.url)
        finally:
            pools.undo()
            instrumentor().uninstrument()
        (call,) = clients(recorded)
        assert call.scope.name == (name if theirs else "insitu.urllib3")
        assert call.parent_id == recorded.span("work").span_id
        assert sent["traceparent"].split("-")[2] == f"{call.span_id:016x}"
