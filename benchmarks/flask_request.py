"""A request to a Flask application: what each contender adds to it."""

from __future__ import annotations

import os
from typing import Any, Final

from flask import Flask, jsonify, request

import insitu
from benchmarks import baseline, ours, timing, wsgi

REQUESTS: Final = 2_000


def bare() -> timing.Round:
    """The application alone."""
    return timing.whole(wsgi.driver(_make()), REQUESTS)


def insitu_default() -> timing.Round:
    """Every default signal; nothing is sent."""
    ours.start()
    return timing.whole(wsgi.driver(insitu.instrument(_make())), REQUESTS, ours.flush)


def otel() -> timing.Round:
    """opentelemetry-instrumentation-flask with its defaults and stable HTTP conventions."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # insitu's processes do not load it

    sdk = baseline.Sdk(1.0)
    app = _make()
    FlaskInstrumentor().instrument_app(app)
    return timing.whole(sdk.batched(wsgi.driver(app), 1), REQUESTS)


def _make() -> Flask:
    app = Flask("bench")

    @app.get("/products/<int:number>")
    def product(number: int) -> Any:
        currency = request.args.get("currency", "EUR")
        return jsonify(id=number, name=f"lamp in {currency}", price=19.9, tags=["new", "light"])

    return app
