"""Django's ORM, and whatever else goes through Django's connections: a client span for each statement."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import drivers, statements
from insitu.core import context, guard
from insitu.core.records import Scope
from insitu.signals.tracing import provider

if TYPE_CHECKING:
    from collections.abc import Callable

SCOPE: Final = Scope("insitu.django")
_SYSTEMS: Final = {"oracle": "oracle.db", "microsoft": "microsoft.sql_server"}


def hook(module: Any) -> None:
    """Watch every connection that is made from now on.

    Args:
        module: `django.db.backends.signals`.

    """
    module.connection_created.connect(_created, dispatch_uid="insitu")


def _created(connection: Any, **_: object) -> None:
    wrappers = connection.execute_wrappers
    if not any(getattr(each, "func", None) is _execute for each in wrappers):
        # In front: a wrapper that the application adds for a while is taken away from the end.
        wrappers.insert(0, partial(_execute, guard.call("django.database", _database, connection)))
    drivers.lead(connection.connection, None)  # its statements are told here, not by the hook of their driver


def _database(connection: Any) -> statements.Database:
    settings = connection.settings_dict
    port = str(settings.get("PORT") or "")
    return statements.Database(
        _SYSTEMS.get(connection.vendor, connection.vendor),
        str(settings.get("NAME") or ""),
        str(settings.get("HOST") or ""),
        int(port) if port.isdecimal() else None,
    )


def _execute(
    database: statements.Database | None,
    execute: Callable[..., Any],
    statement: Any,
    parameters: Any,
    many: bool,
    about: Any,
) -> Any:
    current = context.current()
    if database is None or not provider.on or current.get(context.SUPPRESS_KEY):
        return execute(statement, parameters, many, about)
    batch = guard.attempt(len, parameters, default=1) if many else 1
    parent = current.get(context.SPAN_KEY)
    span = guard.call("django.statement", statements.begin, str(statement), database, batch, parent, SCOPE)
    if span is None:
        return execute(statement, parameters, many, about)
    with statements.Running(span):
        return execute(statement, parameters, many, about)
