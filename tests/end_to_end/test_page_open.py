"""What an application feels of somebody who looks at its page."""

import contextlib
import statistics
import subprocess
import sys
import time

import httpx
import pytest

from tests.end_to_end.serving import serving
from tests.servers import until

ROUNDS, REQUESTS = 5, 400
LOOKS = ("overview", "routes", "traces?limit=200", "logs?limit=200", "metrics", "metrics/http.server.request.duration")
"""What the page asks for, all views of it at once; it looks every two to ten seconds, and here four times a second."""
SECONDS_BETWEEN = 0.25
VISITOR = """
import sys, time, httpx
url, between, *looks = sys.argv[1:]
with httpx.Client(base_url=url, timeout=10) as client:
    while True:
        for look in looks:
            print(client.get(look).status_code, flush=True)
        time.sleep(float(between))
"""
"""Somebody who looks from a process of their own, as a browser is one."""


@contextlib.contextmanager
def looking(application, log):
    """Somebody looks at everything, again and again."""
    arguments = [sys.executable, "-c", VISITOR, f"{application.url}/monitoring/", str(SECONDS_BETWEEN), *LOOKS]
    with log.open("w") as out, subprocess.Popen(arguments, stdout=out, stderr=subprocess.DEVNULL) as visitor:
        try:
            until(lambda: len(seen(log)) >= len(LOOKS), what="somebody who looks")
            yield
        finally:
            visitor.kill()


def seen(log):
    """Statuses of the answers so far."""
    return [int(line) for line in log.read_text().splitlines() if line.isdigit()]


def p99(client):
    taken = []
    for number in range(REQUESTS):
        begin = time.perf_counter()
        assert client.post(f"/orders/{number}?value=3").status_code == 201
        taken.append(time.perf_counter() - begin)
    return statistics.quantiles(taken, n=100)[98] * 1000


@pytest.fixture
def application(tmp_path):
    with serving(tmp_path) as started:
        yield started


def test_requests_hardly_notice_that_somebody_looks(application, tmp_path):
    log = tmp_path / "statuses"
    with application.client() as client:
        p99(client)
        alone, watched = [], []
        for _ in range(ROUNDS):
            alone.append(p99(client))
            with looking(application, log):
                watched.append(p99(client))
            assert set(seen(log)) <= {200, 404}  # a metric is known ten seconds after it was first counted
    moved = min(watched) - min(alone)
    print(f"the page open: p99 {min(alone):.2f} → {min(watched):.2f} ms, moved by {moved:.2f} ms (bar: 5)")
    assert moved < 5


def test_the_end_does_not_wait_for_somebody_who_looks(application, tmp_path):
    with application.client() as client:
        p99(client)
    with looking(application, tmp_path / "statuses"), httpx.Client() as connection:
        connection.get(f"{application.url}/monitoring/")  # and stays open
        began = time.monotonic()
        application.process.terminate()
        application.process.wait(30)
        took = time.monotonic() - began
    print(f"SIGTERM with the page open: ended after {took:.2f} s")
    assert took < 3
    assert "Traceback" not in application.log.read_text()
