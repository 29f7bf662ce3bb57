# ruff: noqa: B904, PLC3002, PTH123, UP031 - errors are raised here in every way there is
"""A shop that fails in many ways: each function below is one problem, or says which of several by its second value.

Run from releases whose lines and folders differ, by whoever calls it, with any value: see test_grouping.
"""

import asyncio
import contextlib
import dataclasses
import decimal
import functools
import json
import re
import sqlite3
import struct
from concurrent.futures import ThreadPoolExecutor


class OutOfStock(Exception):
    pass


class Reserved(OutOfStock):
    pass


def needed(value):
    raise ValueError(f"product {value} is needed")


def divides(value):
    return len(value) / 0


def has_no_such_key(value):
    return {}[value]


def has_no_price(value):
    return {"stock": value}["price"]


def has_no_weight(value):
    return {"stock": value}["weight"]


def counts_too_far(value):
    return [value][len(value) + 1]


def asks_nothing_for_its_name(value):
    return (None if value else value).name


def adds_a_text(value):
    return 1 + value


def parses_a_number(value):
    return int(f"number {value}")


def parses_a_price(value):
    return decimal.Decimal(f"price {value}")


def parses_a_document(value):
    return json.loads("{" + value)


def searches_by_a_bad_pattern(value):
    return re.search(f"({value}", "")


def opens_what_is_not_there(value):
    return open(f"/nowhere/{value}")


def decodes(value):
    return (value.encode() + b"\xff").decode()


def unpacks(value):
    return struct.unpack("<q", value[:1].encode())


def asserts(value):
    assert not value, f"{value} should be empty"


def is_out_of_stock(value):
    raise OutOfStock(value)


def is_reserved(value):
    raise Reserved(value)


def is_out_of_stock_elsewhere(value):
    raise OutOfStock(value)


def lacks_a_price_or_stock(value, which):
    if which == "price":
        raise LookupError(f"no price for {value}")
    raise LookupError(f"no stock of {value}")


def speaks_the_old_way(value, which):
    if which == "colour":
        raise ValueError("the colour %s is unknown" % value)
    raise ValueError(f"the size {value} is unknown")


def goes_down(value, depth=None):
    depth = len(value) if depth is None else depth
    if depth:
        return goes_down(value, depth - 1)
    raise ValueError(value)


def goes_down_for_ever(value):
    return goes_down_for_ever(value)


def goes_to(value, depth=None):
    depth = len(value) if depth is None else depth
    return goes_fro(value, depth - 1) if depth else needed(value)


def goes_fro(value, depth):
    return goes_to(value, depth)


def wraps(value):
    try:
        needed(value)
    except ValueError as error:
        raise RuntimeError("an order cannot be placed") from error


def wraps_twice(value):
    try:
        wraps(value)
    except RuntimeError as error:
        raise OSError("a cart cannot be emptied") from error


def wraps_another(value):
    try:
        divides(value)
    except ZeroDivisionError as error:
        raise RuntimeError("an order cannot be placed") from error


def hides(value):
    try:
        needed(value)
    except ValueError:
        raise RuntimeError(f"hidden for {value}") from None


def fails_while_it_mends(value):
    try:
        needed(value) if len(value) % 2 else divides(value)
    except (ValueError, ZeroDivisionError):
        raise KeyError(value)


def fails_together(value):
    errors = []
    for attempt in (needed, divides):
        try:
            attempt(value)
        except (ValueError, ZeroDivisionError) as error:
            errors.append(error)
    raise ExceptionGroup(f"{value} failed", errors)


def fails_many_times(value):
    errors = []
    for _ in range(len(value)):
        try:
            needed(value)
        except ValueError as error:
            errors.append(error)
    raise ExceptionGroup("some failed", errors)


def fails_in_a_nest(value):
    try:
        fails_together(value)
    except ExceptionGroup as group:
        raise ExceptionGroup("all failed", [group])


def yields(value):
    def pieces():
        yield 1
        raise OutOfStock(value)

    return list(pieces())


def lists(value):
    return [character.nothing for character in value]


def calls_a_lambda(value):
    return (lambda given: given.nothing)(value)


def nests(value):
    def inner():
        return value.nothing

    return inner()


class Cart:
    def __init__(self, value):
        self.value = value

    def add(self):
        raise OutOfStock(self.value)

    @classmethod
    def load(cls, value):
        raise OutOfStock(value)

    @property
    def total(self):
        return self.value["total"]


def adds_to_a_cart(value):
    Cart(value).add()


def loads_a_cart(value):
    Cart.load(value)


def totals_a_cart(value):
    return Cart(value).total


def logged(function):
    @functools.wraps(function)
    def wrapper(value):
        return function(value)

    return wrapper


@logged
def is_decorated(value):
    raise OutOfStock(value)


@logged
def is_decorated_as_well(value):
    raise OutOfStock(value)


@dataclasses.dataclass
class Price:
    amount: str

    def __post_init__(self):
        if self.amount:
            raise ValueError(self.amount)


def makes_a_price(value):
    return Price(value)


def runs_generated_code(value):
    name = f"rule_{abs(hash(value)) % 1000}"
    code = compile(f"def {name}(value):\n    return value.nothing", f"<rule {len(value)}>", "exec")
    namespace = {}
    exec(code, namespace)
    return namespace[name](value)


@contextlib.contextmanager
def opened(value):
    yield value
    raise OutOfStock(value)


def closes(value):
    with opened(value):
        pass


def asks_a_database(value, which):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        if which == "table":
            return connection.execute("SELECT * FROM products WHERE name = ?", (value,))
        return connection.execute("INSERT INTO sqlite_master VALUES (1)")


def awaits(value):
    async def order():
        await asyncio.sleep(0)
        raise OutOfStock(value)

    asyncio.run(order())


def gathers(value):
    async def order():
        await asyncio.sleep(0)
        needed(value)

    async def orders():
        await asyncio.gather(order(), order())

    asyncio.run(orders())


def waits_too_long(value):
    async def order():
        async with asyncio.timeout(0):
            await asyncio.sleep(len(value))

    asyncio.run(order())


def asks_a_pool(value):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(needed, value).result()


PROBLEMS = [
    (problem, which)
    for problem in (
        divides, has_no_such_key, has_no_price, has_no_weight, counts_too_far, asks_nothing_for_its_name, adds_a_text,
        parses_a_number, parses_a_price, parses_a_document, searches_by_a_bad_pattern, opens_what_is_not_there, decodes,
        unpacks, asserts, is_out_of_stock, is_reserved, is_out_of_stock_elsewhere, lacks_a_price_or_stock,
        speaks_the_old_way, goes_down, goes_down_for_ever, goes_to, wraps, wraps_twice, wraps_another, hides,
        fails_while_it_mends, fails_together, fails_many_times, fails_in_a_nest, yields, lists, calls_a_lambda, nests,
        adds_to_a_cart, loads_a_cart, totals_a_cart, is_decorated, is_decorated_as_well, makes_a_price,
        runs_generated_code, closes, asks_a_database, awaits, gathers, waits_too_long, asks_a_pool,
    )
    for which in {
        "lacks_a_price_or_stock": ("price", "stock"),
        "speaks_the_old_way": ("colour", "size"),
        "asks_a_database": ("table", "rights"),
    }.get(problem.__name__, ((),))
]  # fmt: skip
"""Each problem, with what chooses it where a function has two."""
