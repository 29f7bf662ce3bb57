"""asyncpg: a client span for each statement of a connection, a prepared statement or a cursor.

Its own `add_query_logger` tells when a statement has ended, of those of a connection alone: not of prepared statements,
which are what SQLAlchemy sends, nor of cursors. So methods are wrapped.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters import pools
from insitu.adapters.drivers import Driver
from insitu.adapters.pools import Counts, Wait
from insitu.adapters.statements import Database
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable

_MANY: Final = ("executemany", "fetchmany")


def hook(module: Any) -> None:
    """Wrap an imported asyncpg. A pool's connections go through the same methods."""
    for name in ("execute", "fetch", "fetchval", "fetchrow", *_MANY):
        _wrap(module.connection.Connection, name, _run)
    for name in ("fetch", "fetchval", "fetchrow", *_MANY):
        _wrap(module.prepared_stmt.PreparedStatement, name, _run_prepared)
    for name in ("_bind", "_bind_exec"):  # what opens a cursor: the rows to come belong to the same statement
        _wrap(module.cursor.BaseCursor, name, _run_prepared)
    _wrap(module.pool.Pool, "_acquire", _acquire)


def _wrap(owner: Any, name: str, run: Callable[..., Any]) -> None:
    if hasattr(owner, name):
        wrapt.wrap_function_wrapper(owner, name, functools.partial(run, name in _MANY))


async def _run(many: bool, wrapped: Callable[..., Any], connection: Any, args: Any, kwargs: Any) -> Any:
    with ASYNCPG.begin(connection, args, kwargs, many=many):
        return await wrapped(*args, **kwargs)


async def _run_prepared(many: bool, wrapped: Callable[..., Any], prepared: Any, args: Any, kwargs: Any) -> Any:
    connection, statement = guard.attempt(lambda: (prepared._connection, prepared._query), default=(None, ""))
    with ASYNCPG.begin(connection, (statement, *args), kwargs, many=many):
        return await wrapped(*args, **kwargs)


async def _acquire(_: bool, wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    """Measure the wait for a connection of a pool, which takes no weak reference: its queue does."""
    queue = getattr(pool, "_queue", None)
    if queue is None:  # not opened yet: asyncpg says so
        return await wrapped(*args, **kwargs)
    with Wait(queue, _timed_out):
        connection = await wrapped(*args, **kwargs)
    guard.call("asyncpg", _watch, queue, connection)
    return connection


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError)


def _watch(queue: Any, connection: Any) -> None:
    place = _place(connection._con)
    pools.watch(queue, pools.name_of(place.where, place.system), _counts)


def _counts(queue: Any) -> Counts:
    idle = sum(holder.is_connected() for holder in list(queue._queue))
    return Counts(queue.maxsize - queue.qsize(), idle, queue.maxsize, len(queue._getters))


def _place(connection: Any) -> Database:
    host, port = connection._addr if isinstance(connection._addr, tuple) else (connection._addr, None)
    return Database("postgresql", connection._params.database or "", host, port)


ASYNCPG: Final = Driver("asyncpg", "AsyncPGInstrumentor", "postgresql", _place)
