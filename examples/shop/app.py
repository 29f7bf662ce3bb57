"""The shop. Everything that insitu needs is in the three lines that name it here.

On its own: `uvicorn examples.shop.app:app`, with the recommender's address in SHOP_RECOMMENDER and a file for
the database in SHOP_DATABASE.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

import insitu
from examples.shop import catalogue, checkout, database, prices
from examples.shop.visitor import visitor

insitu.init(service="shop", version="1.0", environment="demo")

WELCOME = """<!doctype html><title>The shop</title><h1>The shop</h1>
<p><a href="/products">products</a> · <a href="/search?q=lamp">search</a> · <a href="/cart">cart</a> ·
<a href="/docs">every route</a> · <a href="/metrics">what insitu sees</a></p>"""


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the database, the client of the recommender and the price job open while the shop serves."""
    path = os.environ.get("SHOP_DATABASE") or Path(tempfile.mkdtemp(prefix="shop-")) / "shop.db"
    engine = database.connect(Path(path))
    address = os.environ.get("SHOP_RECOMMENDER", "http://127.0.0.1:8001")
    async with httpx.AsyncClient(base_url=address, timeout=2) as app.state.recommender:
        job = asyncio.create_task(prices.keep_fresh())
        try:
            yield
        finally:
            job.cancel()
            await asyncio.wait({job})
            engine.dispose()


app = FastAPI(title="The shop", version="1.0", lifespan=lifespan, dependencies=[Depends(visitor)])
app.include_router(catalogue.products)
app.include_router(catalogue.search)
app.include_router(checkout.cart)
app.include_router(checkout.admin)
insitu.instrument(app)


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
async def welcome() -> str:
    """Show a human the way."""
    return WELCOME


@app.exception_handler(checkout.PaymentDeclined)
async def explain_decline(_: Request, error: checkout.PaymentDeclined) -> JSONResponse:
    """Answer 402. The customer is served, so it is no failure of ours, yet it is worth counting as an error."""
    insitu.capture(error)
    return JSONResponse({"detail": str(error)}, status_code=402)
