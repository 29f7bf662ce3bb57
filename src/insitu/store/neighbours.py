"""The services that share a store: what each of them answers and calls, and which of the kept calls met whom."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from insitu.core.questions import CALLS, Called, Facts, Period, RemoteSpan
from insitu.store import blocks, rollups
from insitu.store.database import TRACES
from insitu.store.folder import services
from insitu.store.reader import HOT, REST, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from insitu.store.sources import Source

_TRACES: Final = 300
"""About how many of each service's newest kept traces are looked through for calls that met."""
_SECONDS: Final = 0.05
_SAMPLES: Final = 10
"""About how many samples of a period are compared: a process that began anew between two costs what was in between."""
_FIRST: Final = 'SELECT min("start") FROM sample WHERE length = ? AND "start" >= ?'
_LAST: Final = 'SELECT time, data FROM sample WHERE length = ? AND time < ? ORDER BY "start" DESC LIMIT 1'
_Key = tuple[tuple[str, str], ...]
_Totals = dict[_Key, list[float]]


class Neighbours:
    """Who is in the store.

    Args:
        name: of this service.
        reader: of this service.
        store: the folder with one folder for each service; None where nothing is on disk.

    """

    def __init__(self, name: str, reader: Reader, store: Path | None) -> None:
        self._own = {name: reader}
        self._store = store
        self._readers: dict[str, Reader] = {}

    def facts(self, since: int, until: int) -> dict[str, Facts]:
        """Return what each service did in a period, by its name."""
        return {name: _facts(reader, since, until) for name, reader in self._all().items()}

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return a trace with the spans and log records of every service, each with its `service`."""
        reason = ""
        whole: dict[str, list[dict[str, Any]]] = {"spans": [], "logs": []}
        for name, reader in self._all().items():
            found = reader.trace(trace_id)
            if found is not None:
                reason = found["reason"] or reason
                for part, kept in whole.items():
                    kept += [{**each, "service": name} for each in found[part]]
        if not whole["spans"]:
            return None
        known = {span["span_id"] for span in whole["spans"]}
        whole["spans"].sort(key=lambda span: (span["parent_id"] in known, span["start"]))
        whole["logs"].sort(key=lambda record: record["timestamp"])
        return {"trace_id": trace_id, "reason": reason, **whole}

    def _all(self) -> dict[str, Reader]:
        if self._store is None:
            return self._own
        own = {reader._folder: name for name, reader in self._own.items()}
        for folder in services(self._store):
            path = self._store / folder
            if path not in own and folder not in self._readers:
                self._readers[folder] = Reader(path, lambda: None)
        return {**self._readers, **self._own}


def _facts(reader: Reader, since: int, until: int) -> Facts:
    called = {name: _called(reader, name, since, until) for name in CALLS}
    calls, moments = {name: found for name, (found, _) in called.items()}, [each for _, each in called.values() if each]
    routes = reader.routes(since, until)
    begun = routes["first"] if routes["series"] else max(since, min([least for least, _ in moments], default=since))
    newest = max([most for _, most in moments], default=0)
    return Facts(routes, calls, list(_remote(reader, Period(since, until, _TRACES))), begun, newest)


def _called(reader: Reader, name: str, since: int, until: int) -> tuple[list[Called], tuple[int, int] | None]:
    """Return the calls of a period, and from when to when they are counted."""
    length = rollups.length_for(until - since)
    step = length * max(1, round((until - since) / length / _SAMPLES))
    found: _Totals = {}
    moments: list[int] = []
    with reader._sources() as sources:
        for source in sources:
            samples = list(_sums(reader._samples_of(name, source, (length, since - step, until, step))))
            if samples:
                moments += [source.read(_FIRST, (length, since - step))[0][0], samples[-1][0]]
                if samples[0][0] > since:
                    samples = [(since, _before(reader, source, name, since - step)), *samples]
            for key, count, seconds in _growth(samples, since):
                totals = found.setdefault(key, [0.0, 0.0])
                totals[0] += count
                totals[1] += seconds
    calls = [Called(dict(key), count, seconds) for key, (count, seconds) in found.items() if count > 0]
    return calls, (min(moments), max(moments)) if moments else None


def _sums(samples: Iterable[tuple[int, list[Any]]]) -> Iterator[tuple[int, _Totals]]:
    for time, family in samples:
        yield time, {_key(labels): _totals(*rest) for labels, *rest in family[3]}


def _before(reader: Reader, source: Source, name: str, until: int) -> _Totals:
    """Return what was counted when nobody wrote the database: a process goes on where another has ended long ago."""
    for length in rollups.LENGTHS:
        for _, sums in _sums(reader._samples_of(name, source, (length, until), _LAST)):
            return sums
    return {}


def _growth(samples: list[tuple[int, _Totals]], since: int) -> Iterator[tuple[_Key, float, float]]:
    """Yield (labels, count, seconds) between two samples; what grew over `since` counts in proportion.

    A series that was not there before, and one that fell because its process began anew, grew from nothing.
    """
    for (then, before), (now, after) in itertools.pairwise(samples):
        share = min(1.0, (now - since) / (now - then)) if now > then else 1.0
        for key, (count, seconds) in after.items():
            start = before.get(key, [0.0, 0.0])
            if count < start[0]:
                start = [0.0, 0.0]
            yield key, share * (count - start[0]), share * (seconds - start[1])


def _totals(count: float, seconds: float = 0.0) -> list[float]:
    """Return what a series has; a counter has no seconds."""
    return [count, seconds]


def _key(labels: dict[str, str]) -> _Key:
    return tuple(sorted(labels.items()))


def _remote(reader: Reader, period: Period) -> Iterable[RemoteSpan]:
    def look(source: Source, number: int) -> Iterator[dict[str, Any]]:
        hot, rest = source.one(HOT, number), source.one(REST, number)
        lines = blocks.lines_of(rest) if rest else []
        for at, entry in enumerate(blocks.trace_entries(hot) if lines else ()):
            if period.since <= entry.start <= period.until:
                yield {"start": entry.start, "spans": list(_ends(blocks.spans_of(lines[at])))}

    search: Callable[..., Any] = reader._search
    for trace in search(TRACES, period, _SECONDS, look).found:
        yield from trace["spans"]


def _ends(spans: Iterable[dict[str, Any]]) -> Iterator[RemoteSpan]:
    """Yield the spans of a trace where another process may be at the other end."""
    for span in spans:
        given = span["attributes"]
        if span["kind"] == "client" and "server.address" in given:
            yield RemoteSpan(span["span_id"], "", f"{given['server.address']}:{given.get('server.port', '')}")
        elif span["kind"] == "server" and span["parent_id"]:
            yield RemoteSpan(span["span_id"], span["parent_id"], "")
