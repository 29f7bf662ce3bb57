"""Milliseconds of CPU that one scrape takes: GET /metrics through the application, on the page 2,000 series more."""

from __future__ import annotations

import os

from fastapi import FastAPI

import insitu
from benchmarks import ours, timing
from benchmarks.application import Driver
from insitu import runtime
from insitu.store.cells import Cells
from insitu.store.slots import Slot

SERIES = 2_000
SCRAPES = 10
WORKERS = 4


def counters() -> timing.Round:
    """2,000 samples of one counter."""
    ours.start()
    orders = insitu.counter("orders", labels=("shop", "plan"))
    for number in range(SERIES):
        orders.add(1, shop=f"shop-{number // 4}", plan=f"plan-{number % 4}")
    return _scrapes(SERIES)


def histograms() -> timing.Round:
    """2,000 label sets of one histogram, each with 14 buckets, their total, its sum and its count."""
    ours.start()
    latency = insitu.histogram("latency", labels=("shop", "plan"), unit="s")
    for number in range(SERIES * 20):
        latency.record(number % 97 / 10, shop=f"shop-{number % SERIES // 4}", plan=f"plan-{number % 4}")
    return _scrapes(SERIES * 17)


def workers() -> timing.Round:
    """The same of four workers, of which this one answers."""
    os.environ["INSITU_INSTANCE"] = "bench"
    measured = histograms()
    shared = runtime.current().workers
    shared.publish_at_once()
    own = list(runtime.current().collect())
    others = [Slot(shared.folder / f"{number:03d}.val") for number in range(1, WORKERS)]
    for slot in others:
        slot.write(Cells().filled(slot, own), 1)

    def round_(effort: float) -> float | dict[str, float]:
        assert len(others) == WORKERS - 1  # they live as long as somebody holds them
        return measured(effort)

    return round_


def publish() -> timing.Round:
    """What a worker among others does each half second, with what every process counts."""
    return _published()


def publish_histograms() -> timing.Round:
    """The same with 2,000 label sets of a histogram."""
    latency = insitu.histogram("latency", labels=("shop", "plan"), unit="s")
    measured = _published()
    for number in range(SERIES * 20):
        latency.record(number % 97 / 10, shop=f"shop-{number % SERIES // 4}", plan=f"plan-{number % 4}")
    return measured


def _published() -> timing.Round:
    os.environ["INSITU_INSTANCE"] = "bench"
    ours.start()
    measured = timing.whole(lambda times: [runtime.current().workers.publish_at_once() for _ in range(times)], SCRAPES)
    return lambda effort: measured(effort) / 1000  # type: ignore[operator]


def _scrapes(lines: int) -> timing.Round:
    driver = Driver(insitu.instrument(FastAPI()), path="/metrics")
    driver.run(1)
    found = driver.body.count(b"\n")
    if driver.status != 200 or found < lines:
        raise RuntimeError(f"/metrics answered {driver.status} with {found} lines instead of {lines}")
    measured = timing.whole(driver.run, SCRAPES)
    return lambda effort: measured(effort) / 1000  # type: ignore[operator]
