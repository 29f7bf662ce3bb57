"""httpx, and httpx2, which has the same shape: a client span for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters.http_calls import Call
from insitu.adapters.library import Library
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable

_HTTPX: Final = Library("httpx", "HTTPXClientInstrumentor")
HTTPX2: Final = Library("httpx2", "HTTPX2ClientInstrumentor", module="httpx")


def hook(module: Any, library: Library = _HTTPX) -> None:
    """Wrap the transports of an imported httpx, where each hop of a redirect is a request of its own."""

    def call(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        if library.is_left_alone():
            return wrapped(*args, **kwargs)
        with _begun(library, args[0] if args else kwargs["request"]) as calling:
            response = wrapped(*args, **kwargs)
            calling.answered(response.status_code)
            return response

    async def call_async(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        if library.is_left_alone():
            return await wrapped(*args, **kwargs)
        with _begun(library, args[0] if args else kwargs["request"]) as calling:
            response = await wrapped(*args, **kwargs)
            calling.answered(response.status_code)
            return response

    wrapt.wrap_function_wrapper(module, "HTTPTransport.handle_request", call)
    wrapt.wrap_function_wrapper(module, "AsyncHTTPTransport.handle_async_request", call_async)


def _begun(library: Library, request: Any) -> Call:
    calling = Call(library)
    guard.call("httpx", _begin, calling, request)
    return calling


def _begin(calling: Call, request: Any) -> None:
    url = request.url
    whole = str(url.copy_with(username=None, password=None) if url.userinfo else url)
    calling.begin(request.method, whole, (url.scheme, url.host, url.port), request.headers)
