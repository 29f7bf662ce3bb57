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

SEED = 20
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
        errors: Answers with a status of 500 and above.
        lost: Requests that got no answer.
    """

    requests: int
    seconds: float
    rate: float
    p95: float
    errors: int
    lost: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send."""

    method: str
    path: str
    json: dict[str, object] | None = None


def _get(path: str) -> Callable[[random.Random], Ask]:
    """Return a maker of GET requests, where `{product}` is any product."""
    return lambda chance: Ask("GET", path.format(product=chance.randint(1, 144)))


def _search(chance: random.Random) -> Ask:
    return Ask("GET", f"/search?q={chance.choice(('lamp', 'oak', 'chair', 'wool', 'clock', 'sofa'))}")


def _ship(chance: random.Random) -> Ask:
    return Ask("GET", f"/shipping/{chance.choice(('DE', 'FR', 'NL', 'PL', 'DE', 'FR', 'DE', 'NO'))}")


def _buy(chance: random.Random) -> Ask:
    return Ask("POST", "/cart/items", {"product_id": chance.randint(1, 144), "quantity": chance.randint(1, 3)})


def _pay(chance: random.Random) -> Ask:
    card = "4000000000000000" if chance.random() < 0.1 else "4242424242424242"  # one card in ten
    return Ask("POST", "/checkout", {"card": card, "plan": chance.choice(("basic", "basic", "pro"))})


ASKS: dict[Callable[[random.Random], Ask], int] = {
    _get("/"): 4,
    _get("/products"): 20,
    _get("/products/{product}"): 24,
    _get("/products/{product}/rating"): 6,
    _get("/products/{product}/similar"): 9,
    _search: 12,
    _get("/cart"): 7,
    _buy: 8,
    _pay: 5,
    _ship: 3,
    _get("/admin/orders.csv"): 1,
    _get("/products/9{product}00"): 1,
    _get("/wp-login.php"): 1,
}
"""What customers ask for, and how often."""


def asks(chance: random.Random) -> Iterator[Ask]:
    """Yield requests without end: each kind once, so that even a short run has seen the whole shop, then by weight."""
    yield from (make(chance) for make in ASKS)
    while True:
        (make,) = chance.choices(list(ASKS), list(ASKS.values()))
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
        self._requests = self._last_requests = self._errors = self._lost = 0

    async def send(self, until: asyncio.Event) -> None:
        """Send requests until told to end, then wait for the answers that are under way."""
        due = time.perf_counter()
        async with asyncio.TaskGroup() as under_way:
            for ask in asks(self._chance):
                # After a stall we go on from now: what was missed is not sent in a burst.
                due = max(due + self._chance.expovariate(self._rate), time.perf_counter() - 0.1)
                await asyncio.sleep(due - time.perf_counter())
                await self._room.acquire()
                if until.is_set():
                    break
                under_way.create_task(self._send(ask, self._headers()))

    def tally(self) -> Tally:
        """Return what was seen so far; the rate is that since the last call."""
        now = time.perf_counter()
        rate = (self._requests - self._last_requests) / max(now - self._last, 1e-9)
        self._last, self._last_requests = now, self._requests
        ordered = sorted(self._latest) or [0.0]
        p95 = ordered[int(len(ordered) * 0.95)]
        return Tally(self._requests, now - self._began, rate, p95, self._errors, self._lost)

    def _headers(self) -> dict[str, str]:
        number = self._chance.randrange(20)
        return {"X-User": f"user-{number}", "X-Tenant": ("north", "south", "east")[number % 3]}

    async def _send(self, ask: Ask, headers: dict[str, str]) -> None:
        start = time.perf_counter()
        try:
            answer = await self._answer(ask, headers)
        except httpx.HTTPError:
            self._lost += 1
        else:
            self._requests += 1
            self._errors += answer.status_code >= SERVER_ERROR
            self._latest.append(time.perf_counter() - start)
        finally:
            self._room.release()

    async def _answer(self, ask: Ask, headers: dict[str, str]) -> httpx.Response:
        """Send a request, and again if the connection turns out to be closed: uvicorn closes it after a crash."""
        try:
            return await self._client.request(ask.method, ask.path, json=ask.json, headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
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
