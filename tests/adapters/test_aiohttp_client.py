"""aiohttp's client against a real server."""

import asyncio
import socket

import aiohttp
import pytest
from fastapi import FastAPI
from opentelemetry import baggage, context
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor, create_trace_config

import insitu
from insitu import runtime
from insitu.adapters import aiohttp_client as adapter
from insitu.core.context import SPAN_KEY, current, leave, suppress
from insitu.testing import recording
from tests.adapters.serving import call, counted, plain
from tests.servers import free_port


def by_call(module):
    """Hooks a session as one before 3.12 would be, which has no middlewares."""
    adapter.wrapt.wrap_function_wrapper(module, "ClientSession._request", adapter.by_call)


BY_HOP, BY_CALL = pytest.param(adapter.hook, id="by hop"), pytest.param(by_call, id="by call")


@pytest.fixture(params=[BY_HOP, BY_CALL])
def hook(request, monkeypatch):
    plain(monkeypatch, aiohttp.ClientSession, "_request")
    return request.param


@pytest.fixture
def recorded(hook):
    with recording() as started:
        hook(aiohttp.client)
        yield started


by_hop_alone = pytest.mark.parametrize("hook", [BY_HOP], indirect=True)


def ask(url, method="GET", session=None, **more):
    """A request by a session of its own: its status, and its content as JSON."""

    async def run():
        async with aiohttp.ClientSession(**(session or {})) as client, client.request(method, url, **more) as response:
            return response.status, await response.json(content_type=None)

    return asyncio.run(run())


def test_a_call_is_a_client_span_below_the_current_one_and_counted(recorded, echo):
    with insitu.span("work"):
        _, sent = ask(f"{echo.url}/a", params={"x": "1"})
    client, work = recorded.span("GET"), recorded.span("work")
    assert (client.kind.name, client.scope.name, client.parent_id) == ("CLIENT", "insitu.aiohttp-client", work.span_id)
    assert client.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "url.full": f"{echo.url}/a?x=1",
        "http.response.status_code": 200,
    }
    assert sent["traceparent"] == f"00-{work.trace.trace_id:032x}-{client.span_id:016x}-03"
    assert recorded.point("http.client.request.duration").labels == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": echo.server_port,
        "http.response.status_code": 200,
    }
    assert counted(recorded, "http.client.request.duration") == 1


def test_after_a_call_the_current_span_is_what_it_was(recorded, echo):
    async def run():
        async with aiohttp.ClientSession() as client:
            with insitu.span("work") as work:
                await (await client.get(echo.url)).read()
                assert current()[SPAN_KEY] is work
                with pytest.raises(aiohttp.ClientError):
                    await client.get(f"http://127.0.0.1:{free_port()}/")
                assert current()[SPAN_KEY] is work

    asyncio.run(run())


def test_baggage_travels_along(recorded, echo):
    token = context.attach(baggage.set_baggage("tier", "gold class"))
    try:
        assert ask(echo.url)[1]["baggage"] == "tier=gold%20class"
    finally:
        context.detach(token)


@pytest.mark.parametrize("kind", [dict, lambda given: list(given.items()), aiohttp.typedefs.CIMultiDict])
def test_the_callers_headers_are_sent_and_stay_as_they_were(recorded, echo, kind):
    given = kind({"X-Mine": "1", "Traceparent": "old"})
    _, sent = ask(echo.url, session={"headers": {"X-Session": "1"}}, headers=given)
    assert given == kind({"X-Mine": "1", "Traceparent": "old"})
    assert (sent["x-mine"], sent["x-session"]) == ("1", "1")
    assert sent["traceparent"].split("-")[2] == f"{recorded.span('GET').span_id:016x}"


@by_hop_alone
def test_each_hop_of_a_redirect_is_a_call_of_its_own(recorded, echo):
    with insitu.span("work"):
        ask(f"{echo.url}/hop/2")
    calls = [span for span in recorded.spans if span.name == "GET"]
    assert [span.attributes["http.response.status_code"] for span in calls] == [302, 302, 200]
    assert [span.attributes["url.full"] for span in calls] == [f"{echo.url}/{end}" for end in ("hop/2", "hop/1", "end")]
    assert [headers["traceparent"].split("-")[2] for _, headers in echo.seen] == [
        f"{span.span_id:016x}" for span in calls
    ]
    assert {span.parent_id for span in calls} == {recorded.span("work").span_id}


@pytest.mark.parametrize("hook", [BY_CALL], indirect=True)
def test_where_there_are_no_middlewares_the_hops_of_a_redirect_are_one_call(recorded, echo):
    ask(f"{echo.url}/hop/2")
    assert len(echo.seen) == 3
    assert recorded.span("GET").attributes["http.response.status_code"] == 200


@pytest.mark.parametrize("code", [404, 503])
@pytest.mark.parametrize("raises", [False, True])
def test_an_error_status_marks_the_span(recorded, echo, code, raises):
    if raises:
        with pytest.raises(aiohttp.ClientResponseError):
            ask(f"{echo.url}/status/{code}", raise_for_status=True)
    else:
        assert ask(f"{echo.url}/status/{code}")[0] == code
    (span,) = recorded.spans
    assert span.status_code == 2
    assert span.attributes["error.type"] in (str(code), "aiohttp.client_exceptions.ClientResponseError")
    assert counted(recorded, "http.client.request.duration", error_type=span.attributes["error.type"]) == 1


def test_an_exception_is_the_applications_own_and_marks_the_span(recorded):
    with pytest.raises(aiohttp.ClientConnectorError), insitu.span("work"):
        ask(f"http://127.0.0.1:{free_port()}/")
    span, kind = recorded.span("GET"), "aiohttp.client_exceptions.ClientConnectorError"
    assert (span.attributes["error.type"], span.status_code) == (kind, 2)
    assert counted(recorded, "http.client.request.duration", error_type=kind) == 1
    assert [error.type for error in recorded.errors] == [kind]  # once, though two spans saw it


def test_a_cancelled_call_is_nobodys_error(recorded, silent):
    port, asked = silent

    async def run():
        async with aiohttp.ClientSession() as client:
            task = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            assert await asyncio.to_thread(asked.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    (span,) = recorded.spans
    assert span.attributes["insitu.cancelled"] is True
    assert (span.status_code, recorded.errors) == (0, [])
    assert counted(recorded, "http.client.request.duration") == 1
    assert "error.type" not in recorded.point("http.client.request.duration").labels


@pytest.fixture
def unreachable():
    """A port whose queue of connections is full: another one is never made, and never refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for each in waiting:
            each.close()


@pytest.mark.parametrize("limit", ["total", "connect", "sock_connect"])
def test_a_connection_that_takes_too_long_is_an_error(recorded, unreachable, limit):
    times_out(recorded, unreachable, limit)


@pytest.mark.parametrize("limit", ["total", "sock_read"])
def test_an_answer_that_takes_too_long_is_an_error(recorded, silent, limit):
    times_out(recorded, silent[0], limit)


def times_out(recorded, port, limit):
    with pytest.raises(TimeoutError):
        ask(f"http://127.0.0.1:{port}/", timeout=aiohttp.ClientTimeout(**{limit: 0.1}))
    (span,) = recorded.spans
    assert span.status_code == 2
    assert span.attributes["error.type"].endswith("TimeoutError")
    assert "insitu.cancelled" not in span.attributes
    assert counted(recorded, "http.client.request.duration", error_type=span.attributes["error.type"]) == 1


def test_a_password_in_the_url_stays_here(recorded, echo):
    ask(f"http://me:secret@127.0.0.1:{echo.server_port}/a")
    assert recorded.spans[0].attributes["url.full"] == f"{echo.url}/a"
    assert echo.seen[0][1]["authorization"].startswith("Basic ")


def test_behind_a_proxy_the_target_is_told(recorded, echo):
    ask("http://shop.example/a", proxy=echo.url)
    attributes = recorded.span("GET").attributes
    assert (attributes["url.full"], attributes["server.address"]) == ("http://shop.example/a", "shop.example")
    assert echo.seen[0][0] == "http://shop.example/a"


def test_a_trace_that_is_not_sampled_travels_as_such_and_leaves_a_count_alone(hook, echo):
    with recording(sample=0) as recorded:
        hook(aiohttp.client)
        with insitu.span("work"):
            assert ask(echo.url)[1]["traceparent"].endswith("-02")
        assert recorded.spans == []
        assert counted(recorded, "http.client.request.duration") == 1


def test_what_is_suppressed_is_not_traced(recorded, echo):
    token = suppress()
    try:
        assert "traceparent" not in ask(echo.url)[1]
    finally:
        leave(token)
    assert recorded.spans == []


def test_after_shutdown_calls_are_untouched(recorded, echo):
    insitu.shutdown()
    assert "traceparent" not in ask(echo.url)[1]


def test_the_applications_own_trace_configs_and_middlewares_do_their_work(recorded, echo):
    happened = []

    async def begun(session, about, parameters):
        happened.append("begun")

    async def ended(session, about, parameters):
        happened.append("ended")

    def middleware(name):
        async def passed(request, handler):
            happened.append(name)
            request.headers["x-middleware"] = name
            return await handler(request)

        return passed

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begun)
    config.on_request_end.append(ended)
    session = {"trace_configs": [config], "middlewares": [middleware("of the session")]}
    assert ask(echo.url, session=session)[1]["x-middleware"] == "of the session"
    assert ask(echo.url, session=session, middlewares=[middleware("its own")])[1]["x-middleware"] == "its own"
    assert "x-middleware" not in ask(echo.url, session=session, middlewares=())[1]
    assert happened == ["begun", "of the session", "ended", "begun", "its own", "ended", "begun", "ended"]
    assert [span.name for span in recorded.spans] == ["GET"] * 3


@by_hop_alone
def test_what_a_middleware_sends_again_is_a_call_of_its_own(recorded, echo):
    async def insistent(request, handler):
        response = await handler(request)
        return response if response.status == 200 else await handler(request)

    ask(f"{echo.url}/status/503", session={"middlewares": [insistent]})
    assert [span.attributes["http.response.status_code"] for span in recorded.spans] == [503, 503]
    assert len({headers["traceparent"] for _, headers in echo.seen}) == 2


def test_interleaved_calls_do_not_mix(recorded, echo):
    async def fetch(client, number):
        async with client.get(f"{echo.url}/{number}") as response:
            await response.read()

    async def work(client, number):
        with insitu.span(f"work {number}"):
            await asyncio.gather(*(fetch(client, number) for _ in range(3)))

    async def run():
        async with aiohttp.ClientSession() as client:
            await asyncio.gather(*(work(client, number) for number in range(8)))

    asyncio.run(run())
    assert len(recorded.traces) == 8
    for trace in recorded.traces:
        *calls, root = trace.spans
        assert [span.parent_id for span in calls] == [root.span_id] * 3
        assert {span.attributes["url.full"][-1] for span in calls} == {root.name[-1]}


def test_a_call_inside_a_request_of_fastapi_is_a_child_of_our_server_span(recorded, echo):
    app = FastAPI()

    @app.get("/proxy")
    async def proxy():
        async with aiohttp.ClientSession() as client, client.get(echo.url) as response:
            return (await response.json(content_type=None))["traceparent"]

    asyncio.run(call(runtime.current().instrument(app), "/proxy"))
    request, client = recorded.span("GET /proxy"), recorded.span("GET")
    assert client.parent_id == request.span_id
    assert echo.seen[0][1]["traceparent"].split("-")[2] == f"{client.span_id:016x}"


@pytest.mark.parametrize("order", ["before", "after"])
def test_opentelemetrys_instrumentation_replaces_ours(hook, echo, order):
    instrumentor = AioHttpClientInstrumentor()
    switches = [instrumentor.instrument, lambda: hook(aiohttp.client)]
    with recording() as recorded:
        for switch in switches if order == "before" else reversed(switches):
            switch()
        try:
            with insitu.span("work"):
                _, sent = ask(echo.url)
        finally:
            instrumentor.uninstrument()
        (client,) = (span for span in recorded.spans if span.kind.name == "CLIENT")
        assert client.scope.name == "opentelemetry.instrumentation.aiohttp_client"
        assert client.parent_id == recorded.span("work").span_id
        assert sent["traceparent"].split("-")[2] == f"{client.span_id:016x}"


@by_hop_alone
def test_one_session_that_opentelemetry_traces_is_traced_once_and_others_by_us(recorded, echo):
    ask(echo.url, session={"trace_configs": [create_trace_config()]})
    ask(echo.url)
    scopes = [span.scope.name for span in recorded.spans]
    assert scopes == ["opentelemetry.instrumentation.aiohttp_client", "insitu.aiohttp-client"]
