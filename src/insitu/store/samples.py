"""What every metric was worth, now and then: one row a moment, as a compressed document.

The same moment is written for three lengths, and a later one of the same interval takes its place: what is left of an
hour is its last sample. Counters are kept as totals, so that any two samples give a rate; those of a database that one
process after the other has written go on where the one before has ended (`Totals`).
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core import documents, guard
from insitu.store.rollups import LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from insitu.core.records import Family, Point

MOST_SERIES: Final = 2_000
"""Series of one sample; what is beyond them is not kept."""
MOST_SHOWN: Final = 50
"""Series of one metric, of one process, in an answer."""
_LEVEL: Final = 6
_COUNTED: Final = ("counter", "histogram")
_FIELDS: Final = 4

Kept = dict[str, list[Any]]
"""What is kept of a moment: {name: [kind, unit, help, [[labels, value...]]]}; a histogram has count and sum."""


class Sample(NamedTuple):
    """One row.

    Attributes:
        length, start: nanoseconds; of the interval that the sample stands for.
        time: wall nanoseconds of the sample itself.
        data: see `encoded`.

    """

    length: int
    start: int
    time: int
    data: bytes


def rows(kept: Kept, now: int) -> list[Sample]:
    """Return what is written of one moment."""
    data = encoded(kept)
    return [Sample(length, now // length * length, now, data) for length in LENGTHS]


def taken(families: Iterable[Family]) -> Kept:
    """Return what is kept of some metrics."""
    kept: Kept = {}
    room = MOST_SERIES
    for family in families:
        series = [_series(point) for point in family.points[:room]]
        room -= len(series)
        if family.name in kept:
            kept[family.name][3] += series
        elif series:
            kept[family.name] = [family.kind, family.unit, family.help, series]
    return kept


def encoded(kept: Kept) -> bytes:
    """Return it as compressed JSON."""
    return zlib.compress(documents.dumps(kept), _LEVEL)


def _series(point: Point) -> list[Any]:
    labels = {name: value if isinstance(value, str) else guard.render(value) for name, value in point.labels.items()}
    return [labels, sum(point.buckets), point.value] if point.buckets else [labels, point.value]


def decoded(data: bytes) -> Kept:
    """Return what was encoded; ValueError where that cannot be told."""
    try:
        kept: Kept = dict(documents.loads(zlib.decompress(data)))
    except (zlib.error, TypeError) as error:
        raise ValueError(str(error)) from error
    if not all(type(family) is list and len(family) == _FIELDS for family in kept.values()):
        raise ValueError("no families")
    return kept


class Totals:
    """What the processes that have written a database, one after the other, have counted together.

    Args:
        newest: what the last one has written last.
        told: what this process has told already, whichever database that went to.

    """

    def __init__(self, newest: Kept, told: Kept) -> None:
        self._about = {name: family[:3] for name, family in newest.items()}
        self._sums = dict(_counted(newest))
        self._own = {key: values for key, (_, values) in _counted(told)}

    def add(self, kept: Kept) -> Kept:
        """Return what this process counts now, added to what others have counted before."""
        own = dict(_counted(kept))
        for key, (labels, values) in own.items():
            before, (_, sums) = self._own.get(key), self._sums.get(key, (labels, [0] * len(values)))
            began_anew = before is None or values[0] < before[0]
            grown = values if began_anew else [now - then for now, then in zip(values, before or (), strict=True)]
            self._sums[key] = labels, [total + more for total, more in zip(sums, grown, strict=True)]
        self._own = {key: values for key, (_, values) in own.items()}
        self._about |= {name: family[:3] for name, family in kept.items()}
        whole = {name: [*family[:3], [] if family[0] in _COUNTED else family[3]] for name, family in kept.items()}
        room = MOST_SERIES - sum(len(family[3]) for family in whole.values())
        for (name, kind, _), (labels, sums) in itertools.islice(self._sums.items(), max(0, room)):
            if kind == self._about[name][0]:  # a release before may have had it as another
                whole.setdefault(name, [*self._about[name], []])[3].append([labels, *sums])
        return whole


def _counted(kept: Kept) -> Iterator[tuple[tuple[str, str, Any], tuple[dict[str, str], list[float]]]]:
    """Yield ((name, kind, key of the labels), (labels, values)) of each series that only grows."""
    for name, (kind, _, _, series) in kept.items():
        for labels, *values in series if kind in _COUNTED else ():
            if None not in values:
                yield (name, kind, _key(labels)), (labels, values)


def series_of(
    newest: list[Any], samples: Iterable[tuple[int, list[Any]]]
) -> tuple[list[tuple[dict[str, str], list[list[float]]]], int]:
    """Return (labels, points) of one metric's series, as `core.questions` shows them, and how many were left out.

    Those that are largest in the newest sample are shown.

    Args:
        newest: [kind, unit, help, series] of the last sample.
        samples: (time, the same) of one process, in order. What is no number in one is left out.

    """
    kind, _, _, now = newest
    numbers = (each for each in now if None not in each)
    largest = heapq.nlargest(MOST_SHOWN, numbers, key=lambda each: each[1])
    found: dict[Any, tuple[dict[str, str], list[list[float]]]] = {_key(each[0]): (each[0], []) for each in largest}
    others: set[Any] = set()
    for time, (_, _, _, series) in samples:
        for labels, *values in series:
            key = _key(labels)
            if key not in found:
                if len(found) == MOST_SHOWN:
                    others.add(key)
                    continue
                found[key] = labels, []
            if None not in values:
                found[key][1].append([time, *values])
    rate = kind not in ("gauge", "updown")
    return [(labels, list(_rates(totals)) if rate else totals) for labels, totals in found.values()], len(others)


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _rates(totals: list[list[float]]) -> Iterator[list[float]]:
    """Yield [time, rate] of a counter, [time, rate, mean] of a histogram; one that began anew counts from zero."""
    for before, here in itertools.pairwise(totals):
        seconds = (here[0] - before[0]) / 1e9
        gone = here[1] < before[1]
        grown = [now - (0 if gone else then) for now, then in zip(here[1:], before[1:], strict=True)]
        if seconds > 0:
            mean = [grown[1] / grown[0] if grown[0] else None] if len(grown) > 1 else []
            yield [here[0], grown[0] / seconds, *mean]  # type: ignore[list-item] # a mean of nothing is null
