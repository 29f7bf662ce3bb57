"""The second service: what goes with a product. Its spans continue the shop's traces."""

import asyncio
import itertools
import logging

from fastapi import FastAPI, HTTPException

import insitu

SLOW_EVERY = 20
"""Every n-th answer computes its model anew."""
FAILING_EVERY = 33
"""Every n-th request comes while the model is being replaced."""
PRODUCTS = 144

log = logging.getLogger("recommender")
requests = itertools.count(1)

insitu.init(service="recommender", version="1.0", environment="demo")
app = FastAPI(title="The recommender")
insitu.instrument(app)


@app.get("/similar/{number}")
async def similar(number: int) -> list[int]:
    """Return the ids of three products that are bought together with this one."""
    number = next(requests)
    if number % FAILING_EVERY == 0:
        raise HTTPException(503, "the model is being replaced")
    if number % SLOW_EVERY == 0:
        await compute_model()
    return [(number * factor) % PRODUCTS + 1 for factor in (3, 5, 7)]


@insitu.trace
async def compute_model() -> None:
    """Take the time that a computation elsewhere would take."""
    log.warning("no model in the cache, computing it")
    await asyncio.sleep(0.08)
