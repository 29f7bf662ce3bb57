"""Wall time, monotonic time and random ids: the only place that reads them."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """The time sources of this process, as plain callables so that the hot path calls C functions directly.

    Attributes:
        wall: nanoseconds since the Unix epoch; may jump when the host's clock is set.
        monotonic: nanoseconds from an arbitrary start; never goes back.
        cpu: CPU nanoseconds that the calling thread has used.

    """

    __slots__ = ("cpu", "monotonic", "wall")

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.perf_counter_ns,
        cpu: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self.cpu = cpu


SYSTEM = Clock()
process_cpu: Callable[[], int] = time.process_time_ns
"""CPU nanoseconds of the whole process: the outside measure that the ledger is held against."""

# A generator of our own: an application that seeds the module-level one (as test suites do) must not make its trace
# ids repeat.
_random = random.Random()
random_bits: Callable[[int], int] = _random.getrandbits


def new_span_id() -> int:
    """Return a random non-zero 64-bit id."""
    return random_bits(64) or 1


def new_trace_id() -> int:
    """Return a random non-zero 128-bit id."""
    return random_bits(128) or 1


def reseed() -> None:
    """Give a forked child ids of its own."""
    _random.seed()
