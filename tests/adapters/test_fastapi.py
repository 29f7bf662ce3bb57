"""Real FastAPI and Starlette applications, in process and over real sockets."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import insitu
from insitu import runtime
from insitu.adapters import fastapi as adapter
from insitu.adapters.asgi import Middleware
from insitu.testing import FakeClock, recording
from tests.adapters.serving import body, call, client, counted, raw, raw_status, served, status
from tests.servers import until


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def instrument(app):
    return runtime.current().instrument(app)


def visit(app, *paths, method="GET", **more):
    """The answers to some requests, one after the other."""

    async def run():
        async with client(app) as visitor:
            return [await visitor.request(method, path, **more) for path in paths]

    return asyncio.run(run())


def name_of(recorded):
    return recorded.spans[-1].name


# -- route templates


async def plain(request):
    return PlainTextResponse("plain")


def routes_app():
    deep = APIRouter(prefix="/deep/{level}")
    orders = APIRouter(prefix="/orders")
    inner = FastAPI()
    app = FastAPI()
    for router, path in (
        (deep, "/leaf/{leaf}"),
        (orders, "/{number}"),
        (inner, "/things/{thing}"),
        (inner, "/"),
        (app, "/items/{id}"),
    ):

        @router.get(path)
        async def answer():
            return "fine"

    orders.include_router(deep)
    orders.mount("/files/{folder}", PlainTextResponse("file"))
    orders.add_route("/plain/{word}", plain)
    app.include_router(orders, prefix="/v1")
    app.include_router(orders, prefix="/v2/{tenant}")
    app.mount("/sub", inner)
    app.mount("/users/{id}", inner)
    below = [Route("/a/{b}", plain), Mount("/m/{k}", routes=[Route("/z", plain)]), Mount("/fast/{n}", inner)]
    app.mount("/star", Starlette(routes=below))
    app.mount("/assets", StaticFiles(directory=Path(__file__).parent))
    app.host("api.example", Starlette(routes=[Route("/hosted/{h}", plain)]))
    return app


TEMPLATES = {
    "/items/alice": "/items/{id}",
    "/v1/orders/alice": "/v1/orders/{number}",
    "/v2/alice/orders/alice": "/v2/{tenant}/orders/{number}",
    "/v1/orders/deep/alice/leaf/alice": "/v1/orders/deep/{level}/leaf/{leaf}",
    "/v2/alice/orders/deep/alice/leaf/alice": "/v2/{tenant}/orders/deep/{level}/leaf/{leaf}",
    "/v1/files/alice/a.txt": "/v1/files/{folder}/{path}",  # FastAPI leaves the router's own prefix out here
    "/v2/alice/plain/alice": "/v2/{tenant}/plain/{word}",
    "/sub/things/alice": "/sub/things/{thing}",
    "/sub/": "/sub/",
    "/users/alice/things/alice": "/users/{id}/things/{thing}",
    "/users/alice/": "/users/{id}/",
    "/users/alice/alice": "/users/{id}/{path}",
    "/star/a/alice": "/star/a/{b}",
    "/star/m/alice/z": "/star/m/{k}/z",
    "/star/fast/alice/things/alice": "/star/fast/{n}/things/{thing}",
    "/assets/serving.py": "/assets/{path}",
    "/assets/alice": "/assets/{path}",
    "/openapi.json": "/openapi.json",
    "/docs": "/docs",
    "/sub/openapi.json": "/sub/openapi.json",
    "/alice": None,
    "/items/alice/": None,
}


@pytest.mark.parametrize(("path", "template"), TEMPLATES.items())
def test_the_route_is_the_whole_template_and_never_a_value(recorded, path, template):
    visit(instrument(routes_app()), path)
    (span,) = recorded.spans
    assert span.attributes.get("http.route") == template
    assert span.name == (f"GET {template}" if template else "GET")
    assert counted(recorded) == 1
    (point,) = recorded.family("http.server.request.duration").points
    assert "alice" not in json.dumps([span.name, dict(point.labels)])


def test_a_route_below_a_host_keeps_its_template(recorded):
    visit(instrument(routes_app()), "/hosted/alice", headers={"host": "api.example"})
    assert name_of(recorded) == "GET /hosted/{h}"


def test_the_template_is_the_same_on_the_second_request(recorded):
    visit(instrument(routes_app()), *["/users/alice/things/1", "/users/bob/things/2", "/users/alice/things/3"] * 2)
    assert {span.name for span in recorded.spans} == {"GET /users/{id}/things/{thing}"}


def test_a_server_behind_a_prefix_sees_the_same_templates(recorded):
    app = instrument(routes_app())
    for path in ("/api/items/alice", "/api/users/alice/things/alice", "/api/openapi.json"):
        assert status(asyncio.run(call(app, path, root_path="/api"))) == 200
    assert [span.name for span in recorded.spans] == [
        "GET /items/{id}",
        "GET /users/{id}/things/{thing}",
        "GET /openapi.json",
    ]


def test_the_prefixes_that_are_remembered_are_bounded(recorded):
    app = instrument(routes_app())
    visit(app, *[f"/users/{number}/things/1" for number in range(adapter._MOUNTS + 40)])
    assert {span.name for span in recorded.spans} == {"GET /users/{id}/things/{thing}"}
    assert len(app.middleware_stack._mounts) == adapter._MOUNTS


def test_starlette_alone_has_templates_too(recorded):
    app = Starlette(routes=[Route("/a/{b}", plain), Mount("/m/{k}", routes=[Route("/z/{w}", plain)])])
    visit(instrument(app), "/a/alice", "/m/alice/z/alice", "/none")
    assert [span.name for span in recorded.spans] == ["GET /a/{b}", "GET /m/{k}/z/{w}", "GET"]


def test_a_scan_over_a_hundred_thousand_paths_is_one_series_and_one_name():
    names = set()

    class Names:
        def accept(self, records):
            names.update(span.name for trace in records for span in trace.spans)

    async def scan(app):
        for start in range(0, 100_000, 2_000):
            for number in range(start, start + 2_000):
                await call(app, f"/wp-admin/{number}")
            recorded.runtime.pipeline.drain(30)

    with recording() as recorded:
        recorded.runtime.pipeline.sinks[:] = [Names()]
        app = instrument(Starlette(routes=[Route("/items/{id}", plain)]))
        began = time.perf_counter()
        asyncio.run(scan(app))
        points = recorded.family("http.server.request.duration").points
        print(f"{len(points)} series, {len(names)} names, {(time.perf_counter() - began) * 10:.0f} µs a request")
        assert (len(points), names) == (1, {"GET"})
        assert sum(points[0].buckets) == 100_000


# -- answers


def answers_app():
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int):
        if number == 0:
            raise HTTPException(409, "taken")
        if number == 13:
            raise LookupError("unlucky")
        return number

    @app.get("/old")
    async def old():
        return RedirectResponse("/items/1")

    @app.get("/handled")
    async def handled():
        raise ConnectionError("gone")

    @app.exception_handler(ConnectionError)
    async def answered(request, error):
        return JSONResponse({"trace": insitu.trace_id()}, 503)

    return app


@pytest.mark.parametrize(
    ("method", "path", "expected", "name", "error_type"),
    [
        ("GET", "/items/1", 200, "GET /items/{number}", None),
        ("POST", "/items/1", 405, "POST /items/{number}", None),
        ("GET", "/items/x", 422, "GET /items/{number}", None),
        ("GET", "/items/0", 409, "GET /items/{number}", None),
        ("GET", "/old", 307, "GET /old", None),
        ("GET", "/old/", 307, "GET", None),
        ("GET", "/none", 404, "GET", None),
        ("GET", "/items/13", 500, "GET /items/{number}", "LookupError"),
        ("GET", "/handled", 503, "GET /handled", "503"),
    ],
)
def test_each_way_to_answer_is_one_span_with_its_status(recorded, method, path, expected, name, error_type):
    (response,) = visit(instrument(answers_app()), path, method=method)
    assert response.status_code == expected
    (span,) = recorded.spans
    assert span.name == name
    assert span.attributes["http.response.status_code"] == expected
    assert span.attributes.get("error.type") == error_type
    assert span.status_code == (2 if error_type else 0)
    assert len(recorded.errors) == (error_type == "LookupError")
    assert counted(recorded, http_response_status_code=expected) == counted(recorded) == 1


def test_an_unhandled_exception_is_recorded_once_and_reaches_the_server_as_it_is(recorded):
    app = FastAPI()
    error = LookupError("mine")

    @app.get("/boom")
    async def boom():
        raise error

    with pytest.raises(LookupError) as caught:
        asyncio.run(call(instrument(app), "/boom"))
    assert caught.value is error
    (span,) = recorded.spans
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes["http.response.status_code"] == 500
    assert [found.type for found in recorded.errors] == ["LookupError"]
    assert sum(point.value for point in recorded.family("insitu.errors").points) == 1
    assert counted(recorded, http_response_status_code=500, error_type="LookupError") == 1


def test_an_error_page_can_name_the_trace():
    with recording(trace_header="x-trace-id") as recorded:
        (response,) = visit(instrument(answers_app()), "/handled")
        (span,) = recorded.spans
    assert response.json()["trace"] == response.headers["x-trace-id"] == f"{span.trace.trace_id:032x}"


def test_the_answer_to_a_crash_carries_the_trace_too():
    with recording(trace_header="x-trace-id") as recorded:
        (response,) = visit(instrument(answers_app()), "/items/13")
        assert response.status_code == 500
        assert response.headers["x-trace-id"] == f"{recorded.spans[0].trace.trace_id:032x}"


def test_a_head_request_is_named_by_its_own_method(recorded):
    app = Starlette(routes=[Route("/a/{b}", plain)])
    visit(instrument(app), "/a/1", method="HEAD")
    assert name_of(recorded) == "HEAD /a/{b}"


# -- inside of a request


def test_sync_and_async_endpoints_and_dependencies_see_the_request_and_bind_to_it(recorded):
    app = FastAPI()
    order = []

    def user(name: str):
        insitu.bind(user=name)
        with insitu.span("open"):
            order.append("open")
        yield name
        with insitu.span("close"):
            order.append("close")

    @app.get("/sync")
    def sync(name: Annotated[str, Depends(user)]):
        with insitu.span("work"):
            insitu.log.info("working")
        return insitu.trace_id()

    @app.get("/async")
    async def asynchronous(name: Annotated[str, Depends(user)]):
        with insitu.span("work"):
            insitu.log.info("working")
        return insitu.trace_id()

    for response in visit(instrument(app), "/sync?name=ann", "/async?name=ben"):
        assert response.status_code == 200
        user_name = response.request.url.params["name"]
        (trace,) = [
            each
            for each in recorded.traces
            if f"{each.trace_id:032x}" == response.json() and each.spans[-1].name.startswith("GET")
        ]
        spans = {span.name: span for each in recorded.traces if each.trace_id == trace.trace_id for span in each.spans}
        request = spans.pop(f"GET {response.request.url.path}")
        assert set(spans) == {"open", "work", "close"}
        assert all(span.parent_id == request.span_id for span in spans.values())
        assert all(span.attributes["user.id"] == user_name for span in (request, *spans.values()))
        (log,) = [log for log in recorded.logs if log.trace_id == trace.trace_id]
        assert (log.span_id, log.attributes["user.id"]) == (spans["work"].span_id, user_name)
    assert order == ["open", "close"] * 2


def test_background_tasks_do_not_lengthen_the_request_and_their_spans_are_children():
    clock = FakeClock()
    app = FastAPI()

    def afterwards():
        clock.advance(30)
        with insitu.span("afterwards"):
            clock.advance(1)

    @app.get("/now")
    async def now(tasks: BackgroundTasks):
        tasks.add_task(afterwards)
        clock.advance(2)

    with recording(clock=clock) as recorded:
        visit(instrument(app), "/now")
        request, task = recorded.span("GET /now"), recorded.span("afterwards")
        assert (request.duration, task.duration) == (2_000_000_000, 1_000_000_000)
        assert (task.parent_id, task.trace.trace_id) == (request.span_id, request.trace.trace_id)


def test_a_background_task_that_fails_is_an_error_of_the_trace(recorded):
    app = FastAPI()

    def afterwards():
        raise OSError("too late")

    @app.get("/now")
    async def now(tasks: BackgroundTasks):
        tasks.add_task(afterwards)

    visit(instrument(app), "/now")
    assert recorded.span("GET /now").attributes["http.response.status_code"] == 200
    (found,) = recorded.errors
    assert (found.type, found.trace_id) == ("OSError", recorded.spans[0].trace.trace_id)


def test_a_hundred_interleaved_requests_do_not_mix(recorded):
    app = FastAPI()

    def who(user: str):
        insitu.bind(user=user)
        return user

    @app.get("/async/{user}")
    async def asynchronous(user: Annotated[str, Depends(who)]):
        await asyncio.sleep(0.001 * (int(user) % 5))
        with insitu.span("work", mine=user):
            await asyncio.sleep(0)
        return insitu.trace_id()

    @app.get("/sync/{user}")
    def sync(user: Annotated[str, Depends(who)]):
        with insitu.span("work", mine=user):
            time.sleep(0.001)
        return insitu.trace_id()

    async def run():
        async with client(instrument(app)) as visitor:
            paths = [f"/{('sync', 'async')[number % 2]}/{number}" for number in range(100)]
            return await asyncio.gather(*(visitor.get(path) for path in paths))

    responses = asyncio.run(run())
    assert len(recorded.traces) == 100
    for trace in recorded.traces:
        work, request = trace.spans
        user = request.attributes["user.id"]
        assert request.attributes["url.path"].endswith(f"/{user}")
        assert work.attributes["mine"] == work.attributes["user.id"] == user
        assert work.parent_id == request.span_id
        assert responses[int(user)].json() == f"{trace.trace_id:032x}"


# -- bodies


def test_a_streamed_answer_ends_with_its_body():
    clock = FakeClock()
    app = FastAPI()

    async def pieces():
        for _ in range(3):
            clock.advance(1)
            with insitu.span("piece"):
                yield b"1234"

    @app.get("/stream")
    async def stream():
        return StreamingResponse(pieces())

    with recording(clock=clock) as recorded:
        (response,) = visit(instrument(app), "/stream")
        assert response.content == b"1234" * 3
        request = recorded.span("GET /stream")
        assert request.duration == 3_000_000_000
        assert recorded.point("http.server.response.body.size").value == 12
        pieces_seen = [span for span in recorded.spans if span.name == "piece"]
        assert [span.parent_id for span in pieces_seen] == [request.span_id] * 3


def test_server_sent_events_end_with_the_last_event(recorded):
    app = FastAPI()

    async def events():
        for number in range(3):
            yield f"data: {number}\n\n"

    @app.get("/events")
    async def stream():
        return StreamingResponse(events(), media_type="text/event-stream")

    with served(instrument(app)) as port:
        assert b"data: 2" in raw(port, b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        until(lambda: recorded.spans)
    assert recorded.span("GET /events").status_code == 0


def test_a_client_that_leaves_in_the_middle_ends_the_span_without_an_error(recorded):
    app = FastAPI()
    closed = threading.Event()

    async def forever():
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            closed.set()

    @app.get("/forever")
    async def stream():
        return StreamingResponse(forever())

    with served(instrument(app)) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /forever HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(3000)
        assert closed.wait(10)
        until(lambda: recorded.spans)
    (span,) = recorded.spans
    assert span.name == "GET /forever"
    assert span.attributes["http.response.status_code"] == 200
    assert "error.type" not in span.attributes
    assert recorded.errors == []
    assert recorded.point("http.server.active_requests").value == 0


def test_a_generator_that_fails_in_the_middle_is_the_requests_error(recorded):
    app = FastAPI()

    async def broken():
        yield b"a"
        raise LookupError("row")

    @app.get("/broken")
    async def stream():
        return StreamingResponse(broken())

    with pytest.raises(LookupError, match="row"):
        asyncio.run(call(instrument(app), "/broken"))
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "LookupError"
    assert span.attributes["http.response.status_code"] == 200
    assert counted(recorded, error_type="LookupError") == 1


def test_a_file_is_sent_whole_and_counted(recorded, tmp_path):
    app = FastAPI()
    (tmp_path / "file").write_bytes(b"x" * 100_000)

    @app.get("/file")
    async def file():
        return FileResponse(tmp_path / "file")

    with served(instrument(app)) as port:
        answer = raw(port, b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        until(lambda: recorded.spans)
    assert len(answer.partition(b"\r\n\r\n")[2]) == 100_000
    assert recorded.point("http.server.response.body.size").value == 100_000
    assert name_of(recorded) == "GET /file"


def test_a_request_that_is_cancelled_is_nobodys_error(recorded):
    app = FastAPI()
    entered = asyncio.Event()

    @app.get("/wait")
    async def wait():
        entered.set()
        await asyncio.Event().wait()

    async def run():
        task = asyncio.create_task(call(instrument(app), "/wait"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    (span,) = recorded.spans
    assert span.attributes["insitu.cancelled"] is True
    assert (span.name, span.status_code, recorded.errors) == ("GET /wait", 0, [])


# -- WebSockets


def socket_app():
    app = FastAPI()
    inner = FastAPI()
    rooms = APIRouter(prefix="/rooms")

    @rooms.websocket("/{room}")
    async def echo(websocket: WebSocket, room: str):
        insitu.bind(user=room)
        await websocket.accept()
        with insitu.span("echo"):
            await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @app.websocket("/refuse")
    async def refuse(websocket: WebSocket):
        await websocket.close(1008)

    @app.websocket("/listen")
    async def listen(websocket: WebSocket):
        await websocket.accept()
        while True:
            await websocket.receive_text()

    @app.websocket("/boom")
    async def boom(websocket: WebSocket):
        await websocket.accept()
        raise LookupError("socket")

    @inner.websocket("/deep/{thing}")
    async def deep(websocket: WebSocket, thing: str):
        await websocket.accept()
        await websocket.close()

    app.include_router(rooms, prefix="/v1")
    app.mount("/users/{id}", inner)
    return app


@pytest.fixture
def sockets(recorded):
    with served(instrument(socket_app())) as port:
        yield f"ws://127.0.0.1:{port}"


def test_a_websocket_is_one_span_with_its_whole_template(recorded, sockets):
    with connect(f"{sockets}/v1/rooms/alice") as connection:
        connection.send("hello")
        assert connection.recv() == "hello"
    until(lambda: len(recorded.spans) == 2)
    echo, request = recorded.spans
    assert (request.name, request.attributes["http.route"]) == ("WS /v1/rooms/{room}", "/v1/rooms/{room}")
    assert request.attributes["http.response.status_code"] == 101
    assert request.attributes["user.id"] == "alice"
    assert echo.parent_id == request.span_id
    assert counted(recorded) == 0


def test_a_websocket_below_a_mount_has_its_whole_template(recorded, sockets):
    with connect(f"{sockets}/users/alice/deep/alice"):
        pass
    until(lambda: recorded.spans)
    assert name_of(recorded) == "WS /users/{id}/deep/{thing}"


@pytest.mark.parametrize("path", ["/refuse", "/nowhere"])
def test_a_websocket_that_is_refused_says_403(recorded, sockets, path):
    with pytest.raises(InvalidStatus) as refused, connect(sockets + path):
        pass
    assert refused.value.response.status_code == 403
    until(lambda: recorded.spans)
    assert recorded.spans[0].attributes["http.response.status_code"] == 403
    assert recorded.errors == []


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_visitor_who_hangs_up_is_nobodys_error(recorded, sockets, code):
    with connect(f"{sockets}/listen") as connection:
        connection.close(code)
    until(lambda: recorded.spans)
    (span,) = recorded.spans
    assert span.name == "WS /listen"
    assert (recorded.errors, span.status_code) == ([], 0)


def test_an_exception_in_a_websocket_is_its_error(recorded, sockets):
    with connect(f"{sockets}/boom") as connection, contextlib.suppress(Exception):
        connection.recv()
    until(lambda: recorded.spans)
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "LookupError"
    assert [found.type for found in recorded.errors] == ["LookupError"]


def test_a_starlette_websocket_has_its_template(recorded):
    async def endpoint(websocket):
        await websocket.accept()
        await websocket.close()

    app = Starlette(routes=[Mount("/m/{k}", routes=[WebSocketRoute("/ws/{room}", endpoint)])])
    with served(instrument(app)) as port, connect(f"ws://127.0.0.1:{port}/m/alice/ws/alice"):
        pass
    until(lambda: recorded.spans)
    assert name_of(recorded) == "WS /m/{k}/ws/{room}"


# -- how an application is instrumented


def one_route(app=None):
    app = app or FastAPI()

    @app.get("/items/{id}")
    async def item(request: Request):
        with insitu.span("inside"):
            return request.path_params["id"]

    return app


def is_recorded_once(recorded):
    inside, request = recorded.spans
    return (inside.name, request.name, inside.parent_id) == ("inside", "GET /items/{id}", request.span_id) and counted(
        recorded
    ) == 1


def test_the_very_application_is_returned_and_its_state_untouched(recorded):
    app = one_route()
    app.state.mine = 1
    before = dict(app.state._state)
    assert instrument(app) is app
    visit(app, "/items/1")
    assert app.state._state == before
    assert is_recorded_once(recorded)


def test_instrumenting_twice_is_once(recorded):
    app = one_route()
    assert instrument(instrument(app)) is app
    visit(app, "/items/1")
    instrument(app)
    assert is_recorded_once(recorded)


def test_instrumenting_after_the_first_request_works_from_then_on(recorded):
    app = one_route()
    visit(app, "/items/1")
    before = [span.name for span in recorded.spans if span.name.startswith("GET")]
    recorded._sink.records.clear()
    instrument(app)
    visit(app, "/items/2")
    inside, request = recorded.spans
    assert (request.name, inside.parent_id) == ("GET /items/{id}", request.span_id)
    assert len(before) <= 1  # FastAPI's own telemetry, as long as nobody has switched it off


def test_middleware_added_later_stays_inside_of_the_span(recorded):
    class Spanning:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            with insitu.span("middleware"):
                await self.app(scope, receive, send)

    app = instrument(one_route())
    app.add_middleware(Spanning)
    visit(app, "/items/1")
    request, middleware, inside = (recorded.span(name) for name in ("GET /items/{id}", "middleware", "inside"))
    assert (middleware.parent_id, inside.parent_id) == (request.span_id, middleware.span_id)


def test_a_base_http_middleware_around_loses_nothing(recorded):
    async def around(request, call_next):
        insitu.bind(tenant="t")
        response = await call_next(request)
        response.headers["x-after"] = insitu.trace_id()
        return response

    app = instrument(one_route())
    app.add_middleware(BaseHTTPMiddleware, dispatch=around)
    (response,) = visit(app, "/items/1")
    assert is_recorded_once(recorded)
    inside, request = recorded.spans
    assert response.headers["x-after"] == f"{request.trace.trace_id:032x}"
    assert inside.attributes["tenant.id"] == request.attributes["tenant.id"] == "t"


def test_an_exception_below_a_base_http_middleware_is_the_applications_own(recorded):
    app = instrument(FastAPI())
    error = LookupError("mine")

    @app.get("/boom")
    async def boom():
        raise error

    async def around(request, call_next):
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=around)
    with pytest.raises(LookupError) as caught:
        asyncio.run(call(app, "/boom"))
    assert caught.value is error
    assert [found.type for found in recorded.errors] == ["LookupError"]
    assert name_of(recorded) == "GET /boom"


def test_a_wrapped_fastapi_is_one_span_with_what_is_known_from_outside(recorded):
    app = one_route()

    async def outer(scope, receive, send):
        await app(scope, receive, send)

    wrapped = instrument(outer)
    assert isinstance(wrapped, Middleware)
    visit(wrapped, "/items/1")
    assert [span.name for span in recorded.spans] == ["inside", "GET"]
    assert counted(recorded) == 1


def test_an_instrumented_application_below_another_is_still_one_request(recorded):
    outer, inner = FastAPI(), instrument(one_route())
    outer.mount("/sub", inner)
    visit(instrument(outer), "/sub/items/1")
    assert [span.kind.name for span in recorded.spans].count("SERVER") == 1
    assert counted(recorded) == 1


def test_the_lifespan_of_the_application_runs(recorded):
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        seen.append("up")
        yield {"pool": 7}
        seen.append("down")

    app = instrument(FastAPI(lifespan=lifespan))

    @app.get("/pool")
    async def pool(request: Request):
        return request.state.pool

    with served(app) as port:
        assert raw(port, b"GET /pool HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").endswith(b"7")
    assert seen == ["up", "down"]


def test_a_lifespan_that_fails_fails_as_before(recorded):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        raise OSError("no database")
        yield

    incoming = [{"type": "lifespan.startup"}]
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message["type"])

    async def run():
        await instrument(FastAPI(lifespan=lifespan))({"type": "lifespan", "state": {}}, receive, send)

    with pytest.raises(OSError, match="no database"):
        asyncio.run(run())
    assert sent == ["lifespan.startup.failed"]


# -- exclude


@pytest.mark.parametrize("path", ["/health", "/items/3", "/sub/deep", "/sub/items/4"])
def test_an_excluded_route_leaves_no_trace_anywhere(path):
    with recording(exclude=("/health", "/items/{id}", "/sub/*")) as recorded:
        app, inner = FastAPI(), FastAPI()
        for each in (app, inner):

            @each.get("/health")
            @each.get("/items/{id}")
            @each.get("/deep")
            def answer():
                insitu.log.info("inside")
                insitu.capture(ValueError("inside"))
                with insitu.span("inside"):
                    raise HTTPException(500)

        app.mount("/sub", inner)
        (response,) = visit(instrument(app), path)
        assert response.status_code == 500
        assert recorded.records == []
        assert counted(recorded) == 0
        assert counted(recorded, "http.server.active_requests") == 0


# -- our own paths


def metrics_of(app, **more):
    return asyncio.run(call(app, "/metrics", **more))


def test_metrics_are_served_beside_the_routes_of_the_application(recorded):
    app = instrument(one_route())
    visit(app, "/items/1")
    sent = metrics_of(app)
    assert status(sent) == 200
    assert b"http_server_request_duration_seconds_count{" in body(sent)
    assert b'http_route="/items/{id}"' in body(sent)
    assert len(recorded.spans) == 2
    assert counted(recorded) == 1
    assert body(metrics_of(app)).count(b"/metrics") == 0


def test_openmetrics_is_given_to_who_asks_for_it(recorded):
    app = instrument(one_route())
    accept = [(b"accept", b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5")]
    for headers, kind, end in ((accept, b"application/openmetrics-text", True), ([], b"text/plain", False)):
        sent = metrics_of(app, headers=headers)
        assert dict(sent[0]["headers"])[b"content-type"].startswith(kind)
        assert body(sent).endswith(b"# EOF\n") is end


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 200),
        ({"client": ("::1", 1)}, 200),
        ({"client": ("::ffff:127.0.0.1", 1)}, 200),
        ({"client": ("192.0.2.7", 1)}, 401),
        ({"client": None}, 401),
        ({"headers": [(b"host", b"evil.example")]}, 401),
        ({"headers": [(b"host", b"localhost:8000")]}, 200),
        ({"headers": [(b"x-forwarded-for", b"192.0.2.7")]}, 401),
        ({"headers": [(b"X-Forwarded-Port", b"443")]}, 401),
        ({"headers": [(b"forwarded", b"for=192.0.2.7")]}, 401),
        ({"headers": [(b"authorization", b"Bearer s3cret")]}, 200),
        ({"method": "POST"}, 405),
        ({"method": "HEAD"}, 200),
        ({"client": ("192.0.2.7", 1), "method": "POST"}, 401),
    ],
)
def test_who_may_read_the_metrics(recorded, more, expected):
    sent = metrics_of(instrument(one_route()), **more)
    headers = dict(sent[0]["headers"])
    assert status(sent) == expected
    if more.get("method") == "HEAD":
        assert body(sent) == b""
        assert int(headers[b"content-length"]) > 0
    else:
        assert int(headers[b"content-length"]) == len(body(sent))
    assert (b"www-authenticate" in headers) is (expected == 401)
    assert (b"insitu_" in body(sent)) is (expected == 200 and more.get("method") != "HEAD")
    assert recorded.spans == []
    assert counted(recorded) == 0


def test_the_token_opens_the_metrics_from_everywhere():
    with recording(token="s3cret") as recorded:
        app = instrument(one_route())
        away = {"client": ("192.0.2.7", 1)}
        for given, expected in ((b"Bearer s3cret", 200), (b"Bearer s3cre", 401), (b"Basic s3cret", 401), (b"", 401)):
            assert status(metrics_of(app, headers=[(b"authorization", given)], **away)) == expected
        assert recorded.spans == []


def test_over_a_real_socket_the_metrics_answer_the_same(recorded):
    with served(instrument(one_route())) as port:
        head = b"GET /metrics HTTP/1.1\r\nConnection: close\r\n"
        assert raw_status(port, head + b"Host: 127.0.0.1\r\n\r\n") == 200
        assert raw_status(port, head + b"Host: evil.example\r\n\r\n") == 401
        assert raw_status(port, head + b"Host: localhost\r\nVia: 1.1 proxy\r\n\r\n") == 401
        answer = raw(port, head.replace(b"GET", b"HEAD") + b"Host: localhost\r\n\r\n")
        assert answer.partition(b"\r\n\r\n")[2] == b""


def mine(request: Request):
    return PlainTextResponse("mine")


HOSTS = {
    "a route": lambda app: app.get("/metrics")(mine),
    "a plain route": lambda app: app.add_route("/metrics", mine),
    "an included router": lambda app: app.include_router(_router("/metrics")),
    "a prefix": lambda app: app.include_router(_router(""), prefix="/metrics"),
}


def _router(path):
    router = APIRouter()
    router.add_api_route(path, mine_plain)
    return router


def mine_plain():
    return PlainTextResponse("mine")


@pytest.mark.parametrize("kind", HOSTS)
def test_the_hosts_own_metrics_win_and_are_an_ordinary_request(recorded, kind):
    app = FastAPI()
    HOSTS[kind](app)
    sent = metrics_of(instrument(app))
    assert body(sent) == b"mine"
    assert name_of(recorded) == "GET /metrics"


def test_a_mounted_metrics_application_of_the_host_wins(recorded):
    app = FastAPI()
    app.mount("/metrics", PlainTextResponse("mine"))
    app = instrument(app)
    assert status(metrics_of(app)) == 307  # to /metrics/, as without us
    assert body(asyncio.run(call(app, "/metrics/"))) == b"mine"


@pytest.mark.parametrize(
    "catch_all",
    [
        lambda app: app.get("/{path:path}")(mine),
        lambda app: app.get("/{word}")(mine_plain),
        lambda app: app.mount("/", PlainTextResponse("all")),
        lambda app: app.mount("", PlainTextResponse("all")),
        lambda app: app.include_router(_router("/{path:path}")),
        lambda app: app.router.routes.append(Host("127.0.0.1", PlainTextResponse("all"))),
    ],
)
def test_a_catch_all_of_the_host_does_not_hide_the_metrics(recorded, catch_all):
    app = FastAPI()
    catch_all(app)
    sent = metrics_of(instrument(app))
    assert status(sent) == 200
    assert b"insitu_" in body(sent)
    assert recorded.spans == []


# -- one request, one SERVER span, one count: FastAPI's own telemetry and OpenTelemetry's instrumentation


ONCE = """
import asyncio, json, sys
import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.propagate import inject
import insitu
from insitu import runtime
from insitu.testing import recording

native, ours, theirs, sub = json.loads(sys.argv[1])

def build(**options):
    app = FastAPI(**options)
    @app.get("/items/{number}")
    async def item(number: int):
        headers = {}
        inject(headers)
        with trace.get_tracer("by.hand").start_as_current_span("by hand"):
            with insitu.span("inside"):
                return headers
    return app

with recording() as recorded:
    options = {} if native is None else {"telemetry": {"tracing": native, "metrics": native, "logs": native}}
    app = build(**options)
    path = "/items/1"
    if sub:
        outer = FastAPI(**options)
        outer.mount("/sub/{word}", app)
        app, path = outer, "/sub/alice/items/1"
    if theirs:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    if theirs == "before":
        FastAPIInstrumentor.instrument_app(app)
    if ours:
        runtime.current().instrument(app)
    if theirs == "after":
        FastAPIInstrumentor.instrument_app(app)
    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://a") as client:
            await client.get(path)
            return (await client.get(path)).json()
    headers = asyncio.run(main())
    recorded.runtime.pipeline.drain(5)
    counts = {}
    for family in recorded.runtime.collect():
        if family.name in ("http.server.request.duration", "http.server.duration"):
            counts[f"{family.scope.name}:{family.name}"] = sum(sum(point.buckets) for point in family.points)
    ids = lambda s: [f"{s.span_id:016x}", f"{s.parent_id:016x}", f"{s.trace.trace_id:032x}"]
    spans = [(s.name, s.kind.name, *ids(s)) for s in recorded.spans]
    print(json.dumps({"headers": headers, "counts": counts, "spans": spans}))
"""


def run_once(*settings):
    environment = os.environ | {"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}
    command = [sys.executable, "-c", ONCE, json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("sub", [False, True], ids=["", "sub"])
@pytest.mark.parametrize("theirs", ["", "before", "after"])
@pytest.mark.parametrize("native", [None, False], ids=["native", "native off"])
def test_a_request_is_one_server_span_and_one_count_whoever_else_listens(native, theirs, sub):
    seen = run_once(native, True, theirs, sub)
    name = "GET /sub/{word}/items/{number}" if sub else "GET /items/{number}"
    servers = [span for span in seen["spans"] if span[1] == "SERVER"]
    assert [span[0] for span in servers] == [name] * 2
    assert sum(seen["counts"].values()) == 2, seen["counts"]
    _, _, server, parent, trace = servers[-1]
    assert parent == "0" * 16
    assert seen["headers"]["traceparent"] == f"00-{trace}-{server}-03"
    by_name = {span[0]: span for span in seen["spans"] if span[4] == trace}
    assert set(by_name) == {name, "by hand", "inside"}
    assert by_name["by hand"][3] == server
    assert by_name["inside"][3] == by_name["by hand"][2]


@pytest.mark.parametrize(("native", "spans", "counts"), [(None, True, 2), (False, False, 0)], ids=["native", "nobody"])
def test_without_us_fastapis_own_telemetry_feeds_us_as_it_would_feed_any_provider(native, spans, counts):
    seen = run_once(native, False, "", False)
    assert [span[0] for span in seen["spans"] if span[1] == "SERVER"] == ["GET /items/{number}"] * 2 * spans
    assert sum(seen["counts"].values()) == counts


def test_the_private_switch_of_fastapis_telemetry_is_where_we_look_for_it():
    app = FastAPI()
    assert set(adapter._OFF) <= set(app._telemetry)
    source = Path(sys.modules[FastAPI.__module__].__file__).read_text(encoding="utf-8")
    assert '"fastapi.telemetry" in scope' in source
