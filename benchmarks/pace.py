"""How fast this machine is just now: milliseconds of CPU for a fixed piece of plain Python.

Budgets in milliseconds are for a machine as fast as the one that they were written on. Where others use the machine at
the same time, or it is a slower one, the gate gives as much more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks import timing

NOMINAL: Final = 20.0
"""What it takes on two quiet cores of the machine that the published table is from."""
_STEPS: Final = 40_000
_TIMES: Final = 5


def plain() -> timing.Round:
    """Calls, dictionaries, texts and lists, as any Python has them."""
    return lambda _: min(_milliseconds() for _ in range(_TIMES))


def _milliseconds() -> float:
    began = time.process_time_ns()
    _work()
    return (time.process_time_ns() - began) / 1e6


def _work() -> int:
    seen: dict[str, list[int]] = {}
    for number in range(_STEPS):
        seen.setdefault(f"key-{number % 997}", []).append(_mixed(number))
    return sum(len(each) for each in seen.values())


def _mixed(number: int) -> int:
    return number * 31 + 7 ^ number >> 3
