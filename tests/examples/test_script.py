"""The nightly script of examples/script."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_one_trace_of_a_night_arrives_with_its_log():
    environ = os.environ | {"INSITU_EXPORTERS": "console", "INSITU_STORE": "none"}
    command = [sys.executable, "-m", "examples.script.nightly"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    (trace,) = set(re.findall(r"\[([0-9a-f]{8})\]", done.stderr))
    assert re.search(rf"nightly report  .*\[{trace}\]$", done.stderr, re.MULTILINE)
    assert done.stderr.count("add_up") == 3
    assert re.search(rf"the report is written total=\d+  \[{trace}\]$", done.stderr, re.MULTILINE)
