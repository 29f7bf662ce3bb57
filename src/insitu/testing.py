"""The public kit for tests: a clock that the test owns, a sink that keeps what was recorded, insitu with both.

with insitu.testing.recording() as recorded:
    client.get("/items/3")
    assert recorded.span("GET /items/{id}").attributes["http.response.status_code"] == 200
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu import config, runtime
from insitu.core import guard
from insitu.core.clock import Clock
from insitu.core.records import ErrorRecord, LocalTrace, LogRecord, SpanRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from insitu.core.records import Family, Point, Record

_EPOCH_NANOSECONDS = 1_700_000_000_000_000_000


class FakeClock(Clock):
    """A clock that stands until `advance` or `set_back` moves it. `tick` nanoseconds pass at each reading (0: none)."""

    __slots__ = ("_now", "_shift", "_tick")

    def __init__(self, tick: int = 0) -> None:
        self._now = 0
        self._shift = _EPOCH_NANOSECONDS
        self._tick = tick
        super().__init__(wall=lambda: self._read() + self._shift, monotonic=self._read, cpu=lambda: self._now)

    def _read(self) -> int:
        self._now += self._tick
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * 1e9)

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, as an administrator or NTP does; monotonic time goes on."""
        self._shift -= round(seconds * 1e9)


class MemorySink:
    """Keeps every record that reaches it."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def accept(self, records: Sequence[Record]) -> None:
        """Take some records."""
        self.records.extend(records)


class Recorded:
    """What was recorded so far, redacted as it would be exported. Each look drains the queue first."""

    def __init__(self, started: runtime.Runtime, sink: MemorySink, clock: Clock) -> None:
        self.runtime = started
        self.clock = clock
        self._sink = sink

    @property
    def records(self) -> list[Record]:
        """All records, in the order of their arrival."""
        self.runtime.pipeline.drain(30.0)
        return self._sink.records

    @property
    def traces(self) -> list[LocalTrace]:
        """All local traces, or parts of them."""
        return [record for record in self.records if isinstance(record, LocalTrace)]

    @property
    def spans(self) -> list[SpanRecord]:
        """All spans, in the order of their end."""
        return [span for trace in self.traces for span in trace.spans]

    @property
    def logs(self) -> list[LogRecord]:
        """All log records."""
        return [record for record in self.records if isinstance(record, LogRecord)]

    @property
    def errors(self) -> list[ErrorRecord]:
        """All errors, those inside of traces included."""
        inside = [error for trace in self.traces for error in (trace.errors or {}).values()]
        return inside + [record for record in self.records if isinstance(record, ErrorRecord)]

    def span(self, name: str) -> Any:
        """Return the one span of this name; AssertionError with the names there are when it is not exactly one."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are named {name!r}; there are {[span.name for span in self.spans]}"
        return found[0]

    def family(self, name: str) -> Family:
        """Return the metric of this name; AssertionError with the names there are when it has no series."""
        self.runtime.pipeline.drain(30.0)
        families = {family.name: family for family in self.runtime.collect()}
        assert name in families, f"no metric {name!r}; there are {sorted(families)}"
        return families[name]

    def point(self, name: str, labels: Mapping[str, Any] | None = None) -> Point:
        """Return the one series of a metric whose labels contain `labels`."""
        wanted = (labels or {}).items()
        found = [point for point in self.family(name).points if wanted <= point.labels.items()]
        assert len(found) == 1, f"{len(found)} series of {name} have {labels}"
        return found[0]


@contextmanager
def recording(
    *,
    clock: Clock | None = None,
    threads: bool = False,
    strict: bool = True,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[Recorded]:
    """Run insitu for a block and keep what it records; whatever ran before is shut down first.

    Args:
        clock: time; the real one by default.
        threads: whether insitu's own threads run; without them the work is done when the test looks.
        strict: raise at the end what insitu swallowed in the block: a test fails on what production survives.
        environ: stands for the environment; empty by default.
        options: as for `insitu.init`. No exporter is used unless one is named, and no library is patched unless
            `libraries` says so.

    """
    swallowed: list[BaseException] = []
    runtime.shutdown(timeout=1.0)
    given = {"exporters": (), "libraries": (), "service": "test", "store": "none", **options}
    started = runtime.Runtime(
        config.read(given, environ or {}, Path(os.devnull)), environ or {}, clock or Clock(), threads=threads
    )
    sink = MemorySink()
    started.pipeline.sinks.append(sink)
    runtime.adopt(started)
    runtime.reset_counts()
    guard.counts.clear()
    guard.watch(swallowed.append)
    try:
        yield Recorded(started, sink, started.clock)
    finally:
        runtime.shutdown(timeout=1.0)
        guard.watch(None)
    if strict and swallowed:
        raise AssertionError(f"insitu swallowed {swallowed!r}") from swallowed[0]
