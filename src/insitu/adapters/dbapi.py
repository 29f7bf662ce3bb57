"""DB-API 2.0: sqlite3 and psycopg2 by the factories that they offer, PyMySQL by its cursor.

A driver's own class is replaced by ours below it, and what the application derived from it gets ours in between. What
has no factory would need an object around the connection, which is none of the driver's any more: it is left out.
"""

from __future__ import annotations

import contextvars
import functools
import importlib
import os
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters import drivers
from insitu.adapters.drivers import Driver, is_led
from insitu.adapters.statements import Database
from insitu.core import guard
from insitu.signals.tracing import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

_CLASSES: Final = 128
_FACTORY: Final = 5  # where sqlite3.connect takes it by position


def hook_sqlite3(module: Any) -> None:
    """Give the connections of an imported sqlite3 our classes, by `connect(factory=...)` and `cursor(factory=...)`."""
    base = module.Connection
    cursors = _watching(SQLITE3, module.Cursor, _its_connection)

    def cursor(self: Any, factory: Any = module.Cursor) -> Any:
        return base.cursor(self, factory if is_led(self) else _between(factory, cursors))

    connections = _watching(SQLITE3, base, _itself, cursor=cursor)

    def connect(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        if len(args) > _FACTORY:
            args = (*args[:_FACTORY], _between(args[_FACTORY], connections), *args[_FACTORY + 1 :])
        else:
            kwargs["factory"] = _between(kwargs.get("factory", base), connections)
        connection = wrapped(*args, **kwargs)
        guard.call("sqlite3", _leads_to, connection, args[0] if args else kwargs["database"])
        return connection

    wrapt.wrap_function_wrapper(module, "connect", connect)
    module.dbapi2.connect = module.connect  # the same function, by the name that Django and SQLAlchemy use


def hook_aiosqlite(module: Any) -> None:
    """Let the statements of an imported aiosqlite run in the context of who sends them, on its thread with sqlite3."""

    def execute(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(contextvars.copy_context().run, *args, **kwargs)

    wrapt.wrap_function_wrapper(module, "Connection._execute", execute)


def hook_psycopg2(module: Any) -> None:
    """Give the connections of an imported psycopg2 our classes, by `connection_factory` and `cursor_factory`."""
    base, plain = module.extensions.connection, module.extensions.cursor
    cursors = _watching(PSYCOPG2, plain, _its_connection)

    def cursor(self: Any, name: Any = None, cursor_factory: Any = None, *more: Any, **named: Any) -> Any:
        made = cursor_factory or self.cursor_factory or plain
        return base.cursor(self, name, made if is_led(self) else _between(made, cursors), *more, **named)

    connections = _watching(PSYCOPG2, base, _itself, cursor=cursor)

    def connect(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        def call(dsn: Any = None, connection_factory: Any = None, *more: Any, **named: Any) -> Any:
            return wrapped(dsn, _between(connection_factory or base, connections), *more, **named)

        return call(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "connect", connect)


def hook_pymysql(_: Any) -> None:
    """Wrap the cursor of an imported PyMySQL, from which every `cursorclass` derives."""
    base = importlib.import_module("pymysql.cursors").Cursor
    for name in ("execute", "executemany"):
        setattr(base, name, _watched(PYMYSQL, getattr(base, name), _its_connection))


def _itself(connection: Any) -> Any:
    return connection


def _its_connection(cursor: Any) -> Any:
    return getattr(cursor, "connection", None)


def _watching(driver: Driver, base: Any, connection: Callable[[Any], Any], **more: Any) -> Any:
    """Return a class below a driver's `base` whose statements are seen.

    Args:
        driver: whose.
        base: its connection, or its cursor.
        connection: finds the connection of an instance.
        more: further methods.

    """
    names = [name for name in ("execute", "executemany", "executescript") if hasattr(base, name)]
    return _below((base,), more | {name: _watched(driver, getattr(base, name), connection) for name in names})


def _watched(driver: Driver, method: Any, connection: Callable[[Any], Any]) -> Any:
    many = method.__name__ == "executemany"

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = driver.begin(connection(self), args, kwargs, many=many)
        if begun is SILENT:
            return method(self, *args, **kwargs)
        with begun:
            return method(self, *args, **kwargs)

    return run


def _between(theirs: Any, ours: Any) -> Any:
    """Return a class as `theirs`, with `ours` above the driver's own; what is no such class stays as it is."""
    if theirs is ours.__base__:
        return ours
    if not isinstance(theirs, type) or not issubclass(theirs, ours.__base__) or issubclass(theirs, ours):
        return theirs
    return guard.call("dbapi", _mixed, theirs, ours, default=theirs)


@functools.lru_cache(_CLASSES)
def _mixed(theirs: Any, ours: Any) -> Any:
    return _below((theirs, ours), {})


def _below(bases: tuple[Any, ...], methods: dict[str, Any]) -> Any:
    """Make a class that has the name and the documentation of the first of its bases."""
    first = bases[0]
    about = {"__module__": first.__module__, "__qualname__": first.__qualname__, "__doc__": first.__doc__}
    return type(first.__name__, bases, about | methods)


def _leads_to(connection: Any, database: Any) -> None:
    file = os.fsdecode(database)
    if file.startswith("file:"):
        file = file.removeprefix("file:").partition("?")[0]  # a URI's parameters may hold a key
    drivers.lead(connection, Database("sqlite", file))


def _postgresql(connection: Any) -> Database:
    info = connection.info
    return Database("postgresql", info.dbname, info.host, info.port)


def _mysql(connection: Any) -> Database:
    return Database("mysql", os.fsdecode(connection.db or ""), connection.host or "", connection.port)


SQLITE3: Final = Driver("sqlite3", "SQLite3Instrumentor", "sqlite", lambda _: Database("sqlite"))
PSYCOPG2: Final = Driver("psycopg2", "Psycopg2Instrumentor", "postgresql", _postgresql)
PYMYSQL: Final = Driver("pymysql", "PyMySQLInstrumentor", "mysql", _mysql)
