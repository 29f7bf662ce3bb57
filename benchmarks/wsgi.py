"""A driver that calls a WSGI application as a server would, without sockets."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADERS: Final = {
    "HTTP_HOST": "shop.example:8000",
    "HTTP_CONNECTION": "keep-alive",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "application/json, text/plain, */*",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.7,de;q=0.3",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
    "HTTP_REFERER": "https://shop.example/products",
    "HTTP_COOKIE": "theme=dark; cart=7f3c2a",
}
"""What a browser sends: no traceparent."""


def driver(app: Any) -> Callable[[int], None]:
    """Return what serves so many requests, one after the other."""
    status = []

    def start_response(line: str, _: object, __: object = None) -> Callable[[bytes], object]:
        status.append(line)
        return bytes

    def serve(requests: int) -> None:
        for _ in range(requests):
            body = app(_environ(), start_response)
            for _ in body:
                pass
            body.close()
        if set(status) != {"200 OK"}:
            raise RuntimeError(f"answered with {set(status)}")
        status.clear()

    return serve


def _environ() -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/products/7",
        "QUERY_STRING": "currency=EUR",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **_HEADERS,
    }
