"""One round of a contender: CPU time of the whole process, background work included, in microseconds an operation."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[int], object]
    """Does so many operations."""
    Round = Callable[[float], "float | dict[str, float]"]
    """Runs one round at an effort (1.0 is a full one, 0.02 a quick one), and returns one figure, or several by name."""


def settled() -> None:
    """Nothing is left to do in the background."""


def scaled(operations: int, effort: float) -> int:
    """Return how many operations a round of this effort has."""
    return max(10, int(operations * effort))


def whole(work: Work, operations: int, settle: Callable[[], object] = settled) -> Round:
    """Return a round that measures the process: `work`, and `settle`, which waits for what runs in the background."""
    return lambda effort: _both(work, scaled(operations, effort), settle)["whole"]


def caller_and_whole(work: Work, operations: int, settle: Callable[[], object] = settled) -> Round:
    """Return a round that measures the process (`whole`), and of that the calling thread during `work` (`caller`)."""
    return lambda effort: _both(work, scaled(operations, effort), settle)


def _both(work: Work, operations: int, settle: Callable[[], object]) -> dict[str, float]:
    gc.collect()
    process, thread = time.process_time_ns(), time.thread_time_ns()
    work(operations)
    thread = time.thread_time_ns() - thread
    settle()
    process = time.process_time_ns() - process
    return {"caller": thread / operations / 1000, "whole": process / operations / 1000}
