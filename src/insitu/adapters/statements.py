"""A client span for one statement to a database, as the conventions for databases have it: its text without values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.trace import SpanKind

from insitu.core import sql
from insitu.signals import tracing
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from insitu.core.records import Scope
    from insitu.signals.spans import SilentSpan


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


def begin(statement: str, database: Database, batch: int, parent: object, scope: Scope) -> Span | SilentSpan:
    """Begin the span of a statement.

    Args:
        statement: its text; values in it are taken out.
        database: where it goes.
        batch: how often it runs, each time with other parameters.
        parent: the current span.
        scope: of the instrumentation.

    """
    summary = sql.summary(statement)
    own: dict[str, Any] = {
        "db.system.name": database.system,
        "db.query.text": sql.sanitize(statement),
        "db.operation.name": sql.operation(statement),
        "db.query.summary": summary,
    }
    if database.namespace:
        own["db.namespace"] = database.namespace
    if database.host:
        own["server.address"] = database.host
    if database.port:
        own["server.port"] = database.port
    if batch > 1:
        own["db.operation.batch.size"] = batch
    return tracing.provider.start(Span(summary or database.system, SpanKind.CLIENT, own, scope), parent)
