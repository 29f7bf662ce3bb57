"""SQLAlchemy (2.0 and later): a client span for each statement, its text without values."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import drivers, statements
from insitu.core import context, guard
from insitu.core.records import Scope
from insitu.signals import tracing

if TYPE_CHECKING:
    from insitu.signals.spans import SilentSpan, Span

SCOPE: Final = Scope("insitu.sqlalchemy")
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}


def hook(module: Any) -> None:
    """Listen to the statements of every engine of an imported SQLAlchemy."""
    engine = importlib.import_module("sqlalchemy.engine").Engine
    module.event.listen(engine, "before_cursor_execute", _before)
    module.event.listen(engine, "after_cursor_execute", _after)
    module.event.listen(engine, "handle_error", _failed)
    pool = importlib.import_module("sqlalchemy.pool").Pool
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


def _before(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> None:
    del cursor
    current = context.current()
    if execution is not None and tracing.provider.on and not current.get(context.SUPPRESS_KEY):
        batch = len(parameters) if many else 1
        parent = current.get(context.SPAN_KEY)
        execution._insitu_span = guard.call("sqlalchemy", _statement, connection, statement, batch, parent)


def _statement(connection: Any, statement: str, batch: int, parent: object) -> Span | SilentSpan:
    engine = connection.engine
    try:
        place = engine._insitu_place
    except AttributeError:
        place = engine._insitu_place = _place(engine.url, connection.dialect.name)
    return statements.begin(statement, place, batch, parent, SCOPE)


def _place(url: Any, dialect: str) -> statements.Database:
    return statements.Database(_SYSTEMS.get(dialect, dialect), url.database or "", url.host or "", url.port)


def _after(connection: Any, cursor: Any, statement: str, parameters: Any, execution: Any, many: bool) -> None:
    del connection, cursor, statement, parameters, many
    span = getattr(execution, "_insitu_span", None)
    if span is not None:
        span.end()


def _failed(failure: Any) -> None:
    span = getattr(failure.execution_context, "_insitu_span", None)
    if span is not None:
        guard.call("sqlalchemy", statements.fail, span, failure.original_exception)
        span.end()
