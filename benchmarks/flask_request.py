"""A request to a Flask application: what each contender adds to it."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, jsonify, request

import insitu
from benchmarks import baseline, ours, timing

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS: Final = 2_000
_HEADERS: Final = {
    "HTTP_HOST": "shop.example:8000",
    "HTTP_CONNECTION": "keep-alive",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "application/json, text/plain, */*",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.7,de;q=0.3",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
    "HTTP_REFERER": "https://shop.example/products",
    "HTTP_COOKIE": "theme=dark; cart=7f3c2a",
}


def bare() -> timing.Round:
    """The application alone."""
    return timing.whole(_driver(_make()), REQUESTS)


def insitu_default() -> timing.Round:
    """Every default signal; nothing is sent."""
    ours.start()
    return timing.whole(_driver(insitu.instrument(_make())), REQUESTS, ours.flush)


def otel() -> timing.Round:
    """opentelemetry-instrumentation-flask with its defaults and stable HTTP conventions."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # insitu's processes do not load it

    sdk = baseline.Sdk(1.0)
    app = _make()
    FlaskInstrumentor().instrument_app(app)
    return timing.whole(sdk.batched(_driver(app), 1), REQUESTS)


def _make() -> Flask:
    app = Flask("bench")

    @app.get("/products/<int:number>")
    def product(number: int) -> Any:
        currency = request.args.get("currency", "EUR")
        return jsonify(id=number, name=f"lamp in {currency}", price=19.9, tags=["new", "light"])

    return app


def _driver(app: Any) -> Callable[[int], None]:
    """Return what calls the application as a server would, without sockets."""
    status = []

    def start_response(line: str, _: object, __: object = None) -> Callable[[bytes], object]:
        status.append(line)
        return bytes

    def serve(requests: int) -> None:
        for _ in range(requests):
            body = app(_environ(), start_response)
            for _ in body:
                pass
            body.close()
        if set(status) != {"200 OK"}:
            raise RuntimeError(f"answered with {set(status)}")
        status.clear()

    return serve


def _environ() -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/products/7",
        "QUERY_STRING": "currency=EUR",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **_HEADERS,
    }
