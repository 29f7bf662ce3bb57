"""From the cart to the order."""

import logging
import time
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

import insitu
from examples.shop.database import CartItem, Order, Product, Sessions
from examples.shop.visitor import Customer

SHIPPING_CENTS = {"DE": 490, "FR": 690, "NL": 590, "PL": 790}

log = logging.getLogger("shop.checkout")
orders = insitu.counter("shop_orders", labels=("plan",))
cart = APIRouter(tags=["checkout"])
admin = APIRouter(prefix="/admin", tags=["admin"])


class PaymentDeclined(Exception):
    """The bank said no."""


class Item(BaseModel):
    """A product to put into the cart."""

    product_id: int
    quantity: Annotated[int, Field(ge=1, le=10)] = 1


class Payment(BaseModel):
    """How to pay; a card that ends in 0000 is declined."""

    card: Annotated[str, Field(pattern=r"^\d{16}$")]
    plan: Literal["basic", "pro"] = "basic"


@cart.get("/cart")
def show_cart(customer: Customer) -> dict[str, int]:
    """Return how much is in the customer's cart."""
    with Sessions() as session:
        return {"total_cents": _total(session, customer)}


@cart.post("/cart/items", status_code=201)
def add_to_cart(item: Item, customer: Customer) -> None:
    """Put a product into the customer's cart."""
    with Sessions.begin() as session:
        session.add(CartItem(customer=customer, product_id=item.product_id, quantity=item.quantity))


@cart.post("/checkout", status_code=201)
def check_out(payment: Payment, customer: Customer, after: BackgroundTasks) -> dict[str, int]:
    """Turn the customer's cart into an order. The receipt is sent after the answer."""
    with Sessions.begin() as session:
        total = _total(session, customer)
        if not total:
            raise HTTPException(409, "the cart is empty")
        _charge(payment.card, total)
        order = Order(customer=customer, plan=payment.plan, total_cents=total)
        session.add(order)
        session.execute(delete(CartItem).where(CartItem.customer == customer))
        session.flush()
        number = order.id
    orders.add(1, plan=payment.plan)
    log.info("order %d placed", number, extra={"order": number, "total_cents": total})
    after.add_task(_send_receipt, number)
    return {"order": number, "total_cents": total}


@cart.get("/shipping/{country}")
def quote_shipping(country: str) -> dict[str, int]:
    """Return the price of shipping. A bug as it happens in life: nobody thought of a country we do not ship to."""
    return {"shipping_cents": SHIPPING_CENTS[country]}


@admin.get("/orders.csv")
def export_orders() -> StreamingResponse:
    """Stream the last thousand orders, a hundred lines at a time."""
    return StreamingResponse(_csv(), media_type="text/csv")


def _csv() -> Iterator[str]:
    yield "id,customer,plan,total_cents\n"
    with Sessions() as session:
        newest = select(Order).order_by(Order.id.desc()).limit(1000).execution_options(yield_per=100)
        for part in session.scalars(newest).partitions():
            yield "".join(f"{order.id},{order.customer},{order.plan},{order.total_cents}\n" for order in part)


def _total(session: Session, customer: str) -> int:
    worth = func.sum(CartItem.quantity * Product.price_cents)
    query = select(worth).join(Product, Product.id == CartItem.product_id).where(CartItem.customer == customer)
    return session.scalar(query) or 0


@insitu.trace
def _charge(card: str, cents: int) -> None:
    time.sleep(0.004)  # as far away as a bank nearby
    if card.endswith("0000"):
        message = f"the bank declined {cents / 100:.2f} EUR"
        raise PaymentDeclined(message)


@insitu.trace
def _send_receipt(order: int) -> None:
    time.sleep(0.01)  # as far away as a mail server nearby
    log.info("receipt for order %d sent", order, extra={"order": order})
