"""Pictures in Celery, with files for a broker: one task is slow, one fails and is tried again, and three are a chain.

In one terminal the worker, in another who sends:

    celery -A examples.celery.tasks worker --concurrency 2
    python -m examples.celery.tasks

A picture is one trace through both processes. To see it at once, set INSITU_EXPORTERS=console in both; to look at it
later, INSITU_STORE=.insitu, and then `insitu serve`.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from celery import Celery, Task, chain

import insitu

insitu.init(service="pictures")
stored = insitu.counter("pictures.stored", unit="By", help="Size of all pictures that were stored.")

folder = Path(os.environ.get("PICTURES") or Path(tempfile.gettempdir(), "pictures"))
for name in ("queue", "control", "results"):
    (folder / name).mkdir(parents=True, exist_ok=True)

app = Celery("examples.celery.tasks", broker="filesystem://", backend=f"file://{folder / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": folder / "queue",
    "data_folder_out": folder / "queue",
    "control_folder": folder / "control",
}


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0.5}, max_retries=3)
def fetch(self: Task, address: str) -> int:
    """Fetch a picture and return its size; the first try fails."""
    insitu.bind(picture=address)
    if not self.request.retries:
        raise ConnectionError(f"{address} does not answer")
    return 1000 * len(address)


@app.task
def resize(size: int) -> int:
    """Halve a picture, slowly."""
    with insitu.span("resize", size=size):
        time.sleep(1.2)
    return size // 2


@app.task
def store(size: int) -> int:
    """Store a picture."""
    stored.add(size)
    insitu.log.info("a picture is stored", size=size)
    return size


def main() -> None:
    """Have one picture fetched, resized and stored, and wait for it."""
    with insitu.span("picture"):
        done = chain(fetch.s("cat.png"), resize.s(), store.s())()
    print(f"stored: {done.get(timeout=60)} bytes")


if __name__ == "__main__":
    main()
