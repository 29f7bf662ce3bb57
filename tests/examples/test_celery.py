"""The pictures of examples/celery: a real worker and who sends, each with its spans on its own standard error."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(folder, *command):
    environ = os.environ | {"PICTURES": str(folder), "INSITU_EXPORTERS": "console", "INSITU_STORE": "none"}
    command = [sys.executable, "-m", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environ, **pipes)


def test_a_picture_is_fetched_at_the_second_try_and_one_trace_in_two_processes(tmp_path):
    with start(tmp_path, "celery", "-A", "examples.celery.tasks", "worker", "--concurrency", "2") as worker:
        try:
            with start(tmp_path, "examples.celery.tasks") as sender:
                sent, _ = sender.communicate(timeout=60)
        finally:
            worker.send_signal(signal.SIGTERM)
            done, _ = worker.communicate(timeout=60)  # a child may wait half a minute for its result to be read
    assert "stored: 3500 bytes" in sent, sent + done
    (trace,) = set(re.findall(r"\d picture .*\[([0-9a-f]{8})\]", sent))
    runs = re.findall(r"process examples\.celery\.tasks\.(\w+) .*\[([0-9a-f]{8})\]", done)
    assert sorted(runs) == [("fetch", trace), ("fetch", trace), ("resize", trace), ("store", trace)]
    assert f"a picture is stored size=3500  [{trace}]" in done
    assert "Traceback" not in sent + done
