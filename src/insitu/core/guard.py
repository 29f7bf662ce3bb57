"""The one place where an exception of ours ends: counted, logged once a minute, never raised into the host.

Everything that may fail for reasons outside this package (a user's `__str__`, callback, exporter or processor) runs
through here, so that no other module needs a broad `except`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

LOG_INTERVAL_SECONDS: Final = 60.0
_MOST_PLACES: Final = 1_000

logger = logging.getLogger("insitu")
counts: dict[str, int] = {}
"""Swallowed errors by place, for `insitu_internal_errors_total{where}`."""

_last_logged: dict[str, float] = {}
_lock = threading.RLock()
_swallowed: Callable[[BaseException], None] | None = None
_name_of_type: Final = type.__dict__["__name__"].__get__


def watch(seen: Callable[[BaseException], None] | None) -> None:
    """Let `seen` look at each swallowed error: how our tests fail on what production survives."""
    global _swallowed
    _swallowed = seen


def after_fork() -> None:
    """Begin anew in a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()
    counts.clear()


def type_name(value: object) -> str:
    """Return the name of a value's class, even where a metaclass makes it raise."""
    return _name_of_type(type(value))  # type: ignore[no-any-return]


def report(where: str, error: BaseException) -> None:
    """Count an internal error and log it at most once a minute for each place."""
    with _lock:
        if where not in counts and len(counts) >= _MOST_PLACES:
            where = "other"
        counts[where] = counts.get(where, 0) + 1
    if _swallowed is not None:
        _swallowed(error)
    warn(
        where,
        "insitu: %s failed with %s: %s (the application is not affected)",
        where,
        type_name(error),
        render(error),
    )


def warn(topic: str, message: str, *arguments: object) -> None:
    """Log a warning about a topic at most once a minute."""
    now = time.monotonic()
    with _lock:
        if now - _last_logged.get(topic, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
            return
        if len(_last_logged) >= _MOST_PLACES:
            _last_logged.clear()
        _last_logged[topic] = now
    try:
        logger.warning(message, *arguments)
    except Exception:
        return


def call(where: str, function: Callable[..., T], *arguments: Any, default: Any = None) -> T | Any:
    """Call `function` and return its result, or `default` when it raises.

    What is no `Exception` goes through: on the application's threads a `SystemExit` may be its signal handler's.
    """
    try:
        return function(*arguments)
    except Exception as error:
        report(where, error)
        return default


def each(where: str, steps: Iterable[T]) -> Iterator[T]:
    """Yield what `steps` has, until it raises; then that is reported, and this ends."""
    try:
        yield from steps
    except Exception as error:
        report(where, error)


def attempt(function: Callable[..., T], *arguments: Any, default: Any = None) -> T | Any:
    """As `call`, where failing is the host's own business: nothing is counted and nothing logged."""
    try:
        return function(*arguments)
    except Exception:
        return default


def call_in_worker(where: str, function: Callable[..., T], *arguments: Any, default: Any = None) -> T | Any:
    """As `call`, for exporters and jobs: a `SystemExit` of theirs must not end a thread of ours, nor the host.

    A Ctrl-C is the main thread's.
    """
    try:
        return function(*arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        report(where, error)
        return default


def safe(where: str, default: Any = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a public function so that it never raises into the host."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                report(where, error)
                return default  # type: ignore[no-any-return]

        return guarded

    return decorate


def render(value: object, limit: int = 8192) -> str:
    """Return `str(value)` as an exact str, cut at `limit` characters; `<unprintable T>` when it raises."""
    try:
        text = value if type(value) is str else str(value)
        if type(text) is not str:  # `__str__` may return a subclass, with methods of its own
            text = str.__str__(text)
        return text if len(text) <= limit else text[:limit]
    except Exception:
        return f"<unprintable {type_name(value)[:64]}>"
