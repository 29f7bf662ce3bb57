"""Connection pools of SQLAlchemy's engines: what they have, and how long one waits for a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wrapt

from insitu.adapters import pools
from insitu.adapters.pools import Counts, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from insitu.adapters.statements import Database


def hook(pool: Any) -> None:
    """Measure the waits for every pool. An engine's first is not: where it leads is known from its first statement."""
    if not hasattr(pool.connect, "__wrapped__"):
        wrapt.wrap_function_wrapper(pool, "connect", _waiting)


def _waiting(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    with Wait(pool, _timed_out):
        return wrapped(*args, **kwargs)


def _timed_out(error: BaseException) -> bool:
    return type(error).__name__ == "TimeoutError" and type(error).__module__ == "sqlalchemy.exc"


def watch(pool: Any, place: Database) -> None:
    """Count the connections of a pool that leads somewhere; of one that keeps none there is nothing to count."""
    if hasattr(pool, "checkedout"):
        pools.watch(pool, pools.name_of(place.where, place.system), _counts)


def _counts(pool: Any) -> Counts:
    overflow = pool._max_overflow
    return Counts(pool.checkedout(), pool.checkedin(), pool.size() + overflow if overflow >= 0 else None)
