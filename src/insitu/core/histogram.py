"""A sketch of positive numbers that merges exactly: OpenTelemetry's base-2 exponential histogram.

Bucket `i` of scale `s` holds the values in `(base**i, base**(i + 1)]` with `base = 2**(2**-s)`. A sketch starts at
scale 20 and halves its resolution (two neighbours become one) whenever its values no longer fit into 160 buckets, so it
is always as fine as its own range allows. Source: OpenTelemetry's data model for metrics, "ExponentialHistogram".

Everything here is integer arithmetic on what `record` was given, so a sketch depends on the values alone and never on
their order, nor on how they were divided among workers, minutes and merges. Two choices serve that:

- The index is always computed at scale 20 and then shifted, and on either side of a power of two it is exact. The
  logarithm may be one off near other boundaries, as the data model allows, but alike at every scale.
- The sum is kept in units of 2**-64, rounded down: exact for values of at least 2**-12, and less than 6e-20 short for
  each smaller one.
"""

from __future__ import annotations

import re
from math import exp2, floor, frexp, inf, log, nan, tanh
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BUCKETS: Final = 160
MAX_SCALE: Final = 20
MIN_SCALE: Final = -4
"""At this scale every float fits: 128 buckets of 16 powers of two each."""

_PER_VALUE: Final = 2.0**MAX_SCALE / log(2)
_FRACTION: Final = (1 << MAX_SCALE) - 1
_SMALLEST: Final = 2.0**-1022
_UNIT_BITS: Final = 64
_UNITS: Final = 2.0**_UNIT_BITS
_UNITS_OVERFLOW: Final = 2.0**900
_FORMAT: Final = 1
_ENDS: Final = Struct("<dd")  # minimum and maximum
_RUNS: Final = re.compile(rb"[^\0]+")
_MALFORMED: Final = "not the bytes of a histogram"


def bucket_index(value: float, scale: int) -> int:
    """Return the bucket of a positive, finite, normal value; a power of two is the upper end of its bucket."""
    index = floor(log(value) * _PER_VALUE)
    if not 0 < index & _FRACTION < _FRACTION:
        index = _beside_a_power_of_two(value, index)
    return index >> (MAX_SCALE - scale)


def _beside_a_power_of_two(value: float, index: int) -> int:
    """Keep the index on the value's own side of the power of two, where the logarithm rounds to the wrong one."""
    mantissa, exponent = frexp(value)
    first = (exponent - 1) << MAX_SCALE
    if mantissa == 0.5:  # noqa: PLR2004 - frexp's mantissa of a power of two
        return first - 1
    return max(first, min(index, first + _FRACTION))


class Histogram:
    """Counts, sum, extremes and quantiles of what was recorded, in at most 160 buckets.

    Not thread-safe: one thread records, as the pipeline's worker does.

    Attributes:
        scale: resolution; one more means buckets of half the width (-4 to 20).
        zero_count: records that were no positive finite number.
        offset: index of the first bucket.
        counts: records in each bucket from `offset` on; the first and the last are never zero.
        minimum: smallest positive value, infinity when there is none.
        maximum: largest value, 0 when there is none.

    """

    __slots__ = ("_shift", "_sum", "counts", "maximum", "minimum", "offset", "zero_count")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self._shift = 0
        self._sum = 0
        self.counts: list[int] = []
        self.offset = 0
        self.zero_count = 0
        self.minimum = inf
        self.maximum = 0.0

    def record(self, value: float) -> None:
        """Count one value.

        What is not a positive finite number (or is subnormal, below 2.3e-308) is counted as a zero and adds nothing to
        the sum: `count` always equals the number of calls, so that it agrees with the counter beside it, and a clock
        that was set back cannot make the sum go down.
        """
        if not _SMALLEST <= value < inf:
            self.zero_count += 1
            return
        # bucket_index, min and max are written out: each call costs a fifth of the whole.
        index = floor(log(value) * _PER_VALUE)
        if not 0 < index & _FRACTION < _FRACTION:
            index = _beside_a_power_of_two(value, index)
        slot = (index >> self._shift) - self.offset
        if 0 <= slot < len(self.counts):
            self.counts[slot] += 1
        else:
            self._add(index >> self._shift, [1])
        self._sum += floor(value * _UNITS) if value < _UNITS_OVERFLOW else floor(value) << _UNIT_BITS
        if value > self.maximum:
            self.maximum = value
        if value < self.minimum:
            self.minimum = value

    def merge(self, other: Histogram) -> None:
        """Add everything `other` has recorded; `other` stays as it is.

        Exact, commutative and associative, and an empty sketch changes nothing.
        """
        counts = list(other.counts)
        offset = other.offset
        shift = max(self._shift, other._shift)
        if shift > other._shift:
            offset, counts = _halved(offset, counts, shift - other._shift)
        self._coarsen(shift - self._shift)
        self._add(offset, counts)
        self.zero_count += other.zero_count
        self._sum += other._sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    @property
    def scale(self) -> int:
        """Resolution: buckets are `2**(2**-scale)` wide."""
        return MAX_SCALE - self._shift

    @property
    def count(self) -> int:
        """Number of records."""
        return self.zero_count + sum(self.counts)

    @property
    def sum(self) -> float:
        """Sum of the positive finite values; infinity where no float is that large."""
        try:
            return self._sum / (1 << _UNIT_BITS)
        except OverflowError:
            return inf

    @property
    def relative_error(self) -> float:
        """The farthest a quantile can be from the recorded value, as a share of it: `(base - 1) / (base + 1)`."""
        return tanh(log(2) * exp2(-self.scale) / 2)

    def quantile(self, q: float) -> float:
        """Return the value of rank `floor(q * (count - 1))` among the sorted records, not a number when there are none.

        Within `relative_error` of the recorded value: the answer is the harmonic mean of the bucket's ends, which is
        equally far from both in relative terms (as in Masson, Rim and Lee, "DDSketch", VLDB 2019), and it never leaves
        the range from minimum to maximum. Ranks among the zeros give 0.

        Raises:
            ValueError: `q` is outside 0 to 1.

        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        count = self.count
        if not count:
            return nan
        rank = floor(q * (count - 1)) - self.zero_count
        if rank < 0:
            return 0.0
        for index, here in enumerate(self.counts, self.offset):
            rank -= here
            if rank < 0:
                return self._middle(index)
        return self.maximum

    def _middle(self, index: int) -> float:
        width = exp2(-self.scale)
        above = 2.0 / (1.0 + exp2(-width))  # 2·base / (1 + base), which does not overflow in this form
        return max(self.minimum, min(exp2(index * width) * above, self.maximum))

    def _add(self, offset: int, counts: list[int]) -> None:
        """Add buckets of our own scale, coarsening until the union fits."""
        if not counts:
            return
        if not self.counts:
            self.offset, self.counts = offset, counts
            return
        low, high = min(self.offset, offset), max(self.offset + len(self.counts), offset + len(counts)) - 1
        shift = 0
        while (high >> shift) - (low >> shift) >= MAX_BUCKETS:
            shift += 1
        if shift:
            self._coarsen(shift)
            offset, counts = _halved(offset, counts, shift)
        self._widen(low >> shift, high >> shift)
        for slot, number in enumerate(counts, offset - self.offset):
            self.counts[slot] += number

    def _widen(self, low: int, high: int) -> None:
        self.counts[:0] = [0] * (self.offset - low)
        self.counts += [0] * (high + 1 - low - len(self.counts))
        self.offset = low

    def _coarsen(self, shift: int) -> None:
        if shift:
            self.offset, self.counts = _halved(self.offset, self.counts, shift)
            self._shift += shift

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} sum={self.sum:g} scale={self.scale}>"

    def to_bytes(self) -> bytes:
        """Return a compact form: about one byte a bucket plus 20. Equal sketches give equal bytes."""
        out = bytearray((_FORMAT, self._shift))
        _put(out, self.zero_count)
        if not self.counts:
            return bytes(out)
        _put(out, self._sum)
        out += _ENDS.pack(self.minimum, self.maximum)
        for number in self.counts:
            _put(out, number)
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: `data` is not the whole of one sketch, or is of a later format.

        """
        new, counts = cls._opened(data)
        new.counts = list(counts)
        return new

    @classmethod
    def merged(cls, many: Iterable[bytes]) -> Self:
        """Read and merge: what `from_bytes` and `merge` give one by one, in a fraction of the time.

        Raises:
            ValueError: one is not the bytes of a sketch.

        """
        read = [cls._opened(data) for data in many]
        new = cls()
        new.zero_count = sum(each.zero_count for each, _ in read)
        read = [(each, counts) for each, counts in read if counts]
        if not read:
            return new
        new._sum = sum(each._sum for each, _ in read)
        new.minimum = min(each.minimum for each, _ in read)
        new.maximum = max(each.maximum for each, _ in read)
        low, high = bucket_index(new.minimum, MAX_SCALE), bucket_index(new.maximum, MAX_SCALE)
        # As coarse as the coarsest, and as the range of all asks for: where merging one by one ends as well.
        shift = max(each._shift for each, _ in read)
        while (high >> shift) - (low >> shift) >= MAX_BUCKETS:
            shift += 1
        new._shift, new.offset = shift, low >> shift
        new.counts = into = [0] * ((high >> shift) - new.offset + 1)
        for each, counts in read:
            down = shift - each._shift
            first = each.offset - (new.offset << down)
            for begin, run in _filled(counts):
                for slot, number in enumerate(run, first + begin):
                    into[slot >> down] += number
        return new

    @classmethod
    def _opened(cls, data: bytes) -> tuple[Self, bytes | list[int]]:
        """Return a sketch without its counts, and these; ValueError for what no records can give."""
        if len(data) < 3 or data[0] != _FORMAT or data[1] > MAX_SCALE - MIN_SCALE:  # noqa: PLR2004 - format, scale, zeros
            raise ValueError(_MALFORMED)
        new = cls()
        new._shift = data[1]
        new.zero_count, at = _take(data, 2)
        if at == len(data):
            return new, b""
        new._sum, at = _take(data, at)
        if len(data) < at + _ENDS.size:
            raise ValueError(_MALFORMED)
        new.minimum, new.maximum = _ENDS.unpack_from(data, at)
        counts = _numbers(data[at + _ENDS.size :])
        if not (counts and counts[0] and counts[-1] and _SMALLEST <= new.minimum <= new.maximum < inf):
            raise ValueError(_MALFORMED)
        new.offset = bucket_index(new.minimum, new.scale)
        if len(counts) != bucket_index(new.maximum, new.scale) + 1 - new.offset or len(counts) > MAX_BUCKETS:
            raise ValueError(_MALFORMED)
        return new, counts


def _numbers(data: bytes) -> bytes | list[int]:
    """Return the numbers that stand in some bytes: the bytes themselves where each is one."""
    if data.isascii():
        return data
    numbers: list[int] = []
    at = 0
    while at < len(data):
        number, at = _take(data, at)
        numbers.append(number)
    return numbers


def _filled(counts: bytes | list[int]) -> Iterable[tuple[int, bytes | list[int]]]:
    """Return runs with where they begin, which hold all that is not zero: little, where there are few records."""
    if isinstance(counts, bytes):
        return [(run.start(), run[0]) for run in _RUNS.finditer(counts)]
    return ((0, counts),)


def _halved(offset: int, counts: list[int], times: int) -> tuple[int, list[int]]:
    if not counts:
        return offset, counts
    low = offset >> times
    merged = [0] * (((offset + len(counts) - 1) >> times) - low + 1)
    for index, number in enumerate(counts, offset):
        merged[(index >> times) - low] += number
    return low, merged


def _put(out: bytearray, number: int) -> None:
    """Append a natural number, seven bits a byte, the lowest first (LEB128)."""
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and where the next one starts."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return number, at
    raise ValueError(_MALFORMED)
