"""Customers: the same seed sends the same requests in the same order, at a bounded rate.

    python -m examples.shop.traffic http://127.0.0.1:8000 --rate 100

Every second, and once more at the end, one line of JSON with a `Tally` goes to standard output. It ends when standard
input closes, after the last answer has arrived.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import httpx

SEED = 19
AT_ONCE = 64
"""The most requests in flight."""
SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Tally:
    """What the customers saw so far.

    Attributes:
        requests: Requests that were answered.
        seconds: Time since the first request.
        rate: Answers a second since the last tally.
        p95: The 95th percentile of the last thousand answers, in seconds.
        failed: Answers with a status of 500 and above.
        lost: Requests that got no answer.
        broken: Connections that broke under a request, which may or may not have been served.
    """

    requests: int
    seconds: float
    rate: float
    p95: float
    failed: int
    lost: int
    broken: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send."""

    method: str
    path: str
    json: dict[str, object] | None = None


Visit = list[Ask]
"""Requests of one customer, each sent when the one before is answered."""
Maker = Callable[[random.Random], Visit]


def _get(path: str) -> Maker:
    """Return a maker of GET requests, where `{product}` is any product."""
    return lambda chance: [Ask("GET", path.format(product=chance.randint(1, 144)))]


def _search(chance: random.Random) -> Visit:
    return [Ask("GET", f"/search?q={chance.choice(('lamp', 'oak', 'chair', 'wool', 'clock', 'sofa'))}")]


def _ship(chance: random.Random) -> Visit:
    return [Ask("GET", f"/shipping/{chance.choice(('DE', 'FR', 'NL', 'PL', 'DE', 'FR', 'DE', 'NO'))}")]


def _fill(chance: random.Random) -> Visit:
    return [Ask("POST", "/cart/items", {"product_id": chance.randint(1, 144), "quantity": chance.randint(1, 3)})]


def _buy(chance: random.Random) -> Visit:
    """Fill the cart, then pay: one card in twelve is declined."""
    card = "4000000000000000" if chance.random() < 1 / 12 else "4242424242424242"
    return [*_fill(chance), Ask("POST", "/checkout", {"card": card, "plan": chance.choice(("basic", "basic", "pro"))})]


VISITS: dict[Maker, int] = {
    _get("/"): 4,
    _get("/products"): 20,
    _get("/products/{product}"): 24,
    _get("/products/{product}/rating"): 6,
    _get("/products/{product}/similar"): 9,
    _search: 12,
    _get("/cart"): 7,
    _fill: 3,
    _buy: 5,
    _ship: 3,
    _get("/admin/orders.csv"): 1,
    _get("/products/9{product}00"): 1,
    _get("/wp-login.php"): 1,
}
"""What customers come for, and how often."""


def visits(chance: random.Random) -> Iterator[Visit]:
    """Yield visits without end: each kind once, so that even a short run has seen the whole shop, then by weight."""
    yield from (make(chance) for make in VISITS)
    while True:
        (make,) = chance.choices(list(VISITS), list(VISITS.values()))
        yield make(chance)


class Customers:
    """Sends requests and counts the answers."""

    def __init__(self, client: httpx.AsyncClient, rate: float) -> None:
        self._client = client
        self._rate = rate
        self._chance = random.Random(SEED)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._latest: deque[float] = deque(maxlen=1000)
        self._began = self._last = time.perf_counter()
        self._requests = self._last_requests = self._failed = self._lost = self._broken = 0

    async def send(self, until: asyncio.Event) -> None:
        """Send requests until told to end, then wait for the answers that are under way."""
        due = time.perf_counter()
        async with asyncio.TaskGroup() as under_way:
            for visit in visits(self._chance):
                # After a stall we go on from now: what was missed is not sent in a burst.
                due = max(due + self._chance.expovariate(self._rate / len(visit)), time.perf_counter() - 0.1)
                await asyncio.sleep(due - time.perf_counter())
                await self._room.acquire()
                if until.is_set():
                    break
                under_way.create_task(self._visit(visit, self._headers()))

    def tally(self) -> Tally:
        """Return what was seen so far; the rate is that since the last call."""
        now = time.perf_counter()
        rate = (self._requests - self._last_requests) / max(now - self._last, 1e-9)
        self._last, self._last_requests = now, self._requests
        ordered = sorted(self._latest) or [0.0]
        p95 = ordered[int(len(ordered) * 0.95)]
        return Tally(self._requests, now - self._began, rate, p95, self._failed, self._lost, self._broken)

    def _headers(self) -> dict[str, str]:
        number = self._chance.randrange(20)
        return {"X-User": f"user-{number}", "X-Tenant": ("north", "south", "east")[number % 3]}

    async def _visit(self, visit: Visit, headers: dict[str, str]) -> None:
        try:
            for ask in visit:
                await self._send(ask, headers)
        finally:
            self._room.release()

    async def _send(self, ask: Ask, headers: dict[str, str]) -> None:
        start = time.perf_counter()
        try:
            answer = await self._answer(ask, headers)
        except httpx.HTTPError:
            self._lost += 1
        else:
            self._requests += 1
            self._failed += answer.status_code >= SERVER_ERROR
            self._latest.append(time.perf_counter() - start)

    async def _answer(self, ask: Ask, headers: dict[str, str]) -> httpx.Response:
        """Send a request, and a GET again if the connection broke: uvicorn closes it after a crash.

        What changes something is not repeated: the shop may have done it.
        """
        try:
            return await self._client.request(ask.method, ask.path, json=ask.json, headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            self._broken += 1
            if ask.method != "GET":
                raise
            return await self._client.request(ask.method, ask.path, json=ask.json, headers=headers)


async def run(address: str, rate: float) -> None:
    """Send requests to the shop until standard input closes."""
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, closed.set)
    async with httpx.AsyncClient(base_url=address, timeout=10, limits=httpx.Limits(max_connections=AT_ONCE)) as client:
        customers = Customers(client, rate)
        sending = asyncio.create_task(customers.send(until=closed))
        while not sending.done():
            await asyncio.wait({sending}, timeout=1)
            _tell(customers.tally())
        await sending


def _tell(tally: Tally) -> None:
    sys.stdout.write(json.dumps(asdict(tally)) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the traffic that the command line asks for."""
    parser = argparse.ArgumentParser(description="Send traffic to the shop until standard input closes.")
    parser.add_argument("address", help="where the shop is, as http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, default=100, help="requests per second (default %(default)s)")
    options = parser.parse_args()
    asyncio.run(run(options.address, options.rate))


if __name__ == "__main__":
    main()
