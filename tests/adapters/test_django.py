"""Django by its own test client: what the contract does not ask of every framework."""

import asyncio
import re
from pathlib import Path

import pytest
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.http import FileResponse, Http404, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, re_path

import insitu
from insitu.adapters import django_orm
from insitu.contracts import servers
from insitu.testing import FakeClock, recording
from tests.adapters.django_settings import configure
from tests.adapters.serving import wsgi_ask

configure()
OURS = "insitu.adapters.django.Middleware"


def refused(request):
    raise PermissionDenied


def missing(request):
    raise Http404


def handled(request):
    raise KeyError("handled")


def boom(request):
    raise LookupError("boom")


async def slowly(request):
    with insitu.span("wait"):
        await asyncio.sleep(0)
    return HttpResponse("done")


def query(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'secret', 7")
    return HttpResponse("ok")


class Handles:
    """A middleware of the application's that answers some of its exceptions."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.path == "/broken/":
            raise RuntimeError("a middleware")
        return self.get_response(request)

    def process_exception(self, request, exception):
        return HttpResponse("sorry", status=409) if isinstance(exception, KeyError) else None


urlpatterns = [
    path("stock/", include([path("<int:number>/<path:where>", lambda *_, **__: HttpResponse("there"))])),
    re_path(r"^old/(?P<year>[0-9]{4})/$", lambda *_, **__: HttpResponse("old")),
    path("refused", refused),
    path("missing", missing),
    path("handled", handled),
    path("boom", boom),
    path("slowly", slowly),
    path("query", query),
    path("file", lambda _: FileResponse(Path(__file__).open("rb"))),  # noqa: SIM115 the response closes it
]
catching = [path("metrics", lambda _: HttpResponse("mine"))]
anything = [re_path(r"^(?P<rest>.*)$", lambda *_, **__: HttpResponse("page"))]


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


@pytest.fixture
def client(recorded):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS, f"{__name__}.Handles"]):
        yield Client(raise_request_exception=False)


@pytest.mark.parametrize(
    ("where", "status", "name"),
    [
        ("/stock/7/a/b", 200, "GET /stock/<int:number>/<path:where>"),
        ("/old/1999/", 200, "GET /old/(?P<year>[0-9]{4})/"),
        ("/refused", 403, "GET /refused"),
        ("/missing", 404, "GET /missing"),
        ("/handled", 409, "GET /handled"),
        ("/slowly", 200, "GET /slowly"),
        ("/nothing", 404, "GET"),
    ],
)
def test_each_way_to_answer_is_one_span_with_its_status_and_no_error(client, recorded, where, status, name):
    assert client.get(where).status_code == status
    (span,) = servers(recorded)
    assert (span.name, span.attributes["http.response.status_code"]) == (name, status)
    assert "error.type" not in span.attributes
    assert recorded.errors == []


@pytest.mark.parametrize(
    ("where", "error", "name"), [("/boom", "LookupError", "GET /boom"), ("/broken/", "RuntimeError", "GET")]
)
def test_an_exception_in_a_view_or_in_a_middleware_is_recorded_once(client, recorded, where, error, name):
    assert client.get(where).status_code == 500
    (span,), (noted,) = servers(recorded), recorded.errors
    assert (span.name, span.attributes["error.type"], noted.type) == (name, error, error)


def test_an_exception_below_an_instrumented_wsgi_application_is_recorded_once_and_has_its_route(recorded):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS]):
        app = insitu.instrument(WSGIHandler())
        assert wsgi_ask(app, "/boom", {}, None).status == 500
    (span,), (noted,) = servers(recorded), recorded.errors
    assert (span.name, span.attributes["error.type"], noted.type) == ("GET /boom", "LookupError", "LookupError")


def test_the_event_loop_that_serves_is_watched(recorded):
    async def ask():
        client = AsyncClient()
        for _ in range(2):
            await client.get("/slowly")
        return len(recorded.runtime.resources.loops.hearts)

    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS]):
        assert asyncio.run(ask()) == 1
        assert recorded.family("insitu.event_loop.lag").points


def test_a_middleware_that_is_listed_twice_measures_once(recorded):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS, OURS]):
        assert Client().get("/stock/7/a").content == b"there"
    assert [span.name for span in servers(recorded)] == ["GET /stock/<int:number>/<path:where>"]


def test_the_ledger_holds_what_the_middleware_does_and_not_the_view():
    clock = FakeClock(tick=1_000)

    def view(request):
        clock.advance(0.00005)
        return HttpResponse("ok")

    with (
        recording(clock=clock) as recorded,
        override_settings(ROOT_URLCONF=(path("", view),), MIDDLEWARE=[OURS]),
    ):
        client = Client()
        for _ in range(200):
            client.get("/")
        spent = recorded.runtime.meter.seconds()["request"] / 200
    assert 1e-6 < spent < 2e-5


def test_an_exception_that_the_test_client_raises_is_the_applications_own(client, recorded):
    with pytest.raises(LookupError, match="boom"):
        Client().get("/boom")
    assert len(recorded.errors) == 1


def test_under_asgi_a_coroutine_is_below_its_request_and_no_thread_is_taken(recorded):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS]):
        assert asyncio.run(AsyncClient().get("/slowly")).content == b"done"
    (span,) = servers(recorded)
    assert recorded.span("wait").parent_id == span.span_id
    assert span.attributes["url.scheme"] == "http"


def test_a_file_ends_the_request_when_it_is_closed(client, recorded):
    answer = client.get("/file")
    assert len(b"".join(answer.streaming_content)) > 1_000
    answer.close()
    assert recorded.span("GET /file").attributes["http.response.status_code"] == 200


def test_the_trace_id_goes_out_in_the_header_that_was_asked_for():
    with recording(trace_header="X-Trace-Id") as recorded, override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS]):
        answer = Client().get("/stock/7/a")
        (span,) = servers(recorded)
        assert answer.headers["X-Trace-Id"] == f"{span.trace.trace_id:032x}"


@pytest.mark.parametrize(("routes", "body"), [(catching, b"mine"), (anything, b"# ")])
def test_the_hosts_own_metrics_win_and_a_catch_all_hides_nothing(recorded, routes, body):
    with override_settings(ROOT_URLCONF=tuple(routes), MIDDLEWARE=[OURS]):
        assert Client(headers={"host": "127.0.0.1"}).get("/metrics").content.startswith(body)


def test_behind_other_middleware_it_works_as_well(recorded):
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.Handles", OURS]):
        Client().get("/stock/7/a")
    assert len(servers(recorded)) == 1


def test_where_insitu_is_switched_off_the_middleware_is_not_used(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    insitu.shutdown()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS]):
        assert Client().get("/stock/7/a").content == b"there"


def test_a_statement_is_a_client_span_of_its_request_without_its_values(client, recorded):
    connection.close()
    django_orm.hook(__import__("django.db.backends.signals", fromlist=["connection_created"]))
    client.get("/query")
    client.get("/query")
    spans = [span for span in recorded.spans if span.kind.name == "CLIENT"]
    assert {span.parent_id for span in spans} == {span.span_id for span in servers(recorded)}
    assert len(spans) == 2
    assert spans[0].attributes["db.query.text"] == "SELECT ?, ?"
    assert (spans[0].attributes["db.system.name"], spans[0].attributes["db.namespace"]) == ("sqlite", ":memory:")


def test_a_statement_that_fails_is_its_spans_error_and_the_applications_exception(recorded):
    connection.close()
    with pytest.raises(Exception, match=re.escape("no such table")), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")
    (span,) = recorded.spans
    assert span.attributes["error.type"].endswith("OperationalError")
