"""aiohttp's client: a client span for each request that a session sends, each hop of a redirect too."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters.http_calls import Call
from insitu.adapters.library import Library
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_AIOHTTP: Final = Library("aiohttp-client", "AioHttpClientInstrumentor")


def hook(module: Any) -> None:
    """Wrap the sessions of an imported `aiohttp.client`."""
    taken = inspect.signature(module.ClientSession._request).parameters
    wrapt.wrap_function_wrapper(module, "ClientSession._request", by_hop if "middlewares" in taken else by_call)


def by_hop(wrapped: Callable[..., Any], session: Any, args: Any, kwargs: Any) -> Any:
    """Have a request pass through a middleware of ours, behind all others: what it sees is what is sent."""
    given = kwargs.get("middlewares")
    others = getattr(session, "_middlewares", None) if given is None else given
    if others is not None:
        kwargs["middlewares"] = (*others, _hop)
    return wrapped(*args, **kwargs)


async def _hop(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    if _AIOHTTP.is_left_alone():
        return await handler(request)
    with Call(_AIOHTTP) as calling:
        guard.call("aiohttp", _begin, calling, request.method, request.url, request.headers)
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            # The time for the whole is over, and only the session, further out, makes a TimeoutError of it.
            if getattr(getattr(request, "_timer", None), "_cancelled", False):
                calling.error = TimeoutError()
            raise
        calling.answered(response.status)
        return response


async def by_call(wrapped: Callable[..., Any], session: Any, args: Any, kwargs: Any) -> Any:
    """Trace a request with all of its hops: before 3.12 aiohttp has no middlewares."""
    if _AIOHTTP.is_left_alone():
        return await wrapped(*args, **kwargs)
    with Call(_AIOHTTP) as calling:
        kwargs = guard.call("aiohttp", _begin_whole, calling, session, args, kwargs, default=kwargs)
        response = await wrapped(*args, **kwargs)
        calling.answered(response.status)
        return response


def _begin_whole(calling: Call, session: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Begin, and return the arguments with the trace's headers."""
    method, url = args[0], session._build_url(args[1])
    headers = type(session.headers)(kwargs.get("headers") or ())
    query = kwargs.get("params")
    _begin(calling, method.upper(), url.update_query(query) if query else url, headers)
    return {**kwargs, "headers": headers}


def _begin(calling: Call, method: str, url: Any, headers: Any) -> None:
    calling.begin(method, str(url.with_user(None)), (url.scheme, url.host or "", url.port), headers)
