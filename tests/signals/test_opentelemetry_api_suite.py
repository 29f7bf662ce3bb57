import os
import re
import subprocess
import sys
from pathlib import Path

import insitu
from tests.servers import backend

# The suite itself takes the global providers away for some tests, so each test gets ours back before it starts. None of
# its tests is left out: those that expect a proxy or a no-op make or restore it themselves.
PLUGIN = """
import insitu
from opentelemetry import _logs, metrics, trace

insitu.init(exporters=(), libraries=(), service="suite")
ours = trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()


def pytest_runtest_setup(item):
    trace._TRACER_PROVIDER, metrics._internal._METER_PROVIDER, _logs._internal._LOGGER_PROVIDER = ours


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("with " + ", ".join(type(provider).__module__ for provider in ours))
"""


def test_opentelemetry_apis_own_tests_pass_with_insitu_as_the_provider(tmp_path):
    suite = backend("opentelemetry-api-tests")
    (tmp_path / "insitu_first.py").write_text(PLUGIN)
    places = (tmp_path, suite / "aid", Path(insitu.__file__).parent.parent)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "insitu_first", "-p", "no:cacheprovider", "-c", os.devnull, "-q"]
        + ["--import-mode=importlib", f"--rootdir={suite}", "tests"],
        cwd=suite,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    print(ran.stdout[-400:])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "with insitu.signals.tracing, insitu.signals.meter, insitu.signals.logs" in ran.stdout
    assert int(re.search(r"(\d+) passed", ran.stdout)[1]) > 150
