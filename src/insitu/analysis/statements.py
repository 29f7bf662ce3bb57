"""Statements to databases, looked at when their trace has ended: how long they take, which are slow, which repeat.

A statement that stands many times in one trace is an N+1: one for the list, and one more for each thing in it. It is
told on the trace's root, where a search finds it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.trace import SpanKind

from insitu.core.questions import DATABASE_CALLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from insitu.core.records import Attributes, LocalTrace, MetricKind, SpanRecord

    _Found = tuple[SpanRecord, Attributes]
    """The span of a statement, and its attributes."""

REPEATED_FROM: Final = 10
"""How often one statement stands in a trace that is told of it."""
SLOW: Final = "insitu.slow"
"""Attribute of the span of a statement that took long."""
REPEATED: Final = "insitu.repeated.statement"
"""Attribute of the root: the summary of the statement that repeats most."""
TIMES: Final = "insitu.repeated.times"
"""Attribute of the root: how often it does."""
_CLIENT: Final = SpanKind.CLIENT
_TEXT: Final = "db.query.text"
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""As OpenTelemetry's conventions for database metrics have them."""
_LABELS: Final = ("db.system.name", "db.namespace", "db.query.summary", "server.address", "server.port", "error.type")


class Instrument(Protocol):
    """Counts."""

    def record(self, labels: Mapping[str, Any], amount: float) -> None:
        """Add one measurement, or so much, to the series of these labels."""

    def record_all(self, names: Sequence[str], measured: Iterable[tuple[tuple[Any, ...], float]]) -> None:
        """Do so for many, each with its labels' values; one that is None is no label."""


class Instruments(Protocol):
    """Where instruments come from."""

    def instrument(
        self, name: str, kind: MetricKind, unit: str = "", description: str = "", *, bounds: Sequence[float] = ()
    ) -> Instrument:
        """Return the instrument of this name."""


class Statements:
    """Looks at the statements of every recorded trace. Used by one thread, the worker.

    Args:
        slow: nanoseconds from which a statement is slow.
        instruments: what is found is counted there.

    """

    def __init__(self, slow: int, instruments: Instruments) -> None:
        self._slow = slow
        make = instruments.instrument
        text = "Duration of statements to databases."
        self._took = make(DATABASE_CALLS, "histogram", "s", text, bounds=_BOUNDS)
        text = "Statements to databases that were slow, and traces in which one of them repeats."
        self._told = make("insitu.statement.findings", "counter", "{finding}", text)

    def look(self, trace: LocalTrace) -> None:
        """Measure the statements of a trace, and mark what is found."""
        found = [(span, own) for span in trace.spans if (own := span.own) and _TEXT in own and span.kind is _CLIENT]
        if found:
            self._measure(found)
        if len(found) >= REPEATED_FROM:
            self._find_repeated(trace, found)

    def _measure(self, found: Sequence[_Found]) -> None:
        self._took.record_all(_LABELS, [(tuple(map(own.get, _LABELS)), span.duration / 1e9) for span, own in found])
        for span, own in found:
            if span.duration >= self._slow:
                span.own = {**own, SLOW: True}
                self._told.record({"kind": "slow", "db.query.summary": span.name}, 1)

    def _find_repeated(self, trace: LocalTrace, found: Sequence[_Found]) -> None:
        alike = Counter([own[_TEXT] for _, own in found])
        text, times = alike.most_common(1)[0]
        root = trace.spans[-1]
        if times < REPEATED_FROM or not root.local_root:
            return
        summary = next(span.name for span, own in found if own[_TEXT] == text)
        root.own = {**(root.own or {}), REPEATED: summary, TIMES: times}
        self._told.record({"kind": "repeated", "db.query.summary": summary}, 1)
