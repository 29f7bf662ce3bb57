"""A background job: prices move once a second."""

import asyncio
import logging
import random

from sqlalchemy import select

import insitu
from examples.shop.database import Product, Sessions

MOVES = 10
"""Products whose price changes in one refresh."""

log = logging.getLogger("shop.prices")
chance = random.Random()


async def keep_fresh(every: float = 1.0) -> None:
    """Refresh prices every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(every)
        await refresh_prices()


@insitu.trace
async def refresh_prices() -> None:
    """Move a few prices by up to 5 %: no request asked for it, so this is the root of its own trace."""
    moved = await asyncio.to_thread(_move)
    log.info("moved %d prices", moved)


@insitu.trace
def _move() -> int:
    with Sessions.begin() as session:
        for product in session.scalars(select(Product).where(Product.id.in_(chance.sample(range(1, 100), MOVES)))):
            product.price_cents = max(100, round(product.price_cents * chance.uniform(0.95, 1.05)))
    return MOVES
