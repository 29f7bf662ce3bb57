"""A request to a Django application: what each contender adds to it."""

from __future__ import annotations

import os
from typing import Any, Final

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks import baseline, ours, timing, wsgi

REQUESTS: Final = 2_000


def _product(request: HttpRequest, number: int) -> Any:
    currency = request.GET.get("currency", "EUR")
    return JsonResponse({"id": number, "name": f"lamp in {currency}", "price": 19.9, "tags": ["new", "light"]})


urlpatterns = [path("products/<int:number>", _product)]


def bare() -> timing.Round:
    """The application alone."""
    _configure()
    return timing.whole(wsgi.driver(WSGIHandler()), REQUESTS)


def insitu_default() -> timing.Round:
    """Every default signal; nothing is sent."""
    _configure("insitu.adapters.django.Middleware")
    ours.start()
    return timing.whole(wsgi.driver(WSGIHandler()), REQUESTS, ours.flush)


def otel() -> timing.Round:
    """opentelemetry-instrumentation-django with its defaults and stable HTTP conventions."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    from opentelemetry.instrumentation.django import DjangoInstrumentor  # insitu's processes do not load it

    _configure()
    sdk = baseline.Sdk(1.0)
    DjangoInstrumentor().instrument()
    return timing.whole(sdk.batched(wsgi.driver(WSGIHandler()), 1), REQUESTS)


def _configure(*middleware: str) -> None:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=list(middleware), LOGGING_CONFIG=None)
    django.setup()
