"""Megabytes that insitu holds after an hour of a busy shop: 3.6 million requests on a clock that is moved by hand.

The signals are driven directly (`requests.begin` and `finish`, a counter, a log record), without a framework: it is
what they keep that is measured, and it must be done in minutes. 200 routes, 5 % of the requests fail by an exception
whose message never repeats, and labels, paths, agents and log fields take ever new values. Every request is counted;
one in ten is traced and logs a line, which are redacted and encoded for OTLP, where the sender discards them.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import fastapi  # noqa: F401 what insitu's memory is added to
import psutil
import uvicorn  # noqa: F401 as fastapi

if TYPE_CHECKING:
    from benchmarks import timing

REQUESTS = 3_600_000


def bare() -> timing.Round:
    """The process without insitu."""
    return lambda _: _megabytes()


def insitu_hour() -> timing.Round:
    """The process with insitu: at a tenth of the hour, at its end, and what it grew by between them."""
    from benchmarks.memory_hour import Shop  # the bare process must not load insitu

    def run(effort: float) -> dict[str, float]:
        shop, requests = Shop(), int(REQUESTS * effort)
        shop.serve(0, requests // 10)
        tenth = _megabytes()
        shop.serve(requests // 10, requests)
        end = _megabytes()
        return {"tenth": tenth, "end": end, "growth": end - tenth}

    return run


def _megabytes() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6
