"""The longest time that a request waits for insitu's worker, in milliseconds, while that drains 2,500 rich requests.

Each has seven spans and two log records, so that all of them just fit into the queue, and is redacted and encoded for
OTLP. Meanwhile an application without insitu answers one request after the other in the main thread: what its slowest
request takes beyond its median is the stall.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

import insitu
from benchmarks import ours, timing
from benchmarks.application import Driver, Unchecked, make
from insitu import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

RICH = 2_500
SPANS = 6
LOGS = 2


def insitu_drain() -> timing.Round:
    """Requests while the worker drains."""
    ours.start_exporting()
    driver = Driver(make(Unchecked))  # or FastAPI itself would trace it: insitu is the provider
    rich = Driver(insitu.instrument(_rich()))

    def run(effort: float) -> float:
        pipeline = runtime.current().pipeline
        ours.flush()
        with pipeline._draining:  # the worker begins when all of them wait
            rich.run(timing.scaled(RICH, effort))
        pipeline.worker.wake()
        stall = driver.loop.run_until_complete(_longest(driver, lambda: pipeline._held == 0))
        ours.flush()
        return stall

    return run


def bare() -> timing.Round:
    """The same requests, for half a second, where nothing drains: what the machine itself does to them."""
    driver = Driver(make(Unchecked))

    def run(effort: float) -> float:
        ends = time.perf_counter() + 0.5 * effort
        return driver.loop.run_until_complete(_longest(driver, lambda: time.perf_counter() > ends))

    return run


def _rich() -> FastAPI:
    app = make()

    @app.middleware("http")
    async def work(request: Request, proceed: RequestResponseEndpoint) -> Response:
        for number in range(SPANS):
            with insitu.span(
                "query", table="orders", statement="SELECT * FROM orders WHERE id = ?", rows=number
            ) as span:
                span.set(plan="pro", note="a text of the length that people write into attributes")
        for number in range(LOGS):
            insitu.log.info("loaded", number=number, table="orders")
        return await proceed(request)

    return app


async def _longest(driver: Driver, over: Callable[[], bool]) -> float:
    took: list[float] = []
    while not over():
        await asyncio.sleep(0)  # a server looks at its sockets between two requests
        began = time.perf_counter()
        await driver.request()
        took.append(time.perf_counter() - began)
    return (max(took) - statistics.median(took)) * 1000 if took else 0.0
