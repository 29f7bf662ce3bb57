"""The shop of the memory benchmark, as far as insitu sees it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import insitu
from benchmarks import ours
from benchmarks.memory import ROUTES
from insitu import config, runtime
from insitu.core import context
from insitu.exporters import otlp, prometheus
from insitu.signals import requests as signals
from insitu.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from insitu.core.clock import Clock

SECONDS_BETWEEN = 0.001
FAILS_EVERY = 20
DETAIL_EVERY = 10
"""Requests for each trace and each log line: 360,000 of them fill whatever is bounded, in a tenth of the time."""
WORK_EVERY = 1_000
SCRAPE_EVERY = 60_000
ENVIRON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def by_hand(clock: Clock, environ: Mapping[str, str] = MappingProxyType({}), **options: Any) -> runtime.Runtime:
    """Return a running insitu on a clock, without threads, with its store in a folder of its own."""
    given = {"service": "bench", "libraries": (), "store": ours.store(), **options}
    runtime.shutdown()
    made = runtime.Runtime(config.read(given, environ, Path("/nonexistent")), environ, clock, threads=False)
    runtime.adopt(made)
    return made


class Shop:
    """insitu on a fake clock, its worker and sender run by hand."""

    def __init__(self) -> None:
        otlp.Exporter.send = ours.discard  # type: ignore[method-assign,assignment]
        self.clock = FakeClock()
        self.runtime = by_hand(self.clock, ENVIRON, exporters=("otlp",), sample=1 / DETAIL_EVERY)
        self.page = prometheus.Page(self.runtime.collect, self.runtime.resource)
        self.orders = insitu.counter("orders", labels=("plan", "customer"))
        self.basket = insitu.histogram("basket", labels=("customer",), unit="EUR")

    def serve(self, first: int, last: int) -> None:
        """Serve the requests from `first` up to `last`."""
        for number in range(first, last):
            self._request(number)
            if number % WORK_EVERY == 0:
                self._work()
            if number % SCRAPE_EVERY == 0:
                self.page.render("")
        self._work()

    def _work(self) -> None:
        """Do what the worker and the sender would have done by now; metrics go out when a minute has passed."""
        pipeline = self.runtime.pipeline
        pipeline.drain(timeout=60)
        pipeline.run_jobs()
        for sender in pipeline.senders:
            sender.step()
        lost = sum(pipeline.dropped.values()) + sum(sum(sender.dropped.values()) for sender in pipeline.senders)
        if lost:
            raise RuntimeError(f"insitu lost {lost} records")

    def _request(self, number: int) -> None:
        route = ROUTES[number % len(ROUTES)]
        path = route.replace("{order_id}", str(number))
        agent = b"Mozilla/5.0 visitor/%d" % number
        peer, here = ("10.0.0.1", number % 60_000), ("10.0.0.2", 8_000)
        raw = ("http", path, b"q=%d" % number, "1.1", b"shop.example", agent, peer, here)
        span = runtime.requests.begin("GET", raw, None, -1)
        token = context.enter(span)
        self.orders.add(1, plan="pro", customer=f"customer-{number}")
        self.basket.record(number % 97, customer=f"customer-{number}")
        if number % DETAIL_EVERY == 0:
            insitu.log.info("order placed", order=number, customer=f"customer-{number}")
        self.clock.advance(SECONDS_BETWEEN)
        span.response_status = 200
        if number % FAILS_EVERY == 0:
            span.response_status = 500
            _fail(span, number)
        runtime.requests.finish(span, route)
        context.leave(token)


def _fail(span: signals.ServerSpan, number: int) -> None:
    try:
        _charge(number)
    except LookupError as error:
        signals.fail(span, error)


def _charge(number: int) -> None:
    raise LookupError(f"order {number} is not there")
