"""The longest time that a request waits for insitu's worker, in milliseconds, while that drains 2,500 rich requests.

Each has seven spans and two log records, so that all of them just fit into the queue, and is redacted and encoded for
OTLP. Meanwhile the application answers plain requests, one after the other and without a pause, in the main thread:
what its slowest request takes beyond its median is the stall. The pauses of Python's garbage collector are taken off
(`garbage` has them): they come with or without a drain, and grow with the application's own heap.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

import insitu
from benchmarks import ours, timing
from benchmarks.application import Driver, make
from insitu import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

RICH = 2_500
PLAIN = 10_000
"""Requests that are answered while those drain, about."""
SPANS = 6
LOGS = 2


def insitu_drain() -> timing.Round:
    """Requests while the worker drains."""
    ours.start_exporting()
    driver, rich = Driver(insitu.instrument(make())), Driver(insitu.instrument(_rich()))

    def run(effort: float) -> dict[str, float]:
        pipeline = runtime.current().pipeline
        ours.flush()
        with pipeline._draining:  # the worker begins when all of them wait
            rich.run(timing.scaled(RICH, effort))
        drained = pipeline.produced["traces"] + timing.scaled(RICH, effort) * (SPANS + 1)
        pipeline.worker.wake()
        stalls = driver.loop.run_until_complete(_longest(driver, lambda: pipeline.produced["traces"] >= drained))
        ours.flush()
        return stalls

    return run


def bare() -> timing.Round:
    """About as many of the same requests where nothing drains: what the machine itself does to them."""
    driver = Driver(make())

    def run(effort: float) -> dict[str, float]:
        left = iter(range(timing.scaled(PLAIN, effort)))
        return driver.loop.run_until_complete(_longest(driver, lambda: next(left, None) is None))

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


class _Collector:
    """The time that Python's garbage collector has taken, in seconds."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._began = 0.0

    def __call__(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.spent += time.perf_counter() - self._began


async def _longest(driver: Driver, over: Callable[[], bool]) -> dict[str, float]:
    took: list[float] = []
    garbage: list[float] = []
    collector = _Collector()
    gc.callbacks.append(collector)
    while not over():
        await asyncio.sleep(0)  # a server looks at its sockets between two requests
        began, spent = time.perf_counter(), collector.spent
        await driver.request()
        garbage.append(collector.spent - spent)
        took.append(time.perf_counter() - began - garbage[-1])
    gc.callbacks.remove(collector)
    return {
        "stall": (max(took) - statistics.median(took)) * 1000 if took else 0.0,
        "garbage": max(garbage, default=0.0) * 1000,
        "median": statistics.median(took or [0.0]) * 1000,
    }
