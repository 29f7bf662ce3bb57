"""A counter and a histogram with two labels given by keyword at each call."""

from __future__ import annotations

import prometheus_client

import insitu
from benchmarks import ours, timing

CALLS = 100_000


def insitu_counter() -> timing.Round:
    """`counter.add(1, ...)`."""
    ours.start()
    orders = insitu.counter("orders", labels=("plan", "country"))

    def work(calls: int) -> None:
        for _ in range(calls):
            orders.add(1, plan="pro", country="de")

    return timing.whole(work, CALLS, ours.flush)


def insitu_histogram() -> timing.Round:
    """`histogram.record(value, ...)`."""
    ours.start()
    latency = insitu.histogram("latency", labels=("plan", "country"), unit="s")

    def work(calls: int) -> None:
        for _ in range(calls):
            latency.record(0.03, plan="pro", country="de")

    return timing.whole(work, CALLS, ours.flush)


def prometheus_counter() -> timing.Round:
    """`counter.labels(...).inc()`."""
    orders = prometheus_client.Counter("orders", "Orders.", ["plan", "country"])

    def work(calls: int) -> None:
        for _ in range(calls):
            orders.labels(plan="pro", country="de").inc()

    return timing.whole(work, CALLS)


def prometheus_histogram() -> timing.Round:
    """`histogram.labels(...).observe(value)`."""
    latency = prometheus_client.Histogram("latency", "Latency.", ["plan", "country"])

    def work(calls: int) -> None:
        for _ in range(calls):
            latency.labels(plan="pro", country="de").observe(0.03)

    return timing.whole(work, CALLS)
