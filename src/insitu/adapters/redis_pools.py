"""Connection pools of redis-py: where they lead, what they have, and how long one waits for a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import wrapt

from insitu.adapters import pools
from insitu.adapters.pools import MOST_POOLS, Counts, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NO_LIMIT: Final = 2**31
"""What redis-py before 8 takes for its limit where the application names none."""

_places: Final[WeakKeyDictionary[Any, Mapping[str, Any]]] = WeakKeyDictionary()


def hook(module: Any) -> None:
    """Measure the waits for the pools of an imported redis-py that block where all their connections are in use."""
    name = "BlockingConnectionPool.get_connection"
    wrapt.wrap_function_wrapper(module.connection, name, _waiting)
    wrapt.wrap_function_wrapper(module.asyncio.connection, name, _waiting_async)


def _waiting(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    with Wait(pool, _timed_out):
        return wrapped(*args, **kwargs)


async def _waiting_async(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    with Wait(pool, _timed_out):
        return await wrapped(*args, **kwargs)


def _timed_out(error: BaseException) -> bool:
    # The same exception as where there is no server, but for what it comes from: a queue's, and an event loop's.
    return type(error.__context__).__name__ in {"Empty", "TimeoutError"} and type(error).__name__ == "ConnectionError"


def place(pool: Any) -> Mapping[str, Any]:
    """Return where a pool leads, as attributes of a span: `server.address`, `server.port`, `db.namespace`.

    Empty where it does not say: no pool (a cluster has one for each node), or one that asks a Sentinel. A pool that was
    seen here is counted for as long as it lives.
    """
    if pool is None:
        return {}
    known = _places.get(pool)
    if known is None:
        known = {} if hasattr(pool, "service_name") else _read(pool.connection_kwargs)
        if len(_places) < MOST_POOLS:
            _places[pool] = known
            pools.watch(pool, pools.name_of(known, "redis"), _counts)
    return known


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    namespace = {"db.namespace": str(options.get("db") or 0)}
    if options.get("path"):  # a socket in the file system
        return {"server.address": str(options["path"]), **namespace}
    host, port = str(options.get("host") or "localhost"), int(options.get("port") or 6379)
    return {"server.address": host, "server.port": port, **namespace}


def _counts(pool: Any) -> Counts:
    """Return what a pool has, without its lock: it may be held while a connection is made."""
    limit = pool.max_connections if pool.max_connections < _NO_LIMIT else None
    made = getattr(pool, "_connections", None)
    if made is None:
        return Counts(len(pool._in_use_connections), len(pool._available_connections), limit)
    waiting = pool.pool  # of the pool that blocks where all are in use; redis-py 5 has a queue of asyncio's for it
    idle = sum(each is not None for each in list(waiting.queue if hasattr(waiting, "queue") else waiting._queue))
    return Counts(len(made) - idle, idle, limit)
