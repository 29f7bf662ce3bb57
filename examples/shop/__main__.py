"""Run the shop under traffic, and say what insitu saw and what it cost."""

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx

from examples.shop import page as pages
from examples.shop import report
from examples.shop.child import Child, Died, start, while_alive
from examples.shop.options import Options, parse
from examples.shop.terminal import Terminal
from examples.shop.traffic import Tally

START_WITHIN = 30.0
"""Seconds for a service to answer its first request."""
SETTLE_WITHIN = 3.0
"""Seconds for the last spans to be counted: a span ends a little after its last byte has arrived."""

NEXT = """
  keep it running, and look around on its page, /monitoring:
    {command}
  see its traces, metrics and logs in a collector:
    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 {command}
  see the lines of code that it took:
    grep -n insitu examples/shop/app.py"""


class CannotStart(Exception):
    """The demo cannot begin; the message says why and what to do."""


def listen(port: float) -> socket.socket:
    """Return a socket bound to a port of loopback; 0 takes a free one.

    Raises:
        CannotStart: The port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", int(port)))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"port {port:g} cannot be used: {error.strerror}. Leave --port out to take a free one."
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """Return where the listener is, as a URL."""
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


def command() -> str:
    """Return how a shell in this folder starts the demo again, with the Python that runs now."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    elif shutil.which("python") == sys.executable:
        python = Path("python")
    return f"{shlex.quote(str(python))} -m examples.shop"


async def fetch(client: httpx.AsyncClient, service: str) -> pages.Page | None:
    """Return the service's metrics, or None while it does not answer."""
    try:
        answer = await client.get(f"{service}/metrics", headers=pages.ACCEPT)
        return pages.read(answer.raise_for_status().text)
    except httpx.HTTPError:
        return None


def progress(tally: Tally, rate: float) -> str:
    """Return what the customers saw, as one line."""
    minutes, seconds = divmod(int(tally.seconds), 60)
    return (
        f"{minutes:02}:{seconds:02}  {tally.requests:>9,} requests  {rate:>6.1f} a second  "
        f"p95 {tally.p95 * 1e3:>4.0f} ms at the customers  {tally.failed:>5,} failed"
    )


class Demo:
    """One run of the shop under traffic."""

    def __init__(self, options: Options, terminal: Terminal) -> None:
        self._options = options
        self._terminal = terminal
        self._over = asyncio.Event()
        self._tally = Tally(requests=0, seconds=0.0, rate=0.0, p95=0.0, failed=0, lost=0, broken=0)

    async def run(self) -> None:
        """Start everything, wait for the end, end everything, and show the report.

        Raises:
            CannotStart: A port is taken, or a service does not answer.
            Died: A process ended before its time.
        """
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(name, self._over.set)
        async with contextlib.AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-"))
            services, shop, recommender = await self._open(stack, folder)
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=2))
            await while_alive(self._first_page(client, recommender), *services)
            before = await while_alive(self._first_page(client, shop), *services)
            if before is None:
                return
            await self._serve_customers(shop, services)
            page = await while_alive(self._last_page(client, shop), *services)
        if self._tally.requests:
            self._show(page.starting_from(before))

    async def _open(self, stack: contextlib.AsyncExitStack, folder: str) -> tuple[list[Child], str, str]:
        """Start both services, and return them and the addresses of shop and recommender."""
        with listen(self._options.port) as shop, listen(0) as recommender:
            self._greet(address(shop))
            environment = {
                "SHOP_DATABASE": f"{folder}/shop.db",
                "SHOP_RECOMMENDER": address(recommender),
                "INSITU_STORE": os.environ.get("INSITU_STORE") or f"{folder}/insitu",
            }
            services = [
                await stack.enter_async_context(self._service("recommender", "recommender", recommender, environment)),
                await stack.enter_async_context(self._service("shop", "app", shop, environment)),
            ]
            return services, address(shop), address(recommender)

    def _service(
        self, name: str, module: str, listener: socket.socket, environment: dict[str, str]
    ) -> contextlib.AbstractAsyncContextManager[Child]:
        descriptor = listener.fileno()
        command = ("examples.shop.service", f"examples.shop.{module}:app", str(descriptor))
        return start(name, *command, environment=environment, descriptor=descriptor, echo=self._echo)

    async def _serve_customers(self, shop: str, services: list[Child]) -> None:
        """Let the customers in, until time is up or a signal comes; then wait for their last answer."""
        command = ("examples.shop.traffic", shop, "--rate", str(self._options.rate))
        async with start("traffic", *command, echo=self._echo) as traffic:
            if self._options.seconds:
                asyncio.get_running_loop().call_later(self._options.seconds, self._over.set)
            following = asyncio.create_task(self._follow(traffic))
            await while_alive(self._over.wait(), *services, traffic)
            traffic.dismiss()
            await while_alive(following, *services)
            if await traffic.process.wait():
                raise Died(await traffic.obituary())

    async def _follow(self, traffic: Child) -> None:
        async for line in traffic.lines():
            self._tally = tally = Tally(**json.loads(line))
            if self._terminal.gone:
                self._over.set()
            if not self._over.is_set():
                self._terminal.progress(progress(tally, tally.rate))
        self._terminal.line(progress(self._tally, self._tally.requests / max(self._tally.seconds, 1e-9)))

    async def _first_page(self, client: httpx.AsyncClient, service: str) -> pages.Page | None:
        """Return the service's metrics as soon as it answers; None when we are told to end before that."""
        deadline = time.monotonic() + START_WITHIN
        while not self._over.is_set():
            if page := await fetch(client, service):
                return page
            if time.monotonic() > deadline:
                raise CannotStart(f"{service}/metrics gave no answer within {START_WITHIN:.0f} s; --logs shows more.")
            await asyncio.sleep(0.1)
        return None

    async def _last_page(self, client: httpx.AsyncClient, service: str) -> pages.Page:
        """Return the service's metrics once all that was sent is counted, or as they are when time is up."""
        deadline = time.monotonic() + SETTLE_WITHIN
        while True:
            page = await fetch(client, service)
            if page and (page.requests >= self._tally.requests or time.monotonic() > deadline):
                return page
            if time.monotonic() > deadline:
                raise Died(f"{service}/metrics gives no answer any more; --logs shows more.")
            await asyncio.sleep(0.05)

    def _echo(self, line: str) -> None:
        if self._options.logs:
            self._terminal.line(self._terminal.paint(line, "dim"))

    def _greet(self, shop: str) -> None:
        paint, line = self._terminal.paint, self._terminal.line
        line(f"the shop          {paint(shop, 'bold', 'cyan')}")
        line(f"what insitu sees  {paint(shop + '/monitoring', 'bold', 'cyan')}  which route is slow, and why?")
        line(f"its metrics       {paint(shop + '/metrics', 'bold', 'cyan')}")
        line(f"its routes        {paint(shop + '/docs', 'bold', 'cyan')}")
        limit = self._options.seconds
        until = f"for {limit:g} seconds, and a few more to start and end" if limit else "until Ctrl-C"
        line(paint(f"about {self._options.rate:g} requests a second {until}", "dim"))
        line()

    def _show(self, page: pages.Page) -> None:
        for line in report.render(page, self._tally, self._terminal.paint):
            self._terminal.line(line)
        self._terminal.line()
        self._terminal.line(self._terminal.paint("what next", "bold") + NEXT.format(command=command()))


def main() -> int:
    """Run the demo and return its exit code."""
    options = parse()
    try:
        asyncio.run(Demo(options, Terminal()).run())
    except (CannotStart, Died) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
