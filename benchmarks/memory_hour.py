"""The shop of the memory benchmark, as far as insitu sees it."""

from __future__ import annotations

import insitu
from benchmarks import by_hand, ours
from insitu.exporters import otlp, prometheus
from insitu.signals import requests as signals
from insitu.testing import FakeClock

SECONDS_BETWEEN = 0.001
FAILS_EVERY = 20
DETAIL_EVERY = 10
"""Requests for each trace and each log line: 360,000 of them fill whatever is bounded, in a tenth of the time."""
WORK_EVERY = 1_000
SCRAPE_EVERY = 60_000
ENVIRON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


class Shop:
    """insitu on a fake clock, its worker and sender run by hand."""

    def __init__(self) -> None:
        otlp.Exporter.send = ours.discard  # type: ignore[method-assign,assignment]
        self.clock = FakeClock()
        self.runtime = by_hand.start(self.clock, ENVIRON, exporters=("otlp",), sample=1 / DETAIL_EVERY)
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
        with by_hand.visit(number) as span:
            self.orders.add(1, plan="pro", customer=f"customer-{number}")
            self.basket.record(number % 97, customer=f"customer-{number}")
            if number % DETAIL_EVERY == 0:
                insitu.log.info("order placed", order=number, customer=f"customer-{number}")
            self.clock.advance(SECONDS_BETWEEN)
            if number % FAILS_EVERY == 0:
                span.response_status = 500
                _fail(span, number)


def _fail(span: signals.ServerSpan, number: int) -> None:
    try:
        _charge(number)
    except LookupError as error:
        signals.fail(span, error)


def _charge(number: int) -> None:
    raise LookupError(f"order {number} is not there")
