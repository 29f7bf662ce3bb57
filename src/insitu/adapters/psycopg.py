"""psycopg 3, sync and async: a client span for each statement through a cursor."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters.drivers import Driver
from insitu.adapters.statements import Database

if TYPE_CHECKING:
    from collections.abc import Callable


def hook(module: Any) -> None:
    """Wrap the cursors of an imported psycopg, from which those of the application derive.

    In a pipeline a statement's span ends when it is queued: its answer, or its error, comes with a later one.
    """
    for name in ("Cursor.execute", "Cursor.executemany", "ServerCursor.execute"):
        many = name.endswith("many")
        wrapt.wrap_function_wrapper(module, name, functools.partial(_run, many))
        wrapt.wrap_function_wrapper(module, f"Async{name}", functools.partial(_run_async, many))


def _run(many: bool, wrapped: Callable[..., Any], cursor: Any, args: Any, kwargs: Any) -> Any:
    with PSYCOPG.begin(cursor.connection, args, kwargs, many=many):
        return wrapped(*args, **kwargs)


async def _run_async(many: bool, wrapped: Callable[..., Any], cursor: Any, args: Any, kwargs: Any) -> Any:
    with PSYCOPG.begin(cursor.connection, args, kwargs, many=many):
        return await wrapped(*args, **kwargs)


def _place(connection: Any) -> Database:
    info = connection.info
    return Database("postgresql", info.dbname, info.host, info.port)


PSYCOPG: Final = Driver("psycopg", "PsycopgInstrumentor", "postgresql", _place)
