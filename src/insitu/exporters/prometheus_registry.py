"""What the user keeps in prometheus_client, as families of ours: how it travels between workers."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any, Final

from insitu.core import guard
from insitu.core.records import Family, Point, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector, CollectorRegistry
    from prometheus_client.samples import Sample

    from insitu.core.records import Merge

STANDARD: Final = {f"prometheus_client.{name}" for name in ("process_collector", "platform_collector", "registry")}
"""Collectors that are in the registry by nobody's choice: where ours say the same, they go without a warning."""
_MODES: Final[dict[str, Merge]] = {"sum": "sum", "livesum": "sum", "max": "max", "livemax": "max"}
"""`multiprocess_mode` of prometheus_client's gauges; by its default each process stands for itself, as by ours."""
_SCOPE: Final = Scope("prometheus_client")


def of_application() -> CollectorRegistry | None:
    """Return prometheus_client's own registry, once the application has imported it."""
    return getattr(sys.modules.get("prometheus_client"), "REGISTRY", None)


def collectors(registry: CollectorRegistry) -> list[Collector]:
    """Return a registry's collectors one by one: `registry.collect()` ends with the first of them that raises."""
    found = list(getattr(registry, "_collector_to_names", (registry,)))
    return [registry.restricted_registry(["target_info"]), *found]


def families(registry: CollectorRegistry) -> Iterator[Family]:
    """Yield what a registry holds, without what prometheus_client itself put there.

    Counters, histograms and summaries are the totals of all workers; a summary's two series are told as gauges, and
    exemplars are left out.
    """
    for collector in collectors(registry):
        if type(collector).__module__ in STANDARD:
            continue
        merge = _MODES.get(getattr(collector, "_multiprocess_mode", ""))
        for metric in guard.call(
            "exporters.prometheus.registry", lambda given=collector: list(given.collect()), default=()
        ):
            yield from guard.call("exporters.prometheus.registry", _of_metric, metric, merge, default=())


def _of_metric(metric: Metric, merge: Merge | None) -> list[Family]:
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    about: dict[str, Any] = {"help": metric.documentation, "scope": _SCOPE}
    if metric.type == "counter":
        return [Family(metric.name, "counter", _points(samples), **about)]
    if metric.type == "histogram":
        return [_histogram(metric.name, samples, about)]
    total = metric.type == "summary"
    named: dict[str, list[Sample]] = {}
    for sample in samples:
        named.setdefault(sample.name, []).append(sample)
    kind: Any = "updown" if total else "gauge"
    merge = "host" if metric.type == "info" else merge
    return [Family(name, kind, _points(each), merge=merge, **about) for name, each in named.items()]


def _points(samples: Iterable[Sample]) -> list[Point]:
    return [Point(sample.labels, sample.value) for sample in samples]


def _histogram(name: str, samples: Iterable[Sample], about: dict[str, Any]) -> Family:
    """Return a histogram with counts by bucket, which the samples have added up from the lowest."""
    found: dict[tuple[tuple[str, str], ...], tuple[list[tuple[float, float]], list[float]]] = {}
    for sample in samples:
        labels = {
            key: value for key, value in sample.labels.items() if key != "le" or not sample.name.endswith("_bucket")
        }
        buckets, total = found.setdefault(tuple(labels.items()), ([], []))
        if sample.name.endswith("_bucket"):
            buckets.append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            total.append(sample.value)
    points: list[Point] = []
    bounds: tuple[float, ...] = ()
    for key, (buckets, total) in found.items():
        buckets.sort()
        below = [0.0, *(count for _, count in buckets)]
        counts = [round(count - before) for before, count in itertools.pairwise(below)]
        bounds = tuple(bound for bound, _ in buckets[:-1])
        points.append(Point(dict(key), total[0] if total else 0.0, counts))
    return Family(name, "histogram", points, bounds=bounds, **about)
