"""Every way a process ends: all that it recorded has arrived at a real receiver, in time, and nobody noticed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

import insitu
from tests.servers import datadog_agent, free_port, until

pytestmark = pytest.mark.backend

ROOTS = (Path(insitu.__file__).parents[1], Path(__file__).parents[2])
ORDERS = 60
WITHIN_SECONDS = 5.0
INTERVAL_SECONDS = 1.0
SLACK_SECONDS = 1.0
"""For the half second in which the worker collects, and for the machine."""
MODULE = "tests.end_to_end.exiting"

UVICORN = ["uvicorn", "--factory", "--port={port}", "--log-level=warning"]
GUNICORN = ["gunicorn", "--bind=127.0.0.1:{port}", "--log-level=warning"]
SERVERS = {
    "uvicorn, FastAPI": [*UVICORN, f"{MODULE}:fastapi"],
    "uvicorn, Django": [*UVICORN, f"{MODULE}:django_asgi"],
    "uvicorn of 2 workers, FastAPI": [*UVICORN, "--workers=2", f"{MODULE}:fastapi"],
    "uvicorn of 2 workers, Django": [*UVICORN, "--workers=2", f"{MODULE}:django_asgi"],
    "gunicorn sync, Flask": [*GUNICORN, f"{MODULE}:flask()"],
    "gunicorn sync, Django": [*GUNICORN, f"{MODULE}:django_wsgi()"],
    "gunicorn of 2 gthread, Flask": [*GUNICORN, "--workers=2", "--threads=4", f"{MODULE}:flask()"],
    "gunicorn with preload, Flask": [*GUNICORN, "--workers=2", "--preload", f"{MODULE}:flask()"],
    "uvicorn that reloads, FastAPI": [*UVICORN, "--reload", "--reload-dir=tests/end_to_end", f"{MODULE}:fastapi"],
    "gunicorn gevent, Flask": [*GUNICORN, "--workers=2", "--worker-class=gevent", f"{MODULE}:flask()"],
    "gunicorn with recycling, Flask": [*GUNICORN, "--max-requests=20", f"{MODULE}:flask()"],
}
SCRIPTS = {
    "end": 0,
    "sys.exit": 3,
    "exception": 1,
    "SIGTERM": -signal.SIGTERM,
    "SIGINT": -signal.SIGINT,
    "os.fork": 0,
    "fork": 0,
    "spawn": 0,
    "forkserver": 0,
}


class Run:
    """A process that feeds an agent, and what has arrived there when it has ended."""

    def __init__(self, agent, command, **more):
        self._agent = agent
        self.name = str(uuid.uuid4())
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
            "INSITU_STORE": "none",
            "OTEL_SERVICE_NAME": self.name,
            "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp,
            "OTEL_BSP_SCHEDULE_DELAY": "30000",  # nothing goes out by itself in time
            "OTEL_BLRP_SCHEDULE_DELAY": "30000",
            **more,
        }
        command = [sys.executable, "-m", *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environ, text=True, process_group=0, **pipes)

    def end(self, number=None):
        """Send a signal, if one is given; wait for the end and return the seconds that it took."""
        began = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        _, self.complaints = self.process.communicate(timeout=30)
        return time.monotonic() - began

    def _scopes(self, signal):
        """Who told it, and each scope of what it told."""
        kind = "spans" if signal == "traces" else signal
        for request in self._agent.received(signal):
            for told in request[f"resource_{kind}"]:
                if {"key": "service.name", "value": {"string_value": self.name}} in told["resource"]["attributes"]:
                    yield from ((str(told["resource"]), scope) for scope in told[f"scope_{kind}"])

    def spans(self, kind):
        return sum(span["kind"] == kind for _, scope in self._scopes("traces") for span in scope["spans"])

    def begun(self, signal):
        """When each request, or each log record, was begun."""
        key, at = {"traces": ("spans", "start_time_unix_nano"), "logs": ("log_records", "time_unix_nano")}[signal]
        return [int(item[at]) for _, scope in self._scopes(signal) for item in scope[key]]

    def logs(self):
        placed = {"string_value": "an order is placed"}
        return sum(record["body"] == placed for _, scope in self._scopes("logs") for record in scope["log_records"])

    def counted(self):
        """The orders of all processes: each one's last word."""
        last = {}
        for who, scope in self._scopes("metrics"):
            for metric in scope["metrics"]:
                if metric["name"] == "orders":
                    last[who] = sum(int(point["as_int"]) for point in metric["sum"]["data_points"])
        return sum(last.values())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with datadog_agent(tmp_path_factory.mktemp("agent")) as started:
        yield started


def told(name, run, kind, took, page="-"):
    """Print a row of the table that `pytest -sq tests/end_to_end/test_exits.py` shows; return what has arrived."""
    spans, logs, counted = arrived = run.spans(kind), run.logs(), run.counted()
    print(
        f"\n{name:<34} of {ORDERS}: received {spans:>3} spans, {logs:>3} log records, a count of {counted:>3};"
        f" on /metrics {page:>3}; ended in {took:.2f} s ",
        end="",
    )
    return arrived


def on_page(url):
    """The orders that any worker's /metrics counts."""
    found = re.search(r"^orders_total (\d+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_told_to_end_has_delivered_everything(agent, name, tmp_path):
    port = free_port()
    with Run(agent, [word.format(port=port) for word in SERVERS[name]], INSITU_STORE=str(tmp_path)) as run:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/nothing"), 30, name)
        for _ in range(ORDERS):
            assert ordered(f"{url}/order")
        until(lambda: on_page(url) == ORDERS, what=f"{ORDERS} orders on {url}/metrics")
        took = run.end(signal.SIGTERM)
        assert told(name, run, "SPAN_KIND_SERVER", took, ORDERS)[1:] == (ORDERS, ORDERS)
        assert run.spans("SPAN_KIND_SERVER") > ORDERS
        assert took <= WITHIN_SECONDS
        assert "Traceback" not in run.complaints


@pytest.mark.parametrize("how", SCRIPTS)
def test_a_script_that_ends_has_delivered_everything(agent, how):
    with Run(agent, [MODULE, how, str(ORDERS)], INSITU_SIGNALS="true") as run:
        if how.startswith("SIG"):
            assert run.process.stdout.readline() == "done\n"
        took = run.end(getattr(signal, how) if how.startswith("SIG") else None)
        assert told(how, run, "SPAN_KIND_INTERNAL", took) == (ORDERS, ORDERS, ORDERS)
        assert run.process.returncode == SCRIPTS[how]
        assert ("Traceback" in run.complaints) == (how in {"exception", "SIGINT"})


def test_what_no_back_end_took_is_sent_by_the_next_start_once(agent, tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    store = {"INSITU_STORE": str(tmp_path)}
    with Run(agent, [MODULE, "end", str(ORDERS)], OTEL_EXPORTER_OTLP_ENDPOINT=nobody, **store) as run:
        assert run.end() <= WITHIN_SECONDS
        assert run.process.returncode == 0
        assert "wait on disk" in run.complaints
        assert (run.spans("SPAN_KIND_INTERNAL"), run.logs()) == (0, 0)
        for _ in range(2):
            with Run(agent, [MODULE, "end", "0"], OTEL_SERVICE_NAME=run.name, **store) as following:
                following.end()
            assert (run.spans("SPAN_KIND_INTERNAL"), run.logs()) == (ORDERS, ORDERS)


@contextlib.contextmanager
def kept(folder, service):
    """Where `insitu serve` shows what a service has left in a store."""
    options = ["--store", str(folder), "--service", service, "--port", "0"]
    with subprocess.Popen([sys.executable, "-m", "insitu.cli", "serve", *options], stdout=subprocess.PIPE) as process:
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


def listed(url, what):
    """All that a list of the API has, page after page."""
    found, cursor = [], ""
    while cursor is not None:
        answer = httpx.get(f"{url}{cursor}").json()
        found += answer[what]
        cursor = f"&cursor={answer['cursor']}" if answer.get("cursor") else None
    return found


def orders_for(seconds, url):
    """Place orders, fifty a second; return when each was begun, in wall nanoseconds."""
    begun = []
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        begun.append(time.time_ns())
        assert ordered(url)
        time.sleep(0.02)  # the load's own pace: nothing is waited for
    return begun


@pytest.mark.parametrize("name", ["uvicorn, FastAPI", "gunicorn of 2 gthread, Flask"])
def test_a_server_that_is_killed_has_lost_an_interval_at_the_most_and_left_a_store_to_read(agent, name, tmp_path):
    port = free_port()
    environ = {"INSITU_STORE": str(tmp_path), "OTEL_BSP_SCHEDULE_DELAY": str(round(INTERVAL_SECONDS * 1000))}
    with Run(agent, [word.format(port=port) for word in SERVERS[name]], **environ) as run:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/nothing"), 30, name)
        begun = orders_for(4 * INTERVAL_SECONDS, f"{url}/order")
        os.killpg(run.process.pid, signal.SIGKILL)
        killed = time.time_ns()
        run.end()
    with kept(tmp_path, run.name) as page:
        stored = [log["timestamp"] for log in listed(f"{page}logs?limit=1000", "logs")]
        traces = httpx.get(f"{page}traces?name=GET%20/order").json()["traces"]
    received = {"spans": run.begun("traces"), "log records": run.begun("logs"), "log records in the store": stored}
    for what, times in received.items():
        lost = (killed - max(times)) / 1e9
        print(f"\n{name:<34} killed: {len(times):>3} {what} of {len(begun)}, without the last {lost:.2f} s ", end="")
        safe = killed - (INTERVAL_SECONDS + SLACK_SECONDS) * 1e9
        assert sum(begun[0] <= time < safe for time in times) >= sum(time < safe for time in begun) - 1
    assert traces


def answers(url):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 404
    return False


def ordered(url):
    """One order; a worker that is recycled may close a connection before it has read anything from it."""
    for _ in range(5):
        with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError):
            return httpx.get(url).status_code == 200
    return False
