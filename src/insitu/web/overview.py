"""How the service is now, from the metrics of all its workers: what somebody wants to know before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from insitu.core.records import Family, Point

_ABOUT: Final = {
    "service.name": "service",
    "service.version": "version",
    "deployment.environment.name": "environment",
    "host.name": "host",
    "process.pid": "pid",
    "process.runtime.version": "python",
}
_IDLE: Final = ("idle", "iowait")
SATURATION: Final[dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]]] = {
    "CPU of the process": ("process.cpu.utilization", lambda _: True),
    "CPU of the host": ("system.cpu.utilization", lambda labels: labels.get("cpu.mode") not in _IDLE),
    "memory of the process": ("process.memory.usage", lambda _: True),
    "memory of the host": ("system.memory.utilization", lambda labels: labels.get("system.memory.state") == "used"),
    "lag of the event loop, mean": ("insitu.event_loop.lag", lambda _: True),
    "calls waiting for a thread": ("insitu.thread_pool.waiting", lambda _: True),
    "threads": ("process.thread.count", lambda _: True),
    "file descriptors": ("process.unix.file_descriptor.count", lambda _: True),
    "disk": ("system.filesystem.utilization", lambda _: True),
}
"""What runs full, in the order in which it is shown: (metric, which of its series are added up)."""
_REQUESTS: Final = "http.server.request.duration"
_CPU, _UPTIME, _DROPPED = "insitu.cpu", "process.uptime", "insitu.dropped_records"
_SEEN, _KEPT = "insitu.seen_traces", "insitu.kept_traces"
_USED, _LIMIT, _STEP = "insitu.budget.utilization", "insitu.budget.limit", "insitu.budget.step"
_OTHERS: Final = (_REQUESTS, _CPU, _UPTIME, _DROPPED, _SEEN, _KEPT, _USED, _LIMIT, _STEP)
WANTED: Final = frozenset((*(name for name, _ in SATURATION.values()), *_OTHERS))


def overview(about: Mapping[str, Any], now: int, live: Iterable[Family] | None) -> dict[str, Any]:
    """Return the document of `/monitoring/overview`.

    As {now, service, version, ..., live}; `live` is None where no application runs, else {uptime, requests, cost,
    budget, dropped, kept, saturation}. Times are seconds but for `now`, wall nanoseconds; everything is counted since
    the service began. Of several workers it is the oldest one's uptime, and the budget of the one that records least.
    """
    said = {short: about[name] for name, short in _ABOUT.items() if name in about}
    return {"now": now, **said, "live": _live(live) if live is not None else None}


def _live(families: Iterable[Family]) -> dict[str, Any]:
    found: dict[str, list[Family]] = {}
    for family in families:
        if family.name in WANTED:
            found.setdefault(family.name, []).append(family)

    def points(name: str) -> list[Point]:
        return [point for family in found.get(name, ()) for point in family.points]

    seen, kept = ({point.labels["reason"]: point.value for point in points(name)} for name in (_SEEN, _KEPT))
    return {
        "uptime": max((point.value for point in points(_UPTIME)), default=0.0),
        "requests": sum(sum(point.buckets) for point in points(_REQUESTS)),
        "cost": {point.labels["part"]: point.value for point in points(_CPU)},
        "budget": _budget(points),
        "dropped": [{**point.labels, "count": point.value} for point in points(_DROPPED) if point.value],
        "kept": [{"reason": reason, "seen": count, "kept": kept.get(reason, 0)} for reason, count in seen.items()],
        "saturation": [
            {
                "title": title,
                "name": name,
                "unit": found[name][0].unit,
                "value": sum(_level(point) for point in points(name) if counts(point.labels)),
            }
            for title, (name, counts) in SATURATION.items()
            if name in found
        ],
    }


def _budget(points: Callable[[str], list[Point]]) -> dict[str, Any] | None:
    """Return {used, limit, step, detail}; None where there is no limit."""
    used, limit, step = points(_USED), points(_LIMIT), points(_STEP)
    if not (used and limit and step):
        return None
    least = max(step, key=lambda point: point.value)
    most = max(point.value for point in used)
    return {"used": most, "limit": limit[0].value, "step": least.value, "detail": least.labels["detail"]}


def _level(point: Point) -> float:
    """Return a value; of a histogram the mean."""
    return point.value / max(1, sum(point.buckets)) if point.buckets else point.value
