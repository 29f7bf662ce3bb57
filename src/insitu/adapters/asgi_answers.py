"""insitu's own paths over ASGI: answered on the reader's thread, and sent whole or event by event."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from insitu.core import guard
from insitu.web.messages import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from insitu.web.api import Api

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_T = TypeVar("_T")
_BETWEEN_EVENTS: Final = 1.0


class Answers:
    """Sends what the API answers.

    Args:
        api: answers our own paths.
        read: runs a function on the reader's thread.

    """

    def __init__(self, api: Api, read: Callable[[Callable[[], Any]], Future[Any]]) -> None:
        self._api = api
        self._read = read

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to one of our own paths."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        peer, query = client[0] if client else None, scope.get("query_string", b"").decode("latin-1")
        request = Request(scope["method"], scope["path"], headers, peer, query, streams=True)
        response: Response = await self._on_reader(lambda: self._api.handle(request))
        sent = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        sent.append((b"content-type", response.content_type.encode()))
        if response.events is None:
            sent.append((b"content-length", b"%d" % len(response.body)))
        await send({"type": "http.response.start", "status": response.status, "headers": sent})
        only_headers = request.method == "HEAD"
        if response.events is not None and not only_headers:
            await self._stream(response.events, receive, send)
        await send({"type": "http.response.body", "body": b"" if only_headers else response.body})

    async def _stream(self, events: Iterator[bytes], receive: Receive, send: Send) -> None:
        while (event := await self._on_reader(lambda: guard.call("web.stream", next, events, None))) is not None:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            if await _left(receive) or _server_ends():
                return

    async def _on_reader(self, function: Callable[[], _T]) -> _T:
        return await asyncio.wrap_future(self._read(function))


async def _left(receive: Receive) -> bool:
    """Wait until the next event is due, and tell whether the browser went away meanwhile.

    The first message is the request's own end: then the wait is over at once.
    """
    try:
        message = await asyncio.wait_for(receive(), _BETWEEN_EVENTS)
    except TimeoutError:
        return False
    return bool(message["type"] == "http.disconnect")


def _server_ends() -> bool:
    """Whether the server was told to end, as far as it says so: uvicorn does, and would wait for the stream."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
