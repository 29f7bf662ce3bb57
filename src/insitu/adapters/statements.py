"""A client span for one statement to a database, as the conventions for databases have it: its text without values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import SpanKind

from insitu.core import context, guard, sql
from insitu.signals import tracing
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from types import TracebackType

    from insitu.core.records import Scope
    from insitu.signals.spans import SilentSpan


_CLIENT: Final = SpanKind.CLIENT
_STATEMENTS: Final = 1_024


class Database(NamedTuple):
    """Where a statement goes; what is not known is empty.

    Attributes:
        system: `db.system.name`.
        namespace: the database's name, or its file.
        host, port: of the server.

    """

    system: str
    namespace: str = ""
    host: str = ""
    port: int | None = None

    @property
    def where(self) -> dict[str, Any]:
        """What is known of these, as attributes."""
        facts = {"db.namespace": self.namespace, "server.address": self.host, "server.port": self.port}
        return {name: value for name, value in facts.items() if value}


def begin(statement: str, database: Database, batch: int, parent: object, scope: Scope) -> Span | SilentSpan:
    """Begin the span of a statement.

    Args:
        statement: its text; values in it are taken out.
        database: where it goes.
        batch: how often it runs, each time with other parameters.
        parent: the current span.
        scope: of the instrumentation.

    """
    facts = (_remembered if len(statement) <= sql.CACHED_LENGTH else _facts)(statement, database)
    own = facts.copy()
    if batch > 1:
        own["db.operation.batch.size"] = batch
    name = facts["db.query.summary"] or database.system
    return tracing.provider.start(Span(name, _CLIENT, own, scope), parent)


def _facts(statement: str, database: Database) -> dict[str, Any]:
    facts = {
        "db.system.name": database.system,
        "db.query.text": sql.sanitize(statement),
        "db.operation.name": sql.operation(statement),
        "db.query.summary": sql.summary(statement),
    }
    return facts | database.where


_remembered: Final = functools.lru_cache(_STATEMENTS)(_facts)


class Running:
    """A statement's span, which is current while the statement runs.

    Args:
        span: begun.

    """

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | SilentSpan) -> None:
        self._span = span
        self._token = context.enter(span)

    def __enter__(self) -> None:
        """It has begun already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context.leave(self._token)
        if error is not None:
            guard.call("statement", fail, self._span, error)
        self._span.end()


def fail(span: Span | SilentSpan, error: BaseException) -> None:
    """Mark a statement's span with the exception that it ends with, and with the database's own code for it."""
    code = guard.attempt(_code, error)
    if code:
        span.set_attribute("db.response.status_code", code)
    span.fail(error)


def _code(error: BaseException | None) -> str | None:
    """Return the SQLSTATE, MySQL's number or SQLite's name of a driver's error, or of the one it is raised from."""
    if error is None:
        return None
    if type(error).__module__ == "pymysql.err" and error.args and isinstance(error.args[0], int):
        return str(error.args[0])
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if isinstance(code := getattr(error, name, None), str):
            return code
    return _code(error.__cause__)
