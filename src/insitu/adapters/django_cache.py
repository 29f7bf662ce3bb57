"""Django's caches: hits and misses by alias, whatever the backend, and no spans: what a backend sends has its own."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakSet

import wrapt

from insitu.adapters import caches
from insitu.core import context, guard

if TYPE_CHECKING:
    from collections.abc import Callable


class _Setting:
    """A running `get_or_set`: its first reading of the key counts, a second one only gets what it has just set."""

    __slots__ = ("key", "read")

    def __init__(self, key: object) -> None:
        self.key = key
        self.read = False


_inside: Final[ContextVar[_Setting | bool]] = ContextVar("insitu_inside_cache", default=False)
"""True inside of a call that reads: what a cache asks itself is not counted again."""

_watched: Final[WeakSet[type]] = WeakSet()


def hook(module: Any) -> None:
    """Count what is asked of the caches of an imported `django.core.cache`."""
    wrapt.wrap_function_wrapper(module, "CacheHandler.create_connection", _created)
    for alias in vars(module.caches).get("settings", ()):  # read already, so there may be caches: this thread's
        made = getattr(module.caches._connections, alias, None)
        if made is not None:
            _watch(made, alias)


def _created(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    cache = wrapped(*args, **kwargs)
    guard.call("django.cache", _watch, cache, args[0] if args else kwargs.get("alias"))
    return cache


def _watch(cache: Any, alias: str) -> None:
    """Tell a cache its alias, and wrap its class, once: each thread has a cache of its own, and each async request."""
    cache._insitu_alias = alias
    kind = type(cache)
    if kind not in _watched:
        _watched.add(kind)
        for name, wrapper in _WRAPPERS.items():
            if hasattr(kind, name):
                wrapt.wrap_function_wrapper(kind, name, wrapper)


class Reading:
    """One call that reads, counted where it is the application's own.

    Args:
        cache: what is asked.
        key: the one that is asked for; None where there are many.

    """

    __slots__ = ("_alias", "_token")

    def __init__(self, cache: Any, key: object = None) -> None:
        # One that the application has made past `caches` has no alias.
        self._alias = getattr(cache, "_insitu_alias", None) if _counts(key) else None

    def __enter__(self) -> Self:
        self._token = _inside.set(True)
        return self

    def __exit__(self, *_: object) -> None:
        _inside.reset(self._token)

    def found(self, hits: int, keys: int) -> None:
        """Count `hits` of so many `keys`."""
        if self._alias is not None:
            caches.count(self._alias, hits, max(keys - hits, 0))


def _counts(key: object) -> bool:
    inside = _inside.get()
    if isinstance(inside, _Setting) and inside.key is key:
        first, inside.read = not inside.read, True
        return first
    return inside is not True and not context.current().get(context.SUPPRESS_KEY)


def _first(args: Any, kwargs: Any) -> object:
    return args[0] if args else kwargs.get("key")


def _is_there(value: object, args: Any, kwargs: Any) -> int:
    """Return 1, or 0 for the default: a stored value that is the default looks like none to the application, too."""
    return int(value is not (args[1] if len(args) > 1 else kwargs.get("default")))


def _get(wrapped: Callable[..., Any], cache: Any, args: Any, kwargs: Any) -> Any:
    with Reading(cache, _first(args, kwargs)) as reading:
        value = wrapped(*args, **kwargs)
        reading.found(_is_there(value, args, kwargs), 1)
        return value


async def _aget(wrapped: Callable[..., Any], cache: Any, args: Any, kwargs: Any) -> Any:
    with Reading(cache, _first(args, kwargs)) as reading:
        value = await wrapped(*args, **kwargs)
        reading.found(_is_there(value, args, kwargs), 1)
        return value


def _sized(args: Any, kwargs: Any) -> tuple[Any, Any, int]:
    """Return the arguments of `get_many` and the number of its keys; what can be read only once becomes a list."""
    keys = args[0] if args else kwargs.get("keys", ())
    if not hasattr(keys, "__len__"):
        keys = list(keys)
        args, kwargs = ((keys, *args[1:]), kwargs) if args else (args, {**kwargs, "keys": keys})
    return args, kwargs, len(keys)


def _get_many(wrapped: Callable[..., Any], cache: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs, keys = _sized(args, kwargs)
    with Reading(cache) as reading:
        values = wrapped(*args, **kwargs)
        guard.call("django.cache", lambda: reading.found(len(values), keys))
        return values


async def _aget_many(wrapped: Callable[..., Any], cache: Any, args: Any, kwargs: Any) -> Any:
    args, kwargs, keys = _sized(args, kwargs)
    with Reading(cache) as reading:
        values = await wrapped(*args, **kwargs)
        guard.call("django.cache", lambda: reading.found(len(values), keys))
        return values


def _setting(key: object) -> _Setting | bool:
    inside = _inside.get()
    goes_on = inside.key is key if isinstance(inside, _Setting) else inside
    return inside if goes_on else _Setting(key)


def _get_or_set(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    token = _inside.set(_setting(_first(args, kwargs)))
    try:
        return wrapped(*args, **kwargs)
    finally:
        _inside.reset(token)


async def _aget_or_set(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    token = _inside.set(_setting(_first(args, kwargs)))
    try:
        return await wrapped(*args, **kwargs)
    finally:
        _inside.reset(token)


_WRAPPERS: Final = {
    "get": _get,
    "get_many": _get_many,
    "get_or_set": _get_or_set,
    "aget": _aget,
    "aget_many": _aget_many,
    "aget_or_set": _aget_or_set,
}
