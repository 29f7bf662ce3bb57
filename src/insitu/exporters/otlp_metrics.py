"""Metric families as OTLP's protobuf messages: values since the start, or differences between two collections.

Fields and their meaning: https://github.com/open-telemetry/opentelemetry-proto, metrics.proto. Temporality, starts and
resets: https://opentelemetry.io/docs/specs/otel/metrics/data-model/.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from insitu.core import guard
from insitu.exporters.otlp_encoding import pairs
from insitu.exporters.protobuf import DOUBLE, FIXED64, INT64_MAX, INT64_MIN, SFIXED64, clamped, identity, message, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from insitu.core.records import Exemplar, Family, Point

Temporality = Literal["cumulative", "delta"]

_DELTA, _CUMULATIVE = b"\x10\x01", b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_REMEMBERED: Final = 10
"""Collections that a series may be missing from before its last value is forgotten."""


class Metric(NamedTuple):
    """An encoded family: how many points it holds, how many could not be encoded, and a field of ScopeMetrics."""

    points: int
    lost: int
    data: bytes


class _Seen(NamedTuple):
    """What a series was worth at a collection."""

    value: float
    buckets: Sequence[int]
    time: int
    round: int


class _Window(NamedTuple):
    """What a point says, and since when (wall nanoseconds)."""

    value: float
    buckets: Sequence[int]
    start: int


class Encoder:
    """Turns families into `Metric` messages; remembers the values of the last collection where differences are wanted.

    Args:
        temporality: `delta` holds for counters and histograms; up-down counters and gauges always say what they are
            worth, as in OpenTelemetry's temporality preferences.

    """

    def __init__(self, temporality: Temporality) -> None:
        self._delta = temporality == "delta"
        self._seen: dict[tuple[str, str, bytes], _Seen] = {}
        self._round = 0

    def forget(self) -> None:
        """Start over: the next differences count from each family's own start."""
        self._seen = {}

    def begin(self) -> None:
        """Begin a collection."""
        self._round += 1
        if self._delta:
            self._seen = {key: seen for key, seen in self._seen.items() if seen.round >= self._round - _REMEMBERED}

    def metric(self, family: Family) -> Metric:
        """Encode a family. Without points there is no data."""
        encode = self._histogram_point if family.kind == "histogram" else self._number_point
        points = [guard.call("otlp.point", encode, family, point) for point in family.points]
        encoded = [point for point in points if point]
        head = text(b"\x0a", family.name) + text(b"\x12", family.help) + text(b"\x1a", family.unit)
        data = b"".join(encoded)
        if family.kind == "gauge":
            body = message(b"\x2a", data)
        else:
            data += _DELTA if self._differs(family) else _CUMULATIVE
            monotonic = _MONOTONIC if family.kind == "counter" else b""
            body = message(b"\x4a" if family.kind == "histogram" else b"\x3a", data + monotonic)
        return Metric(len(encoded), points.count(None), message(b"\x12", head + body) if encoded else b"")

    def _differs(self, family: Family) -> bool:
        return self._delta and family.kind in ("counter", "histogram")

    def _number_point(self, family: Family, point: Point) -> bytes:
        labels = pairs(b"\x3a", point.labels)
        window = self._window(family, point, labels)
        if window is None:
            return b""
        times = b"" if family.kind == "gauge" else b"\x11" + FIXED64(window.start)
        times += b"\x19" + FIXED64(clamped(family.time))
        return message(b"\x0a", times + _number(window.value) + labels)

    def _histogram_point(self, family: Family, point: Point) -> bytes:
        labels = pairs(b"\x4a", point.labels)
        window = self._window(family, point, labels)
        if window is None:
            return b""
        counts, bounds = window.buckets, family.bounds
        body = [
            b"\x11" + FIXED64(window.start) + b"\x19" + FIXED64(clamped(family.time)),
            b"\x21" + FIXED64(sum(counts)) + b"\x29" + DOUBLE(window.value),
            message(b"\x32", struct.pack(f"<{len(counts)}Q", *counts)),
            message(b"\x3a", struct.pack(f"<{len(bounds)}d", *bounds)),
            *(_exemplar(exemplar) for exemplar in point.exemplars if exemplar and exemplar.timestamp >= window.start),
            labels,
        ]
        return message(b"\x0a", b"".join(body))

    def _window(self, family: Family, point: Point, labels: bytes) -> _Window | None:
        """Return what to say of a point: None where nothing happened since the last collection."""
        start = clamped(family.start)
        whole = _Window(point.value, point.buckets, start)
        if not self._differs(family):
            return whole
        key = family.scope.name, family.name, labels
        seen = self._seen.get(key)
        self._seen[key] = _Seen(point.value, point.buckets, clamped(family.time), self._round)
        if seen is None or start > seen.time or _fell(seen, point):
            return whole
        buckets = [now - before for now, before in zip(point.buckets, seen.buckets, strict=True)]
        if point.value == seen.value and not any(buckets):
            return None
        return _Window(point.value - seen.value, buckets, seen.time)


def _fell(seen: _Seen, point: Point) -> bool:
    """Say whether a series began anew since it was seen."""
    if len(point.buckets) != len(seen.buckets):
        return True
    if not point.buckets:
        return point.value < seen.value
    return any(now < before for now, before in zip(point.buckets, seen.buckets, strict=True))


def _number(value: float) -> bytes:
    """Return a number as it is: an integer of 64 bits as one, everything else as a double."""
    if isinstance(value, int) and INT64_MIN <= value <= INT64_MAX:
        return b"\x31" + SFIXED64(value)
    return b"\x21" + DOUBLE(value)


def _exemplar(exemplar: Exemplar) -> bytes:
    ids = b"\x22\x08" + identity(exemplar.span_id, 8) + b"\x2a\x10" + identity(exemplar.trace_id, 16)
    return message(b"\x42", b"\x11" + FIXED64(clamped(exemplar.timestamp)) + b"\x19" + DOUBLE(exemplar.value) + ids)
