"""Pools of connections: how many are in use, how many there may be, and how long one waits for one.

Names are those of OpenTelemetry's conventions for database clients, `db.client.connection.*`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from insitu.core import guard
from insitu.core.clock import SYSTEM
from insitu.core.records import Family, Point
from insitu.signals import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

MOST_POOLS: Final = 1_000
_NAME: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class Counts(NamedTuple):
    """What a pool has just now.

    Attributes:
        used, idle: connections by their state.
        limit: the most that there may be, None where there is no such.
        pending: who waits for one, None where the pool does not know.

    """

    used: int
    idle: int
    limit: int | None = None
    pending: int | None = None


_watched: Final[WeakKeyDictionary[Any, tuple[str, Callable[[Any], Counts]]]] = WeakKeyDictionary()

_waited: Final = metrics.registry.instrument(
    "db.client.connection.wait_time",
    "histogram",
    "s",
    "How long it took to get a connection from its pool.",
    bounds=_BOUNDS,
)
_timeouts: Final = metrics.registry.instrument(
    "db.client.connection.timeouts", "counter", "{timeout}", "How often no connection became free in time."
)


def watch(pool: object, name: str, count: Callable[[Any], Counts]) -> None:
    """Count a pool for as long as it lives, however often it is seen.

    Args:
        pool: any library's.
        name: `db.client.connection.pool.name`; those of several pools of one name are added up.
        count: what it has; one that fails is left out.

    """
    if pool not in _watched and len(_watched) < MOST_POOLS:
        _watched[pool] = (name, count)
        with metrics.registry.lock:
            if collect not in metrics.registry.callbacks:
                metrics.registry.callbacks.append(collect)


def name_of(where: Mapping[str, Any], otherwise: str) -> str:
    """Return what the conventions make of a pool that has no name, `localhost:6379/0`.

    Args:
        where: it leads, as a span's attributes: `server.address`, `server.port`, `db.namespace`.
        otherwise: the name of one that leads nowhere in particular.

    """
    if "server.address" not in where:
        return str(where.get("db.namespace", otherwise))
    port = f":{where['server.port']}" if "server.port" in where else ""
    space = f"/{where['db.namespace']}" if "db.namespace" in where else ""
    return f"{where['server.address']}{port}{space}"


class Wait:
    """Measures the block that gets a connection from a pool.

    Args:
        pool: one that is not watched is not measured.
        timed_out: whether an exception says that no connection became free in time.

    """

    __slots__ = ("_began", "_pool", "_timed_out")

    def __init__(self, pool: object, timed_out: Callable[[BaseException], bool]) -> None:
        self._pool = pool
        self._timed_out = timed_out
        self._began = SYSTEM.monotonic()

    def __enter__(self) -> None:
        """It has begun already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        guard.call("pools", self._measure, error)

    def _measure(self, error: BaseException | None) -> None:
        known = _watched.get(self._pool)
        if known is None or not metrics.registry.on:
            return
        if error is not None and self._timed_out(error):
            _timeouts.record({_NAME: known[0]}, 1)
        if error is None:
            _waited.record_all((_NAME,), (((known[0],), (SYSTEM.monotonic() - self._began) / 1e9),))


def collect() -> Iterator[Family]:
    """Yield the connections of all living pools by name and state, the most they may have, and who waits for one."""
    connections: Counter[tuple[str, str]] = Counter()
    limits: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    for name, counts in _read():
        connections[name, "used"] += counts.used
        connections[name, "idle"] += counts.idle
        if counts.limit is not None:
            limits[name] += counts.limit
        if counts.pending is not None:
            pending[name] += counts.pending
    states = [Point({_NAME: name, _STATE: state}, count) for (name, state), count in connections.items()]
    yield from _family("count", "{connection}", "Connections that are in use, or wait to be.", states)
    yield from _family("max", "{connection}", "The most connections that there may be.", _points(limits))
    yield from _family("pending_requests", "{request}", "Who waits for a connection.", _points(pending))


def _read() -> Iterable[tuple[str, Counts]]:
    for reference in _watched.keyrefs():
        pool = reference()
        known = _watched.get(pool) if pool is not None else None
        counts = guard.attempt(known[1], pool) if known is not None else None
        if known is not None and counts is not None:
            yield known[0], counts


def _points(counted: Mapping[str, int]) -> list[Point]:
    return [Point({_NAME: name}, count) for name, count in counted.items()]


def _family(name: str, unit: str, text: str, points: list[Point]) -> Iterator[Family]:
    if points:
        made = Family(f"db.client.connection.{name}", "updown", points, unit, text, metrics.OWN)
        made.start, made.time = metrics.registry.start, metrics.registry.wall()
        yield made
