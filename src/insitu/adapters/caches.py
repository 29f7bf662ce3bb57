"""Hits and misses of caches, whichever they are."""

from __future__ import annotations

from typing import Final

from insitu.signals import metrics

_requests: Final = metrics.counter(
    "insitu.cache.requests",
    labels=("cache", "result"),
    unit="{request}",
    help="Keys that were asked for in a cache, by whether they were there.",
)


def count(cache: str, hits: int, misses: int) -> None:
    """Count the keys of one reading.

    Args:
        cache: which cache: `redis`, or an alias of Django's.
        hits: how many of its keys were there.
        misses: how many were not.

    """
    if hits:
        _requests.add(hits, cache=cache, result="hit")
    if misses:
        _requests.add(misses, cache=cache, result="miss")
