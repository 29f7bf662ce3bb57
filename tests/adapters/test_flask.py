"""Flask, by its own test client: what the contract does not ask of every framework."""

import flask
import pytest
from flask import Blueprint, Flask, abort, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import insitu
from insitu.contracts import servers
from insitu.testing import recording


class Refused(Exception):
    """What the application answers itself."""


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def shop():
    app = Flask("shop")
    app.logger.disabled = True
    stock = Blueprint("stock", "stock", url_prefix="/stock")

    @stock.get("/<int:number>/<path:where>")
    def place(number, where):
        return f"{number} in {where}"

    app.register_blueprint(stock)

    @app.post("/orders")
    def order():
        return {"id": 1}, 201

    @app.get("/refused")
    def refused():
        raise Refused("sold out")

    @app.get("/gone")
    def gone():
        abort(410)

    @app.get("/boom")
    def boom():
        raise LookupError("boom")

    @app.get("/stream")
    def stream():
        def pieces():
            for number in range(3):
                with insitu.span("piece", path=flask.request.path):
                    yield str(number)

        return stream_with_context(pieces())

    @app.errorhandler(Refused)
    def answer(error):
        return str(error), 409

    return app


@pytest.fixture
def client(recorded):
    return insitu.instrument(shop()).test_client()


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/stock/7/a/b", 200, "GET /stock/<int:number>/<path:where>"),
        ("POST", "/orders", 201, "POST /orders"),
        ("GET", "/refused", 409, "GET /refused"),
        ("GET", "/gone", 410, "GET /gone"),
        ("DELETE", "/orders", 405, "DELETE"),
        ("GET", "/nothing", 404, "GET"),
        ("HEAD", "/stock/7/a", 200, "HEAD /stock/<int:number>/<path:where>"),
    ],
)
def test_each_way_to_answer_is_one_span_with_its_status_and_no_error(client, recorded, method, path, status, name):
    assert client.open(path, method=method).status_code == status
    (span,) = servers(recorded)
    assert (span.name, span.attributes["http.response.status_code"]) == (name, status)
    assert "error.type" not in span.attributes
    assert recorded.errors == []


def test_an_exception_that_is_passed_on_is_recorded_once_and_has_its_route(recorded):
    app = insitu.instrument(shop())
    app.testing = True
    with pytest.raises(LookupError, match="boom"):
        app.test_client().get("/boom")
    (span,), (error,) = servers(recorded), recorded.errors
    assert (span.name, span.attributes["error.type"]) == ("GET /boom", "LookupError")
    assert (error.type, error.message) == ("LookupError", "boom")


def test_a_stream_with_flasks_context_has_both_contexts(client, recorded):
    assert client.get("/stream").data == b"012"
    (span,) = servers(recorded)
    pieces = [piece for piece in recorded.spans if piece.name == "piece"]
    assert {(piece.parent_id, piece.own["path"]) for piece in pieces} == {(span.span_id, "/stream")}


def test_the_very_application_is_returned_and_instrumenting_twice_is_once(recorded):
    app = shop()
    assert insitu.instrument(insitu.instrument(app)) is app
    app.test_client().get("/gone")
    assert len(servers(recorded)) == 1


def test_what_a_middleware_below_makes_of_an_answer_is_what_is_measured(recorded):
    app = shop()
    theirs = app.wsgi_app

    def shortened(environ, start_response):
        yield from (piece[:3] for piece in theirs(environ, lambda _, headers: start_response("206 Part", headers)))

    app.wsgi_app = shortened
    assert insitu.instrument(app).test_client().get("/stock/7/hall").data == b"7 i"
    [span] = servers(recorded)
    assert (span.name, span.response_status, span.response_size) == ("GET /stock/<int:number>/<path:where>", 206, 3)


def test_below_a_mount_a_route_has_its_prefix_and_what_no_route_answers_has_none(recorded):
    shops = insitu.instrument(DispatcherMiddleware(Flask("front"), {"/shop": insitu.instrument(shop())}))
    client = Client(shops)
    for path in ("/shop/stock/7/hall", "/shop/nothing"):
        client.get(path)
    assert [span.name for span in servers(recorded)] == ["GET /shop/stock/<int:number>/<path:where>", "GET"]


def test_routes_and_hooks_that_come_later_are_seen(recorded):
    app = insitu.instrument(Flask("late"))
    app.before_request(lambda: insitu.log.info("before"))
    app.add_url_rule("/late", "late", lambda: "late")
    assert app.test_client().get("/late").data == b"late"
    assert recorded.logs[0].trace_id == recorded.span("GET /late").trace.trace_id


def test_the_hosts_own_metrics_win_and_are_an_ordinary_request(recorded):
    app = insitu.instrument(shop())
    app.add_url_rule("/metrics", "metrics", lambda: "mine")
    assert app.test_client().get("/metrics").data == b"mine"
    assert [span.name for span in servers(recorded)] == ["GET /metrics"]


def test_a_catch_all_of_the_host_does_not_hide_the_metrics(recorded):
    app = insitu.instrument(shop())
    app.add_url_rule("/<path:anything>", "anything", lambda anything: "page")
    client = app.test_client()
    assert client.get("/metrics", headers={"host": "127.0.0.1"}).data.startswith(b"# ")
    assert client.get("/other").data == b"page"


def test_a_signal_without_a_watched_request_hurts_nobody(recorded):
    app = insitu.instrument(shop())
    insitu.shutdown()
    assert app.test_client().get("/boom").status_code == 500
