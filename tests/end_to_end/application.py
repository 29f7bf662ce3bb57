"""An application as a user writes it, with every signal in it: tests/end_to_end/serving.py runs it in a uvicorn."""

import logging
import os
from contextlib import suppress

import httpx
from fastapi import FastAPI, HTTPException, Request
from opentelemetry import trace

import insitu

SECRET = os.environ["SHOP_SECRET"]
"""Stands wherever a secret may slip in; it must not come out anywhere."""
HEAVY = f"{'token=1 ' * 40}password={SECRET}"
"""Takes two hundred times as long to be cleaned as the span that holds it takes to be made."""

logger = logging.getLogger("shop.orders")
orders = insitu.counter("orders", unit="{order}", help="Orders placed.", labels=("plan",))
basket = insitu.histogram("basket.value", unit="EUR", help="Value of an order.", bounds=(10.0, 100.0))
app = FastAPI()
insitu.instrument(app)


class OutOfStock(Exception):
    """Nothing is left of an item."""


@app.get("/items/{number}")
async def item(number: int):
    return {"number": number}


@app.post("/orders/{number}", status_code=201)
async def order(number: int, value: float):
    insitu.bind(user="u1")
    elsewhere = trace.Link(trace.SpanContext(0xAA, 0xBB, is_remote=True), {"why": "retry"})
    tracer = trace.get_tracer("shop.stock", "1.2")
    with insitu.span("place order", number=number, password=SECRET, note=f"token={SECRET}") as placing:
        placing.add_event("reserved", {"shelf": 7})
        with tracer.start_as_current_span("read stock", links=[elsewhere], attributes={"ok": True, "share": 0.5}):
            logger.warning("only %d left, api_key=%s", 2, SECRET, extra={"number": number, "password": SECRET})
        with suppress(OutOfStock), tracer.start_as_current_span("take stock", kind=trace.SpanKind.PRODUCER):
            raise OutOfStock(f"item {number}, password={SECRET}")
    orders.add(1, plan="pro")
    basket.record(value)
    return {"number": number}


@app.get("/relay/{number}")
async def relay(number: int, request: Request):
    async with httpx.AsyncClient(base_url=str(request.base_url)) as client:
        return (await client.get(f"/items/{number}")).json()


@app.get("/fails")
async def fails():
    raise ValueError(f"no warehouse, secret={SECRET}")


@app.get("/busy")
async def busy():
    raise HTTPException(503, "come back later")


@app.get("/work/{spans}")
async def work(spans: int):
    for number in range(spans):
        with insitu.span("step", number=number, tier="gold"):
            pass
    return spans


@app.get("/heavy/{spans}")
async def heavy(spans: int):
    """Spans that are made in no time, and have to be looked through for secrets behind that."""
    for number in range(spans):
        with insitu.span("step", number=number, note=HEAVY):
            pass
    return spans


@app.get("/flush")
def flush():
    return insitu.flush(timeout=8)
