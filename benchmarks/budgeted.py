"""A load that costs more than insitu's budget allows: what insitu takes then, by its own ledger and from outside.

Requests come at a steady rate, as they do to a server that has time left: a share of a core means nothing otherwise.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI

import insitu
from benchmarks import ours, timing
from benchmarks.application import Driver, make
from insitu import runtime
from insitu.core.budget import LADDER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

LIMIT: Final = 0.01
RATE: Final = 50
"""Requests a second."""
REQUESTS: Final = 100
STEPS: Final = 20
"""Spans below a request's own; in full detail they cost more than the budget."""
BUSY_LIMIT: Final = 0.1
BUSY_REQUESTS: Final = 2_000
STEPWISE_REQUESTS: Final = 1_200
WITHIN_SECONDS: Final = 20
_STEADY_SECONDS: Final = 2.0


def insitu_budgeted() -> timing.Round:
    """Every default signal, and one percent of a core; the first round goes on until that is kept."""
    ours.start(budget=f"{LIMIT:.0%}")
    driver = Driver(insitu.instrument(_make(_step)), "/", b"")
    measure = timing.whole(lambda requests: _run(driver, requests), REQUESTS, ours.flush)
    held = _held(driver)

    def round_(effort: float) -> dict[str, float]:
        before, began = ours.ledger(), time.monotonic()
        measure(effort)
        return {"share": (ours.ledger() - before) / (time.monotonic() - began) * 100, "held": held}

    return round_


def insitu_busy() -> timing.Round:
    """The usual request without a pause, and a budget that lets no trace be recorded."""
    ours.start(budget=f"{BUSY_LIMIT:.0%}")
    driver = Driver(insitu.instrument(make()))
    until = time.monotonic() + WITHIN_SECONDS
    while runtime.current().ladder.step < len(LADDER) - 1 and time.monotonic() < until:
        driver.run(BUSY_REQUESTS)
        ours.flush()
    return ours.measured(driver.run, BUSY_REQUESTS)


def stepwise_bare() -> timing.Round:
    """The request of many steps, which nobody traces."""
    return timing.whole(Driver(_make(lambda _: nullcontext()), "/", b"").run, STEPWISE_REQUESTS)


def insitu_stepwise() -> timing.Round:
    """The same with a span for each step."""
    ours.start()
    return ours.measured(Driver(insitu.instrument(_make(_step)), "/", b"").run, STEPWISE_REQUESTS)


def insitu_left_out() -> timing.Round:
    """The same where the budget leaves these spans out."""
    ours.start()
    runtime.current()._reduce(LADDER[2])
    return ours.measured(Driver(insitu.instrument(_make(_step)), "/", b"").run, STEPWISE_REQUESTS)


def _make(step: Callable[[int], AbstractContextManager[object]]) -> FastAPI:
    app = FastAPI(title="bench")

    @app.get("/")
    async def stepwise() -> int:
        for number in range(STEPS):
            with step(number):
                pass
        return STEPS

    return app


def _step(number: int) -> AbstractContextManager[object]:
    return insitu.span(
        "query",
        table="orders",
        statement="SELECT * FROM orders WHERE id = ?",
        rows=number,
        plan="pro",
        note=f"a text of the length that people write into attributes, {number}",
    )


def _held(driver: Driver) -> float:
    """Serve until the cost has stayed below the budget for a while; return after how many seconds it first did."""
    ladder = runtime.current().ladder
    began = since = time.monotonic()
    while (now := time.monotonic()) - since < _STEADY_SECONDS:
        if now - began > WITHIN_SECONDS + _STEADY_SECONDS:
            raise RuntimeError(f"{ladder.used:.2%} of a core at step {ladder.step}, after {now - began:.0f} s")
        _run(driver, RATE // 10)
        if not ladder.step or ladder.used > LIMIT:
            since = time.monotonic()
    return since - began


def _run(driver: Driver, requests: int) -> None:
    driver.loop.run_until_complete(_paced(driver.request, requests))


async def _paced(request: Callable[[], Awaitable[None]], requests: int) -> None:
    due = time.monotonic()
    for _ in range(requests):
        await request()
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
