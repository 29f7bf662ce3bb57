"""psycopg_pool, sync and async: what its pools have, who waits, and how long one waits for a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wrapt

from insitu.adapters import pools
from insitu.adapters.pools import Counts, Wait
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable


def hook(module: Any) -> None:
    """Wrap what hands out the connections of an imported psycopg_pool."""
    wrapt.wrap_function_wrapper(module, "ConnectionPool.getconn", _waiting)
    wrapt.wrap_function_wrapper(module, "AsyncConnectionPool.getconn", _waiting_async)


def _waiting(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    guard.call("psycopg_pool", _watch, pool)
    with Wait(pool, _timed_out):
        return wrapped(*args, **kwargs)


async def _waiting_async(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    guard.call("psycopg_pool", _watch, pool)
    with Wait(pool, _timed_out):
        return await wrapped(*args, **kwargs)


def _watch(pool: Any) -> None:
    pools.watch(pool, pool.name, _counts)


def _timed_out(error: BaseException) -> bool:
    return type(error).__name__ == "PoolTimeout"


def _counts(pool: Any) -> Counts:
    stats = pool.get_stats()
    idle = stats["pool_available"]
    limit = stats["pool_max"] or None  # 0 is none: a pool that keeps nothing
    return Counts(stats["pool_size"] - idle, idle, limit, stats["requests_waiting"])
