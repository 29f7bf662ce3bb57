"""The command `insitu`, as a user runs it: in a process of its own, on a real application."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from insitu import cli, config

SCRIPT = Path(sys.executable).with_name("insitu")
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "insitu.cli"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"

SHOP = """
from fastapi import FastAPI
import insitu
print("a greeting of the application")
app = FastAPI()
@app.get("/orders/{order}")
def read(order: int): return order
insitu.init(service="shop", version="2", environment="qa")
insitu.instrument(app)
"""


@pytest.fixture(name="run")
def _run(tmp_path):
    def run(*arguments, app="", **environ):
        if app:
            (tmp_path / "shop.py").write_text(app)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INSITU_", "OTEL_", "PYTHONWARN")) and name not in ("NO_COLOR", "FORCE_COLOR")
        }
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=kept | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(name="findings")
def _findings(run):
    """Runs doctor and returns its exit status and its findings as texts: `level: text`, with ` → fix`."""

    def findings(app, *arguments, status=None, **environ):
        done = run("doctor", "shop:app", "--json", *arguments, app=app, **environ)
        assert done.stderr.count("Traceback") == 0, done.stderr
        report = json.loads(done.stdout)
        lines = [f"{each['level']}: {each['text']} → {each['fix']}" for each in report["findings"]]
        assert done.returncode == (1 if report["problems"] else 0)
        assert status is None or done.returncode == status, lines
        return lines

    return findings


def having(lines, *words):
    return [line for line in lines if all(word in line for word in words)]


def test_help_teaches(run):
    done = run("--help")
    assert done.returncode == 0
    for word in (
        "insitu.instrument(app)",
        "/metrics",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "INSITU_<NAME>",
        "pyproject.toml",
    ):
        assert word in done.stdout
    assert "doctor" in done.stdout
    assert "options" in done.stdout
    assert run().stdout == done.stdout


def test_version(run):
    assert re.fullmatch(r"insitu \d+\.\d+\S*\n", run("--version").stdout)


def test_a_wrong_command_is_a_usage_error(run):
    done = run("doktor")
    assert done.returncode == 2
    assert "doctor" in done.stderr


def test_a_healthy_application_has_no_problem(findings):
    lines = findings(SHOP, status=0)
    assert having(lines, "ok: shop 2 in qa")
    assert having(lines, "ok: fastapi.FastAPI is instrumented")
    assert having(lines, "ok: /metrics is served")
    assert having(lines, "ok: insitu is the provider")
    assert having(lines, "ok: secrets are taken out")
    assert having(lines, "note: nothing is sent anywhere", "OTEL_EXPORTER_OTLP_ENDPOINT")
    assert having(lines, f"insitu {cli.doctor.version_of('insitu')}", "fastapi")


def test_the_report_is_plain_text_with_a_measured_cost(run):
    done = run("doctor", "shop:app", app=SHOP)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "a greeting" not in done.stdout
    request, span, statement = (float(found) for found in re.findall(r"([\d.]+) µs a", done.stdout))
    assert 0 < span < 1_000
    assert 0 < statement < 1_000
    assert 0 < request < 10_000
    assert re.search(r"^0 problems, \d+ notes?$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_doctor_says_who_answers_for_whom_where_there_is_no_store(findings, tmp_path):
    said = "without a store each worker's /metrics speaks for itself"
    assert having(findings(SHOP, INSITU_STORE="none"), said)
    assert not having(findings(SHOP, INSITU_STORE=str(tmp_path / "kept")), said)


def test_an_ascii_terminal_is_served(run):
    done = run("doctor", app="", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert re.search(r"[\d.]+ \?s a request", done.stdout)


def test_an_application_without_the_line_is_a_problem_with_a_fix(findings):
    lines = findings("from fastapi import FastAPI\napp = FastAPI()\n", status=1)
    assert having(lines, "problem: nothing starts insitu", "insitu.instrument(app)")
    assert having(lines, "problem: fastapi.FastAPI is not instrumented")


@pytest.mark.parametrize("order", ["after", "before"])
def test_opentelemetrys_instrumentation_on_the_same_application_is_found(findings, order):
    package = "opentelemetry.instrumentation.fastapi"
    theirs = f"from {package} import FastAPIInstrumentor\nFastAPIInstrumentor.instrument_app(app)\n"
    app = SHOP + theirs if order == "after" else SHOP.replace("insitu.init(", f"{theirs}insitu.init(")
    (line,) = having(findings(app, status=1), "problem", "opentelemetry-instrumentation-fastapi is on the same")
    assert ("outside of insitu" in line) is (order == "after")
    assert "→ drop FastAPIInstrumentor" in line


def test_a_provider_set_before_insitu_is_found(findings):
    sdk = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
    )
    assert having(
        findings(sdk + SHOP, status=1), "problem: a provider of opentelemetry.sdk.trace was set before insitu"
    )


def test_an_order_that_does_no_harm_is_called_fine(findings):
    lines = findings("import httpx, sqlalchemy\n" + SHOP, status=0)
    for library in ("httpx", "sqlalchemy"):
        assert having(lines, f"ok: {library}: by insitu, whether imported before insitu or after")


def test_a_route_of_the_applications_own_is_named(findings):
    app = SHOP.replace("insitu.init(", '@app.get("/metrics")\ndef metrics(): return 1\ninsitu.init(')
    assert having(findings(app, status=0), "note: the application has a route of its own for /metrics")


@pytest.mark.parametrize("variable", config.SWITCHES)
def test_a_switched_off_insitu_is_found(findings, variable):
    assert having(findings(SHOP, status=1, **{variable: "true"}), f"problem: {variable} switches", f"unset {variable}")


def test_a_bad_value_and_a_misspelt_name_are_found(findings):
    lines = findings(SHOP, status=1, INSITU_SAMPLE="7", INSITU_SAMPEL="0.5", INSITU_EXPORTERS="zipkin")
    assert having(lines, "problem: INSITU_SAMPLE=7 is not valid: give a number from 0 to 1")
    assert having(lines, "problem: INSITU_SAMPEL is set", "did you mean INSITU_SAMPLE?")
    assert having(lines, "problem: there is no exporter zipkin")


def test_surprises_are_noted(findings):
    lines = findings(SHOP, status=0, INSITU_SAMPLE="0.1", INSITU_REDACT="false")
    assert having(lines, "note: traces are sampled (10%)")
    assert having(lines, "note: redaction is off")


def test_a_handler_of_sigterm_that_delivers_nothing_is_noted(findings):
    own = f"import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n{SHOP}"
    assert having(findings(own, status=0, INSITU_SIGNALS="true"), "note: another handler of SIGTERM")
    assert not having(findings(SHOP, status=0, INSITU_SIGNALS="true"), "note: another handler of SIGTERM")


def test_the_coverage_counts_what_calls_others(findings):
    assert having(findings(SHOP, status=0), "ok: coverage: 100%")
    uncovered = findings(SHOP, status=0, INSITU_LIBRARIES="none")
    assert having(uncovered, "note: coverage: 0%")
    assert having(uncovered, "note: httpx: nobody sees its calls", "libraries=")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("app = 1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("import no_such_module\n", "No module named"),
        ("other = 1\n", "no attribute 'app'"),
    ],
)
def test_an_application_that_cannot_be_imported_is_a_problem(findings, app, said):
    assert having(findings(app, status=1), "problem: shop:app cannot be imported", said)


def test_a_bare_callable_must_be_taken_wrapped(findings):
    bare = "import insitu\nasync def app(scope, receive, send): ...\ninsitu.init(service='x')\n"
    assert having(findings(bare, status=1), "problem", "is not instrumented", "app = insitu.instrument(app)")
    assert having(findings(bare + "app = insitu.instrument(app)\n", status=0), "ok: a bare ASGI application is")


def test_a_bare_wsgi_callable_is_known_as_one(findings):
    bare = "import insitu\ndef app(environ, start_response): ...\ninsitu.init(service='x')\n"
    assert having(findings(bare, status=1), "problem", "a bare WSGI callable comes back wrapped")
    assert having(findings(bare + "app = insitu.instrument(app)\n", status=0), "ok: a bare WSGI application is")


def test_flask_is_known_by_itself(findings):
    shop = "import flask, insitu\napp = flask.Flask('shop')\ninsitu.init(service='x')\n"
    assert having(findings(shop, status=1), "problem: flask.Flask is not instrumented", "insitu.instrument(app)")
    assert having(findings(shop + "insitu.instrument(app)\n", status=0), "ok: flask.Flask is instrumented")


DJANGO = """
from django.conf import settings
settings.configure(MIDDLEWARE=[{}])
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
import insitu
insitu.init()
"""
OURS = "'insitu.adapters.django.Middleware'"
OTHER = "'django.middleware.common.CommonMiddleware'"


@pytest.mark.parametrize(
    ("used", "status", "said"),
    [
        (OTHER, 1, ("problem: django.WSGIHandler is not instrumented", "MIDDLEWARE = [")),
        (f"{OURS}, {OTHER}", 0, ("ok: django.WSGIHandler is instrumented",)),
        (
            f"{OTHER}, {OURS}",
            0,
            ("note: django.middleware.common.CommonMiddleware: in front", "put insitu's first"),
        ),
    ],
    ids=["without", "first", "behind"],
)
def test_django_is_known_by_its_middleware(findings, used, status, said):
    assert having(findings(DJANGO.format(used), status=status), *said)


def test_an_instrumentation_package_that_refuses_is_explained(findings, tmp_path):
    info = tmp_path / "pretend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opentelemetry-instrumentation-pretend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[opentelemetry_instrumentor]\npretend = pretend_hooks:Instrumentor\n")
    (tmp_path / "pretend_hooks.py").write_text(
        "class Instrumentor:\n"
        "    is_instrumented_by_opentelemetry = False\n"
        "    def _check_dependency_conflicts(self): return 'wants pretend < 2, but found: 2.1'\n"
        "    def instrument(self, **_): raise AssertionError\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    assert having(findings(SHOP, status=0, PYTHONPATH=path), "note: pretend: not instrumented: wants pretend < 2")


def test_another_monitor_in_the_process_is_noted(findings, tmp_path):
    (tmp_path / "ddtrace.py").touch()
    assert having(findings("import ddtrace\n" + SHOP, status=0), "note: ddtrace patches the libraries as well")


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append((self.path, int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_an_exporter_is_tried_only_when_asked(findings):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://user:hunter2@127.0.0.1:{server.server_port}"
        quiet = findings(SHOP, status=0, OTEL_EXPORTER_OTLP_ENDPOINT=address)
        unasked = [path for path, length in server.seen if not length]
        asked = findings(SHOP, "--check", status=0, OTEL_EXPORTER_OTLP_ENDPOINT=address)
        server.shutdown()
        thread.join()
    assert len(having(quiet, "ok: otlp:", "--check tries it")) == 3
    assert unasked == []
    assert len(having(asked, "ok: otlp:", "it answers")) == 3
    assert sorted(path for path, length in server.seen if not length) == ["/v1/logs", "/v1/metrics", "/v1/traces"]
    assert "hunter2" not in str(quiet + asked)
    dead = findings(SHOP, "--check", status=1, OTEL_EXPORTER_OTLP_ENDPOINT=address)
    assert len(having(dead, "problem: otlp:", "no answer", "start the receiver")) == 3


def test_options_show_each_value_and_who_set_it(run, tmp_path):
    (tmp_path / "insitu.toml").write_text('environment = "qa"\n')
    done = run("options", INSITU_TOKEN="hunter2swordfish", OTEL_SERVICE_NAME="shop")
    assert done.returncode == 0
    for setting in config.SETTINGS:
        assert all(variable in done.stdout for variable in setting.variables)
    assert re.search(r"^service +shop +OTEL_SERVICE_NAME$", done.stdout, re.MULTILINE)
    assert re.search(r"^environment +qa +environment in the configuration file$", done.stdout, re.MULTILINE)
    assert re.search(r"^token +\[redacted\] +INSITU_TOKEN$", done.stdout, re.MULTILINE)
    assert "hunter2" not in done.stdout


def test_the_page_of_options_is_what_the_command_writes():
    assert PAGE.read_text("utf-8") == cli.markdown(), "insitu options --markdown > docs/options.md"
