"""The application in a uvicorn of its own process, with an environment of nothing but what a test gives it."""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

import insitu
from tests.servers import free_port, get, running

SECRET = "hunter2-hunter2"
"""What the application puts wherever a secret may slip in."""
ROOTS = (Path(insitu.__file__).parents[1], Path(__file__).parents[2])


@dataclass(frozen=True)
class Application:
    """A running application.

    Attributes:
        url: where it is.
        process: its uvicorn.
        log: file with all that it printed.
    """

    url: str
    process: subprocess.Popen
    log: Path

    @property
    def target(self):
        """``host:port``, as Prometheus wants it."""
        return self.url.removeprefix("http://")

    def metrics(self):
        """Its /metrics page, as text."""
        return get(f"{self.url}/metrics").decode()

    def client(self):
        """An httpx client with a connection for each request: behind an exception uvicorn closes the one it has."""
        return httpx.Client(base_url=self.url, headers={"connection": "close", "user-agent": "visitor/1"})


@contextlib.contextmanager
def serving(folder, *options, **environ):
    """Serves tests/end_to_end/application.py until the block ends; ``options`` are uvicorn's."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
        "SHOP_SECRET": SECRET,
        "INSITU_STORE": str(folder / "store"),
        **environ,
    }
    clean = ["env", "-i", *(f"{name}={value}" for name, value in environ.items())]
    uvicorn = [sys.executable, "-m", "uvicorn", "tests.end_to_end.application:app", f"--port={port}"]
    url, log = f"http://127.0.0.1:{port}", folder / f"application-{port}.log"
    with running(
        [*clean, *uvicorn, "--no-access-log", "--log-level=warning", *options], f"{url}/metrics", log
    ) as process:
        yield Application(url, process, log)
