"""The application that everybody serves, and a driver that calls it as a server would, without sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel
from starlette.applications import Starlette

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from starlette.types import Receive, Scope, Send

    Message = MutableMapping[str, Any]
    App = Callable[..., Awaitable[None]]

HEADERS = (
    (b"host", b"shop.example:8000"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json, text/plain, */*"),
    (b"accept-language", b"en-GB,en;q=0.7,de;q=0.3"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://shop.example/products"),
    (b"cookie", b"theme=dark; cart=7f3c2a"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-site", b"same-origin"),
)
"""What a browser sends: no traceparent."""


class Product(BaseModel):
    """A thing to buy."""

    id: int
    name: str
    price: float
    tags: list[str]


class Unchecked(FastAPI):
    """FastAPI without the check, at each request, whether its own telemetry is wanted; nobody traces it then."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as Starlette does."""
        await Starlette.__call__(self, scope, receive, send)


def make(kind: type[FastAPI] = FastAPI) -> FastAPI:
    """Return a small shop: a path parameter, a query parameter and a response model."""
    app = kind(title="bench")

    @app.get("/products/{product_id}")
    async def product(product_id: int, currency: Annotated[str, Query(max_length=3)] = "EUR") -> Product:
        return Product(id=product_id, name=f"lamp in {currency}", price=19.9, tags=["new", "light"])

    return app


class Driver:
    """Serves an ASGI application on an event loop of its own, its lifespan started.

    Attributes:
        loop: the event loop; it runs only inside of `run`.
        status, body: of the last response.

    """

    def __init__(self, app: App, path: str = "/products/7", query: bytes = b"currency=EUR") -> None:
        self.app = app
        self.path = path
        self.query = query
        self.status = 0
        self.body = b""
        self.loop = asyncio.new_event_loop()
        self._lifespan = self.loop.create_task(self._live())
        self._started = self.loop.create_future()
        self.loop.run_until_complete(self._started)

    def run(self, requests: int) -> None:
        """Serve so many requests, one after the other."""
        self.status = 0
        self.loop.run_until_complete(self._serve(requests))
        if self.status != 200:
            raise RuntimeError(f"{self.path} was answered with {self.status}")

    async def _serve(self, requests: int) -> None:
        for _ in range(requests):
            await self.request()

    async def request(self) -> None:
        """Serve one request."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": list(HEADERS) if self.path != "/metrics" else [(b"host", b"127.0.0.1:8000")],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
            "state": {},
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body = message["body"]

    async def _live(self) -> None:
        waiting: asyncio.Queue[Message] = asyncio.Queue()
        waiting.put_nowait({"type": "lifespan.startup"})

        async def send(message: Message) -> None:
            if not self._started.done():
                self._started.set_result(message["type"])

        await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, waiting.get, send)
