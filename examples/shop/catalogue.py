"""Products, what customers think of them, and what goes with them."""

import itertools
import logging
from typing import Annotated

import httpx
from fastapi import APIRouter, HTTPException, Query, Request
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import insitu
from examples.shop.database import Product, Review, SearchWord, Sessions

STALE_EVERY = 25
"""Every n-th search finds the index behind the catalogue."""

BESTSELLERS = [1, 2, 3]

log = logging.getLogger("shop.catalogue")
searches = itertools.count(1)
products = APIRouter(prefix="/products", tags=["catalogue"])
search = APIRouter(tags=["catalogue"])


def _row(product: Product) -> dict[str, str | int]:
    return {"id": product.id, "name": product.name, "price_cents": product.price_cents}


def _find(session: Session, number: int) -> Product:
    product = session.get(Product, number)
    if product is None:
        raise HTTPException(404, f"no product {number}")
    return product


@products.get("")
def list_products(
    page: Annotated[int, Query(ge=0)] = 0, size: Annotated[int, Query(ge=1, le=50)] = 20
) -> list[dict[str, str | int]]:
    """Return one page of the catalogue."""
    with Sessions() as session:
        query = select(Product).order_by(Product.id).limit(size).offset(page * size)
        return [_row(product) for product in session.scalars(query)]


@products.get("/{number}")
def show_product(number: int) -> dict[str, str | int]:
    """Return one product with its number of reviews."""
    with Sessions() as session:
        product = _find(session, number)
        reviews = session.scalar(select(func.count()).where(Review.product_id == number)) or 0
        return _row(product) | {"reviews": reviews}


@products.get("/{number}/rating")
def rate_product(number: int) -> float:
    """Return the mean of the stars. A bug as it happens in life: nobody thought of a product without a review."""
    with Sessions() as session:
        stars = session.scalars(select(Review.stars).where(Review.product_id == number)).all()
    return sum(stars) / len(stars)


@products.get("/{number}/similar")
async def recommend(number: int, request: Request) -> list[int]:
    """Return the ids of products that go with this one; the bestsellers when the recommender has nothing to say."""
    client: httpx.AsyncClient = request.app.state.recommender
    try:
        answer = await client.get(f"/similar/{number}")
        answer.raise_for_status()
    except httpx.HTTPError as error:
        log.warning("the recommender failed (%s), showing the bestsellers", error, extra={"product": number})
        return BESTSELLERS
    return [int(product) for product in answer.json()]


@search.get("/search")
def find_products(q: Annotated[str, Query(min_length=2)]) -> list[dict[str, str | int]]:
    """Return the products that a word leads to."""
    with insitu.span("search", word=q) as span, Sessions() as session:
        stale = next(searches) % STALE_EVERY == 0
        found = _scan(session, q) if stale else _look_up(session, q)
        span.set(stale=stale, found=len(found))
        return [_row(product) for product in found]


def _look_up(session: Session, word: str) -> list[Product]:
    query = select(Product).join(SearchWord, SearchWord.product_id == Product.id).where(SearchWord.word == word.lower())
    return list(session.scalars(query.limit(20)))


def _scan(session: Session, word: str) -> list[Product]:
    log.warning(
        "the search index is stale: reading every review for every product, without an index", extra={"word": word}
    )
    mentioned = Review.text.contains(Product.name)
    query = select(Product).join(Review, mentioned).group_by(Product.id).order_by(func.count().desc())
    return [product for product in session.scalars(query) if word.lower() in product.name.lower()][:20]
