"""Connection pools of redis-py: where they lead, and how many of their connections are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from insitu.core import guard
from insitu.core.records import Family, Point
from insitu.signals import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_POOLS: Final = 1_000
_NO_LIMIT: Final = 2**31
"""What redis-py before 8 takes for its limit where the application names none."""

_places: Final[WeakKeyDictionary[Any, Mapping[str, Any]]] = WeakKeyDictionary()


def place(pool: Any) -> Mapping[str, Any]:
    """Return where a pool leads, as attributes of a span: `server.address`, `server.port`, `db.namespace`.

    Empty where it does not say: no pool (a cluster has one for each node), or one that asks a Sentinel. A pool that was
    seen here is counted by `collect` for as long as it lives.
    """
    if pool is None:
        return {}
    known = _places.get(pool)
    if known is None:
        known = {} if hasattr(pool, "service_name") else _read(pool.connection_kwargs)
        if len(_places) < MOST_POOLS:
            _places[pool] = known
    return known


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    namespace = {"db.namespace": str(options.get("db") or 0)}
    if options.get("path"):  # a socket in the file system
        return {"server.address": str(options["path"]), **namespace}
    host, port = str(options.get("host") or "localhost"), int(options.get("port") or 6379)
    return {"server.address": host, "server.port": port, **namespace}


def collect() -> Iterator[Family]:
    """Yield the connections of all living pools: by name and state, and the most that they may have."""
    connections: dict[tuple[str, str], int] = {}
    limits: dict[str, int] = {}
    for reference in _places.keyrefs():
        pool: Any = reference()
        counts = guard.attempt(_counts, pool)  # what is not as in redis-py's own pools is left out
        if counts is not None:
            name = _name(_places.get(pool, {}))
            for state, count in counts.items():
                connections[name, state] = connections.get((name, state), 0) + count
            if pool.max_connections < _NO_LIMIT:
                limits[name] = limits.get(name, 0) + pool.max_connections
    label = "db.client.connection.pool.name"
    yield from _family(
        "count",
        "Connections that are in use, or wait to be.",
        [
            Point({label: name, "db.client.connection.state": state}, count)
            for (name, state), count in connections.items()
        ],
    )
    yield from _family(
        "max",
        "The most connections that there may be.",
        [Point({label: name}, limit) for name, limit in limits.items()],
    )


def _counts(pool: Any) -> dict[str, int]:
    """Return what a pool has, without its lock: it may be held while a connection is made."""
    made = getattr(pool, "_connections", None)
    if made is None:
        return {"used": len(pool._in_use_connections), "idle": len(pool._available_connections)}
    idle = sum(waiting is not None for waiting in list(pool.pool.queue))  # the pool that blocks where all are in use
    return {"used": len(made) - idle, "idle": idle}


def _name(attributes: Mapping[str, Any]) -> str:
    """Return what the conventions make of a pool that has no name: `localhost:6379/0`."""
    if "server.address" not in attributes:
        return "redis"
    port = f":{attributes['server.port']}" if "server.port" in attributes else ""
    return f"{attributes['server.address']}{port}/{attributes['db.namespace']}"


def _family(name: str, text: str, points: list[Point]) -> Iterator[Family]:
    if points:
        made = Family(f"db.client.connection.{name}", "updown", points, "{connection}", text, metrics.OWN)
        made.start, made.time = metrics.registry.start, metrics.registry.wall()
        yield made
