"""asyncpg: a client span for each statement of a connection, a prepared statement or a cursor.

Its own `add_query_logger` tells when a statement has ended, of those of a connection alone: not of prepared statements,
which are what SQLAlchemy sends, nor of cursors. So methods are wrapped.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters.drivers import Driver
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


def _place(connection: Any) -> Database:
    host, port = connection._addr if isinstance(connection._addr, tuple) else (connection._addr, None)
    return Database("postgresql", connection._params.database or "", host, port)


ASYNCPG: Final = Driver("asyncpg", "AsyncPGInstrumentor", "postgresql", _place)
