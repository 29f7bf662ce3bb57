import enum
import time
import tracemalloc
from collections import UserDict, UserList
from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.core import values
from insitu.core.values import ITEMS, LIMIT, ROOM, plain, text, weight


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text today")

    __repr__ = __str__


class Endless(Sequence):
    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        return index


class Broken(Mapping):
    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        raise RuntimeError("no keys today")

    def __len__(self):
        return 1


class LyingClass:
    @property
    def __class__(self):
        raise RuntimeError("no class today")

    def __str__(self):
        return "lying"


class LyingMeta(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name today")


class Nameless(metaclass=LyingMeta):
    def __str__(self):
        raise RuntimeError


class Colour(enum.IntEnum):
    RED = 1


class Bytes(bytes):
    def __getitem__(self, index):
        raise RuntimeError("no bytes today")


RECURSIVE_LIST = []
RECURSIVE_LIST.append(RECURSIVE_LIST)
RECURSIVE_DICT = {}
RECURSIVE_DICT["self"] = RECURSIVE_DICT
DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]
WIDE = ["x" * LIMIT] * ITEMS
for _ in range(3):
    WIDE = [WIDE] * ITEMS
HUGE = [[[[[0] * 10_000_000]]]]

HOSTILE = {
    "unprintable": Unprintable(),
    "endless": Endless(),
    "broken": Broken(),
    "lying class": LyingClass(),
    "nameless": Nameless(),
    "bytes": Bytes(b"abc"),
    "recursive list": RECURSIVE_LIST,
    "recursive dict": RECURSIVE_DICT,
    "deep": DEEP,
    "wide": WIDE,
    "huge": HUGE,
    "bomb": {Unprintable(): [Unprintable()] * 200},
    "10 MB": "x" * 10_000_000,
    "10 MB of bytes": b"x" * 10_000_000,
    "large int": 1 << 10_000_000,
    "int beyond str": [10**5_000],
    "dict": dict.fromkeys(range(5000), "x" * LIMIT),
    "generator": (number for number in range(3)),
    "released": memoryview(b""),
}
HOSTILE["released"].release()


def is_plain(value):
    kind = type(value)
    if kind in (tuple, list):
        return kind is tuple and all(map(is_plain, value))
    if kind is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return kind in (str, bytes, int, float, bool)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_becomes_plain_and_bounded_in_no_time(name):
    """FAULTS 1 and 37: 0 exceptions, at most 64 kB, at most 20 ms."""
    value = HOSTILE[name]
    began = time.thread_time()
    made = plain(value)
    took = (time.thread_time() - began) * 1_000
    print(f"FAULTS 37: {weight(made)} bytes in {took:.2f} ms")
    assert is_plain(made)
    assert weight(made) <= ROOM + 2 * LIMIT
    assert took <= 20


def test_a_hostile_value_takes_no_memory_to_refuse():
    tracemalloc.start()
    plain(WIDE)
    plain(HUGE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"peak {peak} bytes")
    assert peak <= 1_000_000


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.complex_numbers()
    | st.builds(Unprintable)
    | st.sampled_from([Colour.RED, Nameless(), RECURSIVE_LIST, RECURSIVE_DICT, object, len]),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        | st.builds(UserList, st.lists(inner))
        | st.builds(UserDict, st.dictionaries(st.text(), inner))
        | st.frozensets(st.integers())
    ),
)


@given(anything, st.integers(0, 100), st.integers(0, 5))
def test_any_value_becomes_plain(value, limit, depth):
    made = plain(value, limit, depth)
    assert is_plain(made)
    if isinstance(made, bytes) or (isinstance(made, str) and not made.startswith("<unprintable")):
        assert len(made) <= limit


@given(anything)
def test_what_is_plain_stays_as_it_is(value):
    made = plain(value)
    again = plain(made)
    assert repr(again) == repr(made)


@pytest.mark.parametrize("value", ["text", b"bytes", 5, -(2**70), 1.5, True, False, "", b""])
def test_a_plain_value_is_kept_as_given(value):
    made = plain(value)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (None, "None"),
        (Decimal("1.50"), "1.50"),
        (Colour.RED, "1"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcdef")[::2], b"ace"),
        ([1, "a", None], (1, "a", "None")),
        ((1, [2, (3,)]), (1, (2, (3,)))),
        ({1}, (1,)),
        ({1: {"b": [2]}}, {"1": {"b": (2,)}}),
        (Unprintable(), "<unprintable Unprintable>"),
        ([Unprintable(), 1], ("<unprintable Unprintable>", 1)),
    ],
)
def test_anything_else_is_rendered_by_its_kind(value, made):
    assert plain(value) == made


def test_what_lies_too_deep_is_text():
    assert plain([[[[["deep"]]]]]) == (((("['deep']",),),),)
    assert plain([1], depth=0) == "[1]"


def test_long_texts_and_bytes_are_cut():
    assert plain("x" * 20, 10) == "x" * 10
    assert plain(b"x" * 20, 10) == b"x" * 10
    assert plain(["x" * 20], 10) == ("x" * 10,)
    assert text("x" * 20, 10) == "x" * 10
    assert text(5) == "5"


def test_long_containers_lose_their_end():
    assert plain(range(1_000)) == tuple(range(ITEMS))
    assert len(plain({str(number): number for number in range(1_000)})) == ITEMS
    assert len(plain(["x" * LIMIT] * ITEMS)) == ROOM // LIMIT


def test_a_weight_counts_what_the_base_weight_does_not():
    assert weight("x" * values.SMALL) == 0
    assert weight("x" * (values.SMALL + 1)) == values.SMALL + 1
    assert weight(b"x" * 1_000) == 1_000
    assert weight(5) == 0
    assert weight(("x" * 1_000,) * 3) >= 3_000
    assert weight({"k": "x" * 1_000}) >= 1_000
