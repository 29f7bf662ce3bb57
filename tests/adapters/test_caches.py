"""What is counted of a cache."""

from insitu.adapters import caches
from insitu.testing import recording


def test_hits_and_misses_are_counted_by_cache():
    with recording() as recorded:
        caches.count("redis", 2, 1)
        caches.count("redis", 1, 0)
        caches.count("pages", 0, 3)
        caches.count("empty", 0, 0)
        counted = {
            tuple(point.labels.values()): point.value for point in recorded.family("insitu.cache.requests").points
        }
    assert counted == {("redis", "hit"): 3, ("redis", "miss"): 1, ("pages", "miss"): 3}
