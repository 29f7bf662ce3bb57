"""Questions to the store: the newest answers first, within a time that a page can wait.

All processes' files are read together. A question stops at its limit or its deadline, and then its answer has a cursor
where the next one goes on; what has no answer at all still tells how much was looked through.
"""

from __future__ import annotations

import heapq
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from insitu.core import documents, guard
from insitu.core.histogram import Histogram
from insitu.core.questions import FOREVER, Answer, LogSearch, Period, TraceSearch
from insitu.core.records import RouteTotals
from insitu.core.threads import Slices
from insitu.store import blocks, rollups, samples
from insitu.store.copies import Copies
from insitu.store.database import INTERVALS, LOGS, NEWEST_SAMPLE, TRACES
from insitu.store.folder import databases
from insitu.store.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from insitu.store.blocks import LogEntry, TraceEntry
    from insitu.store.database import Database
    from insitu.store.rollups import Row
    from insitu.store.sources import Source

DEADLINE_SECONDS: Final = 0.15
_POINTS: Final = 120
"""About so many samples make up a metric's series."""
_BLOCKS: Final = 'SELECT "end", "start", id FROM block WHERE kind = ? AND "end" <= ? AND "end" >= ? ORDER BY "end" DESC'
HOT: Final = "SELECT hot FROM block WHERE id = ?"
_IDS: Final = "SELECT ids FROM block WHERE id = ?"
REST: Final = "SELECT rest FROM block WHERE id = ?"
_OF_A_TRACE: Final = "SELECT id, ids FROM block WHERE kind = ? AND instr(ids, ?)"
_SAMPLES: Final = """
SELECT max(time), data FROM sample WHERE length = ? AND time >= ? AND time <= ? GROUP BY "start" / ? ORDER BY time
"""
_COUNTS: Final = """
SELECT "start", sum(count), sum(errors) FROM rollup WHERE length = ? AND "start" >= ? AND "start" < ? GROUP BY "start"
"""


class Reader:
    """Answers questions. Used by one thread at a time, the reader, which works in slices.

    Args:
        folder: of the service; None where the store is in memory.
        own: returns the database that this process writes, or None.
        monotonic: seconds.
        slices: when to make way for others.

    """

    def __init__(
        self,
        folder: Path | None,
        own: Callable[[], Database | None],
        monotonic: Callable[[], float] = time.monotonic,
        slices: Slices | None = None,
    ) -> None:
        self._folder = folder
        self._own = own
        self._monotonic = monotonic
        self._slices = slices or Slices()
        self._copies = Copies()

    def traces(self, search: TraceSearch, period: Period, seconds: float = DEADLINE_SECONDS) -> Answer:
        """Return traces as {trace_id, name, outcome, start, duration, spans, failed, reason}."""

        def look(source: Source, number: int) -> Iterator[dict[str, Any]]:
            hot = source.one(HOT, number)
            if search.name and documents.dumps(search.name)[1:-1] not in hot:
                return
            fits = [
                (at, entry)
                for at, entry in enumerate(blocks.trace_entries(hot) if hot else ())
                if _fits(search, entry) and period.since <= entry.start <= period.until
            ]
            if fits and (search.key or search.value):
                fits = _with_attribute(fits, blocks.lines_of(source.one(REST, number)), search)
            if fits:
                ids = source.one(_IDS, number)
                yield from (_trace(ids, at, entry) for at, entry in fits)

        return self._search(TRACES, period, seconds, look)

    def logs(self, search: LogSearch, period: Period, seconds: float = DEADLINE_SECONDS) -> Answer:
        """Return records as {timestamp, severity, level, logger, body, attributes, trace_id, span_id, exception}."""
        wanted = bytes.fromhex(search.trace_id) if search.trace_id else b""
        text = search.text.casefold()

        def look(source: Source, number: int) -> Iterator[dict[str, Any]]:
            ids = source.one(_IDS, number)
            mine = set(blocks.places(ids, wanted)) if wanted else None
            if mine is not None and not mine:
                return
            hot = source.one(HOT, number)
            fits = [
                (at, entry)
                for at, entry in enumerate(blocks.log_entries(hot) if hot else ())
                if (mine is None or at in mine)
                and _may_be(search, entry)
                and period.since <= entry.timestamp <= period.until
            ]
            if not fits:
                return
            kept = blocks.logs_of(source.one(REST, number))
            for at, entry in fits:
                shown = _log(ids, at, entry, kept[at])
                if not text or text in _searched(shown):
                    yield shown

        return self._search(LOGS, period, seconds, look)

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """Return a trace whole, from every process here, with its log records; None where nothing is known of it."""
        wanted = bytes.fromhex(trace_id)
        spans: list[dict[str, Any]] = []
        reason = ""
        with self._sources() as sources:
            for source in sources:
                for number, ids in source.read(_OF_A_TRACE, (TRACES, wanted)):
                    for at in blocks.places(bytes(ids), wanted):
                        here, why = guard.call("store.read", _opened, source, number, at, default=([], reason))
                        spans += here
                        reason = why
        if not spans:
            return None
        known = {span["span_id"] for span in spans}
        spans.sort(key=lambda span: (span["start"], span["parent_id"] in known))
        around = Period(limit=1_000)
        records = self.logs(LogSearch(trace_id=trace_id), around, seconds=1.0).found
        return {"trace_id": trace_id, "reason": reason, "spans": spans, "logs": records[::-1]}

    def routes(self, since: int, until: int, name: str = "") -> dict[str, Any]:
        """Return rate, errors and durations of a period: as a series for all routes together, and for each in all."""
        if name:
            return self._route(since, until, name)
        length = rollups.length_for(until - since)
        series: dict[int, list[int]] = {}
        found: list[Row] = []
        with self._sources() as sources:
            for source in sources:
                found += rollups.cover(partial(_interval_rows, source), since, until)
                for start, count, errors in _counts(source, length, since, until):
                    here = series.setdefault(start // length * length, [0, 0])
                    here[0] += count
                    here[1] += errors
        drawn: list[list[float]] = [[start, *counts] for start, counts in sorted(series.items())]
        return _red(since, until, length, drawn, self._added(found))

    def _route(self, since: int, until: int, name: str) -> dict[str, Any]:
        """Return the same of one route, with its durations over time."""
        length = rollups.length_for(until - since)
        at: dict[int, list[Row]] = {}
        found: list[Row] = []
        with self._sources() as sources:
            for source in sources:
                found += rollups.cover(partial(_interval_rows, source, name=name), since, until)
                for row in _finest(source, length, since, until, name):
                    at.setdefault(row[0] // length * length, []).append(row)
        drawn: list[list[float]] = []
        for start, rows in sorted(at.items()):
            drawn += [[start, *_numbers(totals)] for totals in self._added(rows).values()]
        return _red(since, until, length, drawn, self._added(found))

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of the newest sample of each process."""
        found: dict[str, dict[str, Any]] = {}
        with self._sources() as sources:
            for source in sources:
                for _, kept in _samples(source, NEWEST_SAMPLE, ()):
                    for name, (kind, unit, text, series) in kept.items():
                        about = {"name": name, "kind": kind, "unit": unit, "help": text, "series": 0}
                        found.setdefault(name, about)["series"] += len(series)
        return [found[name] for name in sorted(found)]

    def metric(self, name: str, since: int, until: int) -> dict[str, Any] | None:
        """Return a metric's series; those of each process stand apart where there are several."""
        length = rollups.length_for(until - since)
        step = length * max(1, round((until - since) / length / _POINTS))
        shown: list[dict[str, Any]] = []
        left_out = 0
        about: list[Any] = []
        with self._sources() as sources:
            for number, source in enumerate(sources):
                # One sample more in front: a rate needs two.
                values = (length, since - step, until, step)
                kept = list(self._samples_of(name, source, values))
                if not kept:
                    continue
                about = kept[-1][1]
                apart = {"process": str(number)} if len(sources) > 1 else {}
                series, others = samples.series_of(about, self._slices.over(kept))
                left_out += others
                for labels, points in series:
                    inside = [point for point in points if point[0] >= since]
                    if inside:
                        shown.append({"labels": {**labels, **apart}, "points": inside})
        if not about and not any(each["name"] == name for each in self.metrics()):
            return None
        kind, unit, text = about[:3] if about else ("", "", "")
        told = {"name": name, "kind": kind, "unit": unit, "help": text, "since": since, "until": until}
        return {**told, "interval": step, "series": shown, "left_out": left_out}

    # --- how ---

    def _samples_of(
        self, name: str, source: Source, values: Sequence[object], statement: str = _SAMPLES
    ) -> Iterator[tuple[int, list[Any]]]:
        for moment, found in self._slices.over(_samples(source, statement, values)):
            if name in found:
                yield moment, found[name]

    def _added(self, rows: list[Row]) -> dict[str, RouteTotals]:
        return dict(self._slices.over(rollups.added(rows)))

    def _search(
        self, kind: str, period: Period, seconds: float, look: Callable[[Source, int], Iterator[dict[str, Any]]]
    ) -> Answer:
        """Look through the blocks of all files, the newest first."""
        answer = Answer()
        until = self._monotonic() + seconds
        newest = period.cursor if period.cursor is not None else FOREVER
        with self._sources() as sources:
            listed = [(source, source.read(_BLOCKS, (kind, newest, period.since))) for source in sources]
            answer.blocks = sum(len(rows) for _, rows in listed)
            queue = heapq.merge(
                *([(-end, -start, number, source) for end, start, number in rows] for source, rows in listed),
                key=lambda each: each[0],
            )
            for end, start, number, source in self._slices.over(queue):
                # One block is looked through in any case, so that the next question goes on.
                if answer.looked and (len(answer.found) >= period.limit or self._monotonic() > until):
                    answer.cursor = -end
                    break
                answer.looked += 1
                if -start <= period.until:
                    answer.found += guard.call("store.read", lambda s=source, n=number: list(look(s, n)), default=())
        answer.found.sort(key=lambda found: found.get("start") or found.get("timestamp") or 0, reverse=True)
        return answer

    def _sources(self) -> Sources:
        own = self._own()
        if self._folder is None:
            return Sources([], own, self._copies)
        return Sources(databases(self._folder), None, self._copies)


def _opened(source: Source, number: int, at: int) -> tuple[list[dict[str, Any]], str]:
    """Return the spans of one entry, and why it is kept."""
    entries = list(blocks.trace_entries(source.one(HOT, number)))
    return blocks.spans_of(blocks.lines_of(source.one(REST, number))[at]), entries[at].reason


def _samples(source: Source, statement: str, values: Sequence[object]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    for moment, data in source.read(statement, values):
        kept = guard.call("store.read", samples.decoded, data)
        if kept is not None:
            yield moment, kept


def _interval_rows(source: Source, length: int, since: int, until: int, *, name: str = "") -> list[Row]:
    if since >= until:
        return []
    if name:
        return source.read(f"{INTERVALS} AND name = ?", (length, since, until, name))
    return source.read(INTERVALS, (length, since, until))


def _counts(source: Source, length: int, since: int, until: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, count, errors)."""
    return _down(lambda each, begin: source.read(_COUNTS, (each, begin, until)), length, since)


def _finest(source: Source, length: int, since: int, until: int, name: str) -> Iterator[Row]:
    return _down(lambda each, begin: _interval_rows(source, each, begin, until, name=name), length, since)


def _down(read: Callable[[int, int], list[Any]], length: int, since: int) -> Iterator[Any]:
    """Yield rows of a length; where a coarse interval is not over yet, those that it will be made of."""
    begin = since // length * length
    for each in sorted((each for each in rollups.LENGTHS if each <= length), reverse=True):
        rows = read(each, begin)
        yield from rows
        begin = max([begin, *(row[0] + each for row in rows)])


def _numbers(totals: RouteTotals) -> list[float]:
    durations = totals.durations
    return [totals.count, totals.errors, *(durations.quantile(share) for share in (0.5, 0.95, 0.99))]


def _red(
    since: int, until: int, length: int, series: list[list[float]], totals: dict[str, RouteTotals]
) -> dict[str, Any]:
    """Return rate, errors and durations as they are shown; a rate is that of the time since the first request."""
    first = max(since, series[0][0]) if series else since
    seconds = (until - first) / 1e9
    routes = [_route(name, each, seconds) for name, each in totals.items()]
    whole = RouteTotals(0, 0, Histogram())
    for each in totals.values():
        whole.add(each)
    shown = {"since": since, "first": first, "until": until, "interval": length, "series": series}
    return {**shown, "total": _route("", whole, seconds), "routes": sorted(routes, key=lambda route: -route["count"])}


def _route(name: str, totals: RouteTotals, seconds: float) -> dict[str, Any]:
    durations = totals.durations
    return {
        "name": name,
        "count": totals.count,
        "errors": totals.errors,
        "rate": totals.count / seconds,
        "p50": durations.quantile(0.5),
        "p95": durations.quantile(0.95),
        "p99": durations.quantile(0.99),
        "longest": durations.maximum,
    }


def _fits(search: TraceSearch, entry: TraceEntry) -> bool:
    """Whether a trace may be meant, as far as its entry tells."""
    return (
        entry.whole
        and search.name in ("", entry.name)
        and entry.outcome.startswith(search.outcome)
        and search.least <= entry.duration <= search.most
        and search.failed in (None, entry.failed)
        and search.reason in ("", entry.reason)
    )


def _may_be(search: LogSearch, entry: LogEntry) -> bool:
    """Whether a record may be meant, as far as its entry tells."""
    return entry.severity >= search.severity and search.logger in ("", entry.logger)


def _with_attribute(
    fits: list[tuple[int, TraceEntry]], lines: list[bytes], search: TraceSearch
) -> list[tuple[int, TraceEntry]]:
    """Keep those in which a span has the attribute; a substring of the bytes tells most of the others apart."""
    key, value = documents.dumps(search.key)[1:-1], documents.dumps(search.value)[1:-1]
    near = [(at, entry) for at, entry in fits if key in lines[at] and value in lines[at]]
    return [(at, entry) for at, entry in near if any(_has(span, search) for span in blocks.spans_of(lines[at]))]


def _has(span: dict[str, Any], search: TraceSearch) -> bool:
    attributes = span["attributes"]
    values = [attributes[search.key]] if search.key in attributes else () if search.key else attributes.values()
    return any(not search.value or _as_text(value) == search.value for value in values)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else documents.dumps(value).decode()


def _trace(ids: bytes, at: int, entry: TraceEntry) -> dict[str, Any]:
    shown = entry._asdict()
    del shown["whole"]
    return {"trace_id": _id(ids, at), **shown}


def _log(ids: bytes, at: int, entry: LogEntry, kept: Any) -> dict[str, Any]:
    trace_id = _id(ids, at)
    return {**entry._asdict(), **blocks.log_of(kept), "trace_id": trace_id if int(trace_id, 16) else None}


def _searched(shown: dict[str, Any]) -> str:
    told = [_as_text(shown["body"]), shown["exception"] or "", *map(_as_text, shown["attributes"].values())]
    return "\n".join(told).casefold()


def _id(ids: bytes, at: int) -> str:
    return ids[at * blocks.ID_BYTES : (at + 1) * blocks.ID_BYTES].hex()
