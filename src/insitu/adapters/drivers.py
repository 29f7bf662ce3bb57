"""Database drivers: whose statements are ours to tell, where they go, and the span of one while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from insitu.adapters import statements
from insitu.adapters.library import Library
from insitu.core import context, guard
from insitu.signals import tracing
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from insitu.adapters.statements import Database, Running
    from insitu.signals.spans import SilentSpan

_places: Final[WeakKeyDictionary[Any, Database | None]] = WeakKeyDictionary()
"""Where each connection leads that takes no attribute, as asyncpg's."""
_UNKNOWN: Final = statements.Database("")
_STATEMENT: Final = ("query", "command", "operation")
_ROWS: Final = ("params_seq", "args", "vars_list")
"""What the drivers call them, where they take them by keyword."""


def lead(connection: object, place: Database | None) -> None:
    """Take note of where a driver's connection leads.

    Args:
        connection: the driver's own; one that takes neither attributes nor weak references is none that we watch.
        place: its end; None: its owner, SQLAlchemy or Django, tells of its statements.

    """
    if not guard.attempt(_mark, connection, place, default=False):
        guard.attempt(_places.__setitem__, connection, place)


def _mark(connection: Any, place: Database | None) -> bool:
    connection._insitu_place = place
    return True


def is_led(connection: Any) -> bool:
    """Whether the owner of a connection, which takes attributes, tells of its statements."""
    return getattr(connection, "_insitu_place", _UNKNOWN) is None


def _led(connection: Any) -> Database | None:
    """Return where a connection leads, None where its owner tells of its statements."""
    try:
        place: Database | None = connection._insitu_place
    except AttributeError:
        place = guard.attempt(_places.get, connection, _UNKNOWN)
    return place


class Driver(Library):
    """One driver.

    Args:
        name: `psycopg`: of our scope, and of OpenTelemetry's module for the same.
        instrumentor: the class in OpenTelemetry's module.
        system: `db.system.name`.
        place: tells where a connection leads, of which nothing has been said; may fail.

    """

    def __init__(self, name: str, instrumentor: str, system: str, place: Callable[[Any], Database]) -> None:
        super().__init__(name, instrumentor)
        self._anywhere = statements.Database(system)
        self._place = place

    def begin(
        self, connection: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, many: bool = False
    ) -> Running | SilentSpan:
        """Begin a statement that runs in the `with` block to come.

        Args:
            connection: the driver's own; None where there is none, and the driver is about to say so.
            args: of the driver's function: the statement, and its parameters.
            kwargs: the same by their names.
            many: whether it runs once for each row of these.

        Returns:
            What nothing comes of, where the statement is somebody else's to trace.

        """
        if connection is None or (place := _led(connection)) is None or self.is_left_alone():
            return tracing.SILENT
        name = self.scope.name
        begun: Running | SilentSpan = guard.call(
            name, self._begin, connection, place, args, kwargs, many, default=tracing.SILENT
        )
        return begun

    def _begin(
        self, connection: Any, place: Database, args: Sequence[Any], kwargs: Mapping[str, Any], many: bool
    ) -> Running | SilentSpan:
        parent = context.current().get(context.SPAN_KEY)
        if isinstance(parent, Span) and parent.scope is self.scope and not parent.end_time:
            return tracing.SILENT  # what the driver itself does for a statement of its user's
        if place is _UNKNOWN:
            place = guard.attempt(self._place, connection, default=self._anywhere)
            lead(connection, place)
        text = _text(args[0] if args else _named(kwargs, _STATEMENT), connection)
        rows = args[1] if args[1:] else _named(kwargs, _ROWS)
        batch = guard.attempt(len, rows, default=1) if many else 1
        return statements.Running(statements.begin(text, place, batch, parent, self.scope))


def _named(kwargs: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((kwargs[name] for name in names if name in kwargs), None)


def _text(statement: Any, connection: Any) -> str:
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode("utf-8", "replace")
    # psycopg's and psycopg2's; one that fails here fails in the driver, which says why.
    composed = guard.attempt(lambda: statement.as_string(connection), default="")
    return composed if isinstance(composed, str) else ""
