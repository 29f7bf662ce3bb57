"""insitu on a clock that is moved by hand, without threads, and visits to a shop as far as insitu sees them.

The signals are driven directly, without a framework: hours of a busy shop are over in a minute.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from benchmarks import ours
from insitu import config, runtime
from insitu.core import context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from insitu.core.clock import Clock
    from insitu.signals.requests import ServerSpan

ROUTES: Final = [f"/shop/{number}/orders/{{order_id}}" for number in range(200)]


def start(clock: Clock, environ: Mapping[str, str] = MappingProxyType({}), **options: Any) -> runtime.Runtime:
    """Return a running insitu, with its store in a folder of its own."""
    given = {"service": "bench", "libraries": (), "store": ours.store(), **options}
    runtime.shutdown()
    made = runtime.Runtime(config.read(given, environ, Path("/nonexistent")), environ, clock, threads=False)
    runtime.adopt(made)
    return made


@contextmanager
def visit(number: int) -> Iterator[ServerSpan]:
    """A request to one route after the other, by ever new paths, agents and ports; the block is what serves it."""
    route = ROUTES[number % len(ROUTES)]
    path = route.replace("{order_id}", str(number))
    agent = b"Mozilla/5.0 visitor/%d" % number
    peer, here = ("10.0.0.1", number % 60_000), ("10.0.0.2", 8_000)
    raw = ("http", path, b"q=%d" % number, "1.1", b"shop.example", agent, peer, here)
    span = runtime.requests.begin("GET", raw, None, -1)
    token = context.enter(span)
    span.response_status = 200
    yield span
    runtime.requests.finish(span, route)
    context.leave(token)
