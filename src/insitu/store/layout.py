"""What the numbers of a slot mean: an append-only list of metrics, of their series, and of their exemplars.

One JSON array a line: `["m", name, kind, unit, help, scope, bounds, merge]`, `["s", metric, labels]`,
`["x", series, bucket]`, where a metric and a series are called by their number. A line stands before any value that
it describes, so a reader that knows the first so many bytes can read every value written until then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core import documents
from insitu.core.records import LAST, OVERFLOW, SERIES, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from insitu.core.records import Family, Merge, MetricKind

EXEMPLAR_CELLS: Final = 9
"""Its value, then its time, its trace id and its span id in pieces of 32 bits, which a float64 holds exactly."""
STAMP_CELLS: Final = 2
"""When a gauge was set, where the last one counts: two pieces of 32 bits."""


class Metric(NamedTuple):
    """What all series of a family have in common: two workers' families are one where all of it is the same."""

    name: str
    kind: MetricKind
    unit: str
    help: str
    scope: Scope
    bounds: tuple[float, ...]
    merge: Merge

    @classmethod
    def of(cls, family: Family) -> Metric:
        """Return what a family is."""
        bounds = tuple(map(float, family.bounds))
        return cls(family.name, family.kind, family.unit, family.help, family.scope, bounds, family.merging)

    @property
    def cells(self) -> int:
        """Numbers of one series, without exemplars: a histogram's sum stands behind its buckets."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1 + STAMP_CELLS * (self.merge == LAST)


@dataclass(slots=True)
class Series:
    """Where the numbers of one series stand.

    Attributes:
        number: of the series in its layout.
        metric, labels: whose they are.
        at: of its first cell.
        exemplars: first cell by bucket.
        key: its labels in order.

    """

    number: int
    metric: Metric
    labels: Mapping[str, Any]
    at: int
    exemplars: dict[int, int] = field(default_factory=dict)
    key: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        self.key = tuple(sorted(self.labels.items()))


class Layout:
    """All series of one slot, in the order of their cells.

    Attributes:
        series: them.
        cells: how many numbers there are.
        length: bytes of the list so far.
        unwritten: lines that are not in the file yet.

    """

    def __init__(self, data: bytes = b"") -> None:
        self._metrics: dict[Metric, int] = {}
        self._listed: list[Metric] = []
        self._sets: dict[Metric, int] = {}
        self._known: dict[tuple[int, tuple[tuple[str, Any], ...]], Series] = {}
        self.series: list[Series] = []
        self.cells = self.length = 0
        self.unwritten = b""
        self.read(data)

    def read(self, data: bytes) -> None:
        """Take further lines in; ValueError where one is none of ours."""
        for line in data.splitlines():
            self._take(documents.loads(line))
        self.length += len(data)

    def _take(self, line: list[Any]) -> None:
        try:
            match line:
                case ["m", name, kind, unit, text, [scope, version, url, attributes], bounds, merge]:
                    own = Scope(scope, version, url, tuple((key, value) for key, value in attributes))
                    self._add_metric(Metric(name, kind, unit, text, own, tuple(bounds), merge))
                case ["s", metric, labels]:
                    self._add_series(self._listed[metric], labels)
                case ["x", series, bucket]:
                    self._add_exemplar(self.series[series], bucket)
                case _:
                    raise ValueError("no line of a layout")
        except (TypeError, IndexError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def _add_metric(self, metric: Metric) -> int:
        number = self._metrics[metric] = len(self._listed)
        self._listed.append(metric)
        return number

    def _add_series(self, metric: Metric, labels: Mapping[str, Any]) -> Series:
        made = Series(len(self.series), metric, labels, self.cells)
        self.series.append(made)
        self._known[self._metrics[metric], made.key] = made
        self._sets[metric] = self._sets.get(metric, 0) + 1
        self.cells += metric.cells
        return made

    def _add_exemplar(self, series: Series, bucket: int) -> int:
        at = series.exemplars[bucket] = self.cells
        self.cells += EXEMPLAR_CELLS
        return at

    # --- for who writes ---

    def find(self, metric: Metric, labels: Mapping[str, Any]) -> Series:
        """Return where a series stands, at the end where it is new.

        One slot has had many workers, each with label sets of its own: beyond the cap they share the overflow series.
        """
        number = self._metrics.get(metric)
        if number is None:
            number = self._add_metric(metric)
            scope = metric.scope
            told = [scope.name, scope.version, scope.schema_url, scope.attributes]
            self._note(["m", *metric[:4], told, metric.bounds, metric.merge])
        plain = documents.loads(documents.dumps(labels))  # as it will be read
        found = self._known.get((number, tuple(sorted(plain.items()))))
        if found is None and self._sets.get(metric, 0) >= SERIES and labels is not OVERFLOW:
            return self.find(metric, OVERFLOW)
        if found is None:
            found = self._add_series(metric, plain)
            self._note(["s", number, plain])
        return found

    def exemplar(self, series: Series, bucket: int) -> int:
        """Return the first cell of a bucket's exemplar."""
        at = series.exemplars.get(bucket)
        if at is None:
            at = self._add_exemplar(series, bucket)
            self._note(["x", series.number, bucket])
        return at

    def _note(self, line: list[Any]) -> None:
        self.unwritten += documents.dumps(line) + b"\n"


def halves(number: int, words: int) -> list[float]:
    """Return a natural number as so many pieces of 32 bits, the highest first."""
    return [float(number >> 32 * word & 0xFFFFFFFF) for word in reversed(range(words))]


def whole(pieces: list[float]) -> int:
    """Return the number that `halves` was given."""
    number = 0
    for piece in pieces:
        number = number << 32 | int(piece)
    return number
