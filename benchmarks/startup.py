"""Milliseconds of CPU that `import insitu` and `init` take, in fresh processes that have imported FastAPI already."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks import harness

if TYPE_CHECKING:
    from benchmarks import timing

_CODE = """
import time
import fastapi, uvicorn
started = time.process_time_ns()
import insitu
imported = time.process_time_ns()
insitu.init(service="bench")
print((imported - started) / 1e6, (time.process_time_ns() - imported) / 1e6)
"""


def insitu_start() -> timing.Round:
    """Import and init."""

    def run(_: float) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", _CODE],
            check=True,
            capture_output=True,
            text=True,
            cwd=harness.ROOT,
            env=harness.environment(),
        )
        imported, started = map(float, done.stdout.split())
        return {"import": imported, "init": started}

    return run
