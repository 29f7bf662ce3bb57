"""Milliseconds until the API behind the page answers, over a store with a million spans.

200,000 requests of a shop with 200 routes go through the whole of insitu on a clock that is moved by hand, 0.1 s apart,
each with a server span and four below it; every trace is kept. Then each question is put as the page puts it. The
smallest of a few tries counts: what is measured is the work, and not a disk that others share.
"""

from __future__ import annotations

import gc
import json
import time
from typing import TYPE_CHECKING, Any, Final

import psutil

import insitu
from benchmarks import by_hand
from insitu.analysis.keeping import Keeper
from insitu.testing import FakeClock
from insitu.web.messages import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks import timing
    from insitu.core.records import LocalTrace

SPANS: Final = 1_000_000
STEPS: Final = ("load cart", "price", "charge", "ship")
SECONDS_BETWEEN: Final = 0.1
SECONDS_A_STEP: Final = 0.0005
FAILS_EVERY: Final = 20
LOGS_EVERY: Final = 4
WORK_EVERY: Final = 100
TRIES: Final = 5
OK: Final = 200
ROUTES: Final = "routes?since=6h"
METRIC: Final = "metrics/http.server.request.duration?since=6h"
LISTS: Final = (
    "overview",
    "routes",
    ROUTES,
    "routes?since=6h&name=GET%20/shop/7/orders/{order_id}",
    "traces",
    "traces?since=6h&name=GET%20/shop/7/orders/{order_id}",
    "traces?since=6h&outcome=5&min_ms=1",
    "logs",
    "logs?since=6h&level=error",
    "logs?since=3h&until=2h",
    "metrics",
    METRIC,
)
"""What has an index, or an answer within the newest blocks."""
ATTRIBUTE: Final = "traces?key=cart&value=no-such-cart"
"""What has neither: every span must be looked at."""


def kept() -> timing.Round:
    """The slowest answer of each sort, and what a span takes on the disk."""

    def run(effort: float) -> dict[str, float]:
        shop, requests = _Shop(), int(SPANS / (1 + len(STEPS)) * effort)
        shop.serve(requests)
        gc.collect()
        memory = psutil.Process().memory_info().rss
        size = sum(file.stat().st_size for file in shop.runtime.store.folder.iterdir())
        lists = {path: shop.milliseconds(path) for path in LISTS}
        return {
            "lists": max(lists.values()),
            "routes": lists[ROUTES],
            "metric": lists[METRIC],
            "trace": shop.milliseconds(f"traces/{shop.first:032x}"),
            "attribute": shop.milliseconds(ATTRIBUTE),
            "scan": shop.scan() / 1000,
            "file": size / 1e6,
            "span": size / requests / (1 + len(STEPS)),
            "memory": memory / 1e6,
        }

    return run


def _all(_: Keeper, traces: Sequence[LocalTrace], __: int) -> None:
    for trace in traces:
        trace.kept = "steady"


class _Shop:
    """A shop whose requests are all kept; insitu's worker is run by hand."""

    def __init__(self) -> None:
        Keeper.decide = _all  # type: ignore[method-assign]
        self.clock = FakeClock()
        self.runtime = by_hand.start(self.clock, sample=1.0)
        self.first = 0
        self._api = self.runtime.api()

    def serve(self, requests: int) -> None:
        """Serve so many requests, and write all that is kept."""
        pipeline = self.runtime.pipeline
        for number in range(requests):
            self._request(number)
            if number % WORK_EVERY == WORK_EVERY - 1:
                pipeline.drain(timeout=60)
                pipeline.run_jobs()
        pipeline.drain(timeout=60)
        self.runtime.store.write()

    def _request(self, number: int) -> None:
        with by_hand.visit(number) as span:
            self.first = self.first or span.trace.trace_id
            for step in STEPS:
                with insitu.span(step, cart=f"cart-{number}", customer=number % 9_999, position=number % 7):
                    self.clock.advance(SECONDS_A_STEP * (1 + number % 13))
            if number % LOGS_EVERY == 0:
                insitu.log.info("order placed", order=number, customer=f"customer-{number}")
            if number % FAILS_EVERY == 0:
                insitu.log.error("no payment", order=number)
                span.response_status = 500
        self.clock.advance(SECONDS_BETWEEN)

    def milliseconds(self, path: str) -> float:
        """Return the fewest that an answer takes."""
        return min(self.ask(path)[1] for _ in range(TRIES))

    def scan(self) -> float:
        """Return what the whole of a search takes that has to look at every span, question by question."""
        answer, took = self.ask(ATTRIBUTE)
        while answer["partial"]:
            answer, more = self.ask(f"{ATTRIBUTE}&cursor={answer['cursor']}")
            took += more
        return took

    def ask(self, path: str) -> tuple[Any, float]:
        """Return an answer and the milliseconds it took."""
        name, _, query = path.partition("?")
        request = Request("GET", f"/monitoring/{name}", {"host": "localhost"}, "127.0.0.1", query)
        began = time.perf_counter()
        response = self._api.handle(request)
        took = time.perf_counter() - began
        if response.status != OK:
            raise RuntimeError(f"{path}: {response.status} {response.body[:200].decode()}")
        return json.loads(response.body), took * 1000
