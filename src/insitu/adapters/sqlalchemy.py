"""SQLAlchemy (2.0 and later): a client span for each statement, its text without values.

Its dialects' events hand over the one call that sends a statement. Those of its connections, around more than that,
make SQLAlchemy take a way through each statement that costs it a quarter more, without anything of ours in it.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import drivers, sqlalchemy_pools, statements
from insitu.core import context, guard
from insitu.core.records import Scope
from insitu.signals import tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from insitu.signals.spans import SilentSpan, Span

SCOPE: Final = Scope("insitu.sqlalchemy")
_ADHOC: Final = "_AdhocProxiedConnection"
"""Over which SQLAlchemy asks a database who it is, once for each engine: nobody's statements."""
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}


def hook(module: Any) -> None:
    """Listen to the statements of every engine of an imported SQLAlchemy."""
    engine = importlib.import_module("sqlalchemy.engine").Engine
    for event, listener in _LISTENERS.items():
        module.event.listen(engine, event, listener)
    pool = importlib.import_module("sqlalchemy.pool").Pool
    sqlalchemy_pools.hook(pool)
    module.event.listen(pool, "connect", _connected)
    module.event.listen(pool, "checkout", _checked_out)  # one that is older than this hook


def _connected(connection: Any, record: Any) -> None:
    """Tell the hook of a driver that the statements of its connection are told here."""
    del record
    guard.call("sqlalchemy", _own, connection)


def _checked_out(connection: Any, record: Any, proxy: Any) -> None:
    del proxy
    _connected(connection, record)


def _own(connection: Any) -> None:
    driven = getattr(connection, "driver_connection", connection)  # an asynchronous one is inside of SQLAlchemy's
    drivers.lead(getattr(driven, "_conn", driven), None)  # and aiosqlite's has one of sqlite3 inside


def _traced(event: str) -> Callable[..., bool]:
    """Return a listener that does what the dialect's method of this name does, within a span."""
    many = event == "do_executemany"

    def listener(cursor: Any, statement: str, *given: Any) -> bool:
        """Send the statement and say so: SQLAlchemy does not any more. `given`: parameters, if any, and execution."""
        execution = given[-1]
        current = context.current()
        if execution is None or not tracing.provider.on or current.get(context.SUPPRESS_KEY):
            return False
        batch = len(given[0]) if many else 1
        span = guard.call("sqlalchemy", _statement, execution, statement, batch, current.get(context.SPAN_KEY))
        if span is None:
            return False
        dialect = execution.dialect
        listeners = getattr(dialect.dispatch, event)
        sent = False
        try:
            if len(listeners) == 1 or not _handled(list(listeners), listener, cursor, statement, given):
                getattr(dialect, event)(cursor, statement, *given)
            sent = True
        finally:
            if not sent:
                guard.call("sqlalchemy", statements.fail, span, sys.exception())
            span.end()
        return True

    return listener


_LISTENERS: Final = {event: _traced(event) for event in ("do_execute", "do_executemany", "do_execute_no_params")}


def _handled(listeners: list[Any], own: Any, cursor: Any, statement: str, given: tuple[Any, ...]) -> bool:
    """Ask the application's listeners that come after ours, as SQLAlchemy would; True when one has sent it."""
    return any(each(cursor, statement, *given) for each in listeners[listeners.index(own) + 1 :])


def _statement(execution: Any, statement: str, batch: int, parent: object) -> Span | SilentSpan | None:
    engine = execution.root_connection.engine
    pool = engine.pool
    try:
        place = pool._insitu_place
    except AttributeError:
        if type(execution.root_connection._dbapi_connection).__name__ == _ADHOC:
            return None
        place = pool._insitu_place = _place(engine.url, execution.dialect.name)
        sqlalchemy_pools.watch(pool, place)
    return statements.begin(statement, place, batch, parent, SCOPE)


def _place(url: Any, dialect: str) -> statements.Database:
    return statements.Database(_SYSTEMS.get(dialect, dialect), url.database or "", url.host or "", url.port)
