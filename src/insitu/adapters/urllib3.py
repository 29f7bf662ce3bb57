"""urllib3, and requests, which sends through it: a client span for each request to a pool of connections."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import wrapt

from insitu.adapters.http_calls import PORTS, Call
from insitu.adapters.library import Library
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_URLLIB3: Final = Library("urllib3", "URLLib3Instrumentor")
_AGAIN: Final = 4
"""As many arguments by position, up to the headers, and one with the body's: so does only a pool that calls itself."""


def hook(module: Any) -> None:
    """Wrap the pools of an imported urllib3.

    A redirect that requests or a PoolManager follows is a request of its own. One that the pool follows itself, and
    each of its retries, belongs to the request that was asked for.
    """
    wrapt.wrap_function_wrapper(module, "HTTPConnectionPool.urlopen", _urlopen)


def _urlopen(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    again = "body_pos" in kwargs and len(args) >= _AGAIN
    if again or _URLLIB3.is_left_alone():
        return wrapped(*args, **kwargs)
    with Call(_URLLIB3) as calling:
        begin = functools.partial(_begin, calling, pool, *args, **kwargs)
        args, kwargs = guard.call("urllib3", begin, default=(args, kwargs))
        response = wrapped(*args, **kwargs)
        calling.answered(response.status)
        return response


def _begin(
    calling: Call, pool: Any, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Begin, and return the arguments of `urlopen` with the trace's headers."""
    ours: dict[str, str] = {}
    calling.begin(method, *_target(pool, url), ours)
    return (method, url, body, _joined(pool.headers if headers is None else headers, ours), *args), kwargs


def _target(pool: Any, url: str) -> tuple[str, tuple[str, str, int | None]]:
    """Return the whole URL, and scheme, host and port: not those of a pool that leads to a proxy."""
    if url.startswith("/"):
        scheme, host, port = pool.scheme, pool.host, pool.port
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}{url if port in (None, PORTS.get(scheme)) else f':{port}{url}'}", (scheme, host, port)
    parts = urlsplit(url)
    whole = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return whole, (parts.scheme, parts.hostname or "", parts.port)


def _joined(headers: Any, ours: Mapping[str, str]) -> Any:
    """Return a copy of the headers with ours in it."""
    joined = headers.copy()
    if type(joined) is dict:  # it may hold some already, in another case: both would be sent
        joined = {name: value for name, value in joined.items() if name.lower() not in ours}
    for name, value in ours.items():
        joined[name] = value
    return joined
