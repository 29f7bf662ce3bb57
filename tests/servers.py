"""Real servers as fixtures: each is started on loopback in the test's own folder and is gone when the test ends.

Where a server is not on this machine the test is skipped, naming the command that fetches it; under CI it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tools import backends

START = 30.0  # seconds that a server may take until it answers
STOP = 10.0  # seconds that it may take to end

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """Asks again and again until the answer is true, and returns it; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what or condition} was still {answer!r} after {timeout} s")
        time.sleep(0.02)
    return answer


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, headers: dict[str, str] | None = None, timeout: float = 5.0) -> bytes:
    """The body of a GET that answered 2xx."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=timeout) as answer:
        return bytes(answer.read())


def get_json(url: str, **query: str) -> Any:
    """The JSON that a GET with this query string answered."""
    return json.loads(get(f"{url}?{urllib.parse.urlencode(query)}" if query else url))


def backend(name: str) -> Path:
    """The executable of a server from tools/backends; skips the test where it is missing, and fails it under CI."""
    try:
        return backends.path(name)
    except backends.Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@contextlib.contextmanager
def running(command: list[str], health: str | Callable[[], object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends; its output goes to ``log`` and into the message if it does not start.

    ``health`` is a URL that answers 2xx when it has started, or a function that raises an OSError until then. The
    server has a process group of its own, as from a shell: two of them are not workers of one service.
    """

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"{command[0]} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            get(health, timeout=2.0) if isinstance(health, str) else health()
        except (urllib.error.URLError, OSError):
            return False
        return True

    with (
        log.open("wb") as output,
        subprocess.Popen(command, process_group=0, stdout=output, stderr=output, cwd=log.parent) as process,
    ):
        try:
            until(answers, START, str(health))
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(params=["prometheus", pytest.param("prometheus-3", marks=pytest.mark.slow)])
def prometheus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a Prometheus that scrapes the given targets: ``base_url = prometheus("127.0.0.1:8000")``.

    The test runs once with Debian 12's Prometheus 2 and once with a Prometheus 3. Exemplars are stored. Keywords:
    ``interval`` ("200ms"), ``path`` ("/metrics"), ``scrape`` (more lines of the scrape configuration, as a dict),
    ``config`` (more of the whole configuration, as a dict).
    """
    program = backend(request.param)
    with contextlib.ExitStack() as servers:

        def start(
            *targets: str,
            interval: str = "200ms",
            path: str = "/metrics",
            scrape: dict[str, Any] | None = None,
            config: dict[str, Any] | None = None,
        ) -> str:
            port = free_port()
            folder = tmp_path / f"prometheus-{port}"
            folder.mkdir()
            job = {"job_name": "test", "metrics_path": path, "static_configs": [{"targets": list(targets)}]}
            whole = {
                "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
                "scrape_configs": [job | (scrape or {})],
            }
            (folder / "prometheus.yml").write_text(json.dumps(whole | (config or {})))  # JSON is YAML
            command = [
                str(program),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ]
            url = f"http://127.0.0.1:{port}"
            servers.enter_context(running(command, f"{url}/-/ready", folder / "log"))
            return url

        yield start


@pytest.fixture(params=["promtool", "promtool-3"])
def promtool(request: pytest.FixtureRequest) -> Path:
    """The executable of promtool, of a Prometheus 2 and of a Prometheus 3."""
    return backend(request.param)


@dataclass(frozen=True)
class DatadogAgent:
    """Where a running ddapm-test-agent listens, and what it got.

    Attributes:
        url: its own API, which takes DataDog traces.
        otlp: base URL that takes OTLP/HTTP (``/v1/traces``, ``/v1/metrics``, ``/v1/logs``).
        otlp_grpc: ``host:port`` that takes OTLP/gRPC.
    """

    url: str
    otlp: str
    otlp_grpc: str

    def received(self, signal: str) -> list[dict[str, Any]]:
        """The OTLP export requests that it got, decoded by it into JSON; ``signal``: traces, metrics or logs."""
        return list(get_json(f"{self.otlp}/test/session/{signal}"))


@contextlib.contextmanager
def datadog_agent(folder: Path) -> Iterator[DatadogAgent]:
    """Runs a ddapm-test-agent: an OTLP receiver and a DataDog agent, written by others, that gives back what it got."""
    program = backend("ddapm-test-agent")
    port, http, grpc = free_port(), free_port(), free_port()
    home = folder / "ddapm"
    (home / "snapshots").mkdir(parents=True)
    options = {"--port": port, "--otlp-http-port": http, "--otlp-grpc-port": grpc, "--snapshot-dir": "snapshots"}
    command = [str(program), *(str(word) for option in options.items() for word in option)]
    agent = DatadogAgent(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    with running(command, f"{agent.url}/info", home / "log"):
        until(lambda: not agent.received("traces"), START, "the agent's OTLP port")
        yield agent


@pytest.fixture
def ddapm_agent(tmp_path: Path) -> Iterator[DatadogAgent]:
    """An agent of the test's own."""
    with datadog_agent(tmp_path) as agent:
        yield agent


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[int]:
    """Runs a Redis, which keeps nothing on disk, and gives its port; ``options`` as on its command line."""
    port = free_port()

    def ping() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(b"PING\r\n")
            if not connection.recv(64).startswith(b"+PONG"):
                raise ConnectionError

    command = [str(backend("redis-server")), "--bind", "127.0.0.1", "--port", str(port), "--save", "", *options]
    with running(command, ping, folder / "redis.log"):
        yield port


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that all tests share."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port
