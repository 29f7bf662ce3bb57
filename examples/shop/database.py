"""The shop's tables in SQLite, and the goods it opens with."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, ForeignKey, create_engine, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

SEED = 7
REVIEWS = 4_000
UNREVIEWED = 12
"""The newest products, which nobody has reviewed yet."""

MATERIALS = ("Oak", "Walnut", "Linen", "Copper", "Glass", "Cork", "Slate", "Wool", "Bamboo", "Steel", "Felt", "Clay")
THINGS = ("Lamp", "Chair", "Table", "Bowl", "Shelf", "Clock", "Vase", "Rug", "Bench", "Mirror", "Tray", "Stool")
OPINIONS = ("Lovely", "Sturdy", "Smaller than expected", "Arrived late", "Would buy again", "A perfect present")

Sessions = sessionmaker()
"""Opens a session on the database that `connect` named."""


class Base(DeclarativeBase):
    """What all tables share."""


class Product(Base):
    """Something to buy."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price_cents: Mapped[int]


class Review(Base):
    """What a customer thought of a product: 1 to 5 stars, and a sentence."""

    __tablename__ = "review"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), index=True)
    stars: Mapped[int]
    text: Mapped[str]


class SearchWord(Base):
    """The search index: which products a word leads to."""

    __tablename__ = "search_word"
    word: Mapped[str] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)


class CartItem(Base):
    """One product in a customer's cart."""

    __tablename__ = "cart_item"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    quantity: Mapped[int]


class Order(Base):
    """A cart that was paid for."""

    __tablename__ = "customer_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    plan: Mapped[str]
    total_cents: Mapped[int]


def connect(path: Path) -> Engine:
    """Open the database at `path`, with its tables and goods when it is new, and bind `Sessions` to it."""
    new = not path.exists()
    engine = create_engine(f"sqlite:///{path}", pool_size=10)
    event.listen(engine, "connect", _let_readers_and_the_writer_overlap)
    Sessions.configure(bind=engine)
    if new:
        Base.metadata.create_all(engine)
        _stock_up()
    return engine


def _let_readers_and_the_writer_overlap(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()


def _stock_up() -> None:
    names = [f"{material} {thing}" for material, thing in itertools.product(MATERIALS, THINGS)]
    chance = random.Random(SEED)
    with Sessions.begin() as session:
        session.execute(
            insert(Product),
            [{"id": n, "name": name, "price_cents": chance.randrange(900, 20_000)} for n, name in enumerate(names, 1)],
        )
        session.execute(
            insert(SearchWord),
            [{"word": word.lower(), "product_id": n} for n, name in enumerate(names, 1) for word in name.split()],
        )
        session.execute(insert(Review), list(_reviews(names, chance)))


def _reviews(names: list[str], chance: random.Random) -> Iterator[dict[str, object]]:
    for _ in range(REVIEWS):
        product = chance.randrange(len(names) - UNREVIEWED)
        text = f"{chance.choice(OPINIONS)}, goes well with my {chance.choice(names)}"
        yield {"product_id": product + 1, "stars": chance.randint(1, 5), "text": text}
