"""The one contract, for every adapter."""

import asyncio
import gc

import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from insitu.contracts import AdapterContract, Answer, AsyncAdapterContract, work
from tests.adapters.django_settings import configure
from tests.adapters.serving import wsgi_ask

configure()


async def pieces():
    for piece in work.stream():
        yield piece


async def waits(_):
    return HttpResponse(await work.wait())


urlpatterns = [
    path("items/<int:number>", lambda _, number: HttpResponse(work.item(number))),
    path("boom", lambda _: HttpResponse(work.boom())),
    path("thread", lambda _: HttpResponse(work.thread())),
    path("teapot", lambda _: HttpResponse(status=418)),
    path("wait", waits),
    path("stream", lambda request: StreamingHttpResponse(pieces() if hasattr(request, "scope") else work.stream())),
]


async def asgi_start(app, path, headers=None):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path, headers=headers)


def asgi_ask(app, path, headers, pieces):
    """As an ASGI server does: a client that leaves is told of by `http.disconnect`."""

    async def ask():
        answer = await asgi_start(app, path, headers)
        return Answer(answer.status_code, answer.content)

    return asyncio.run(left(app, path, pieces) if pieces is not None else ask())


async def left(app, path, pieces):
    gone = asyncio.Event()
    sent = []

    received = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        if (message := next(received, None)) is not None:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if len(sent) > pieces:
            gone.set()
            await asyncio.sleep(0.01)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [],
    }
    await app(scope, receive, send)
    return Answer(sent[0]["status"])


DJANGO = {
    "item": "/items/<int:number>",
    "boom": "/boom",
    "teapot": "/teapot",
    "stream": "/stream",
    "thread": "/thread",
}


def asgi_below(app):
    async def outer(scope, receive, send):
        await app({**scope, "path": scope["path"].removeprefix("/below")}, receive, send)

    return outer


class TestDjango(AdapterContract):
    """Its settings are the process's, so the applications share them; the middleware is what comes and goes."""

    templates = DJANGO
    handler = WSGIHandler
    ask = staticmethod(wsgi_ask)

    def application(self):
        return self.handler()

    def instrument(self, app):
        with override_settings(MIDDLEWARE=["insitu.adapters.django.Middleware"]):
            app.load_middleware(is_async=self.handler is ASGIHandler)
        return app

    @pytest.fixture(autouse=True)
    def routes(self):
        with override_settings(ROOT_URLCONF=__name__):
            yield

    def below(self, app):
        return DispatcherMiddleware(lambda *_: [], {"/below": app})


class TestDjangoAsync(TestDjango, AsyncAdapterContract):
    told_outside = False
    handler = ASGIHandler
    ask = staticmethod(asgi_ask)
    start = staticmethod(asgi_start)
    below = staticmethod(asgi_below)

    @pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
    def test_a_request_that_is_cancelled_ends_and_is_nobodys_error(self):
        super().test_a_request_that_is_cancelled_ends_and_is_nobodys_error()
        gc.collect()  # Django leaves the body of such a request to it, and Python warns of that


class TestWsgi(AdapterContract):
    ask = staticmethod(wsgi_ask)

    def application(self):
        def bare(environ, start_response):
            path = environ["PATH_INFO"]
            answers = {"/boom": work.boom, "/thread": work.thread}
            status = "418 I'm a Teapot" if path == "/teapot" else "200 OK"
            if path.startswith("/items/"):
                text = work.item(int(path.rpartition("/")[2]))
            elif path in answers:
                text = answers[path]()
            elif path == "/stream":
                start_response(status, [])
                return work.stream()
            else:
                text, status = "", status if path == "/teapot" else "404 Not Found"
            start_response(status, [("content-type", "text/plain")])
            return [text.encode()]

        return bare

    def below(self, app):
        return DispatcherMiddleware(lambda *_: [], {"/below": app})


class TestFlask(AdapterContract):
    templates = {
        "item": "/items/<int:number>",
        "boom": "/boom",
        "teapot": "/teapot",
        "stream": "/stream",
        "thread": "/thread",
    }
    ask = staticmethod(wsgi_ask)

    def application(self):
        app = Flask("shop")
        app.logger.disabled = True
        app.add_url_rule("/items/<int:number>", view_func=work.item)
        app.add_url_rule("/boom", view_func=work.boom)
        app.add_url_rule("/thread", view_func=work.thread)
        app.add_url_rule("/teapot", "teapot", lambda: ("", 418))
        app.add_url_rule("/stream", "stream", lambda: app.response_class(work.stream()))
        return app

    def below(self, app):
        outer = Flask("outer")
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/below": app})
        return outer


class TestFastApi(AsyncAdapterContract):
    templates = {
        "item": "/items/{number}",
        "boom": "/boom",
        "teapot": "/teapot",
        "stream": "/stream",
        "thread": "/thread",
    }
    ask = staticmethod(asgi_ask)
    start = staticmethod(asgi_start)

    def application(self):
        app = FastAPI()
        app.get("/wait")(work.wait)
        app.get("/items/{number}", response_class=PlainTextResponse)(work.item)
        app.get("/boom")(work.boom)
        app.get("/thread")(work.thread)
        app.get("/teapot")(lambda: Response(status_code=418))
        app.get("/stream")(lambda: StreamingResponse(work.stream()))
        return app

    def below(self, app):
        outer = FastAPI()
        outer.mount("/below", app)
        return outer


class TestAsgi(TestFastApi):
    """A bare callable: the framework is out of sight."""

    templates = {}

    def application(self):
        app = super().application()

        async def bare(scope, receive, send):
            await app(scope, receive, send)

        return bare

    below = staticmethod(asgi_below)
