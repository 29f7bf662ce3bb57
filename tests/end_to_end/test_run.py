"""`insitu run`: real commands, and applications whose code does not mention insitu."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import insitu
from insitu.cli import AUTOSTART
from tests.servers import free_port, running, until

HERE = Path(__file__).parents[2]
ROOTS = (Path(insitu.__file__).parents[1], HERE, HERE / "examples/django")
INSITU = [sys.executable, "-m", "insitu.cli"]
RUN = [*INSITU, "run", "--service", "site"]
PYTHON = [*RUN, sys.executable]


def environ(folder, **more):
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
        "INSITU_STORE": str(folder / "store"),
        "BLOG_DATABASE": str(folder / "blog.sqlite"),
        "POLLS_DATABASE": str(folder / "polls.sqlite"),
        **more,
    }


def done(folder, *command, code=0, **more):
    """Run a command to its end and return what it printed."""
    ended = subprocess.run(
        command, env=environ(folder, **more), capture_output=True, text=True, timeout=60, check=False, process_group=0
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@contextlib.contextmanager
def site(folder, *command):
    """A client of a server that is up."""
    port = free_port()
    clean = ["env", "-i", *(f"{name}={value}" for name, value in environ(folder).items())]
    words = [word.format(port=port) for word in command]
    address = f"http://127.0.0.1:{port}"
    with running([*clean, *words], f"{address}/metrics", folder / "log"), httpx.Client(base_url=address) as client:
        yield client
    assert "sitecustomize" not in (folder / "log").read_text()


def counted(client):
    """How many requests /metrics has of each route."""
    line = r'^http_server_request_duration_seconds_count{.*http_route="([^"]*)".*} (\d+)'
    return {route: int(number) for route, number in re.findall(line, client.get("/metrics").text, re.MULTILINE)}


def traces(client, route):
    """The spans of the newest trace of a route, once it is stored."""
    asked = {"name": f"GET {route}"}
    found = until(lambda: client.get("/monitoring/traces", params=asked).json()["traces"], what=route)
    return client.get(f"/monitoring/traces/{found[0]['trace_id']}").json()


BLOGS = {
    "flask": ["flask", "--app", "examples.flask.blog", "run", "--port={port}"],
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:{port}", "--workers=2", "examples.flask.blog:create_app()"],
}
POLLS = {
    "runserver": [sys.executable, str(HERE / "examples/django/manage.py"), "runserver", "--noreload", "{port}"],
    "reloading": [sys.executable, str(HERE / "examples/django/manage.py"), "runserver", "{port}"],
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:{port}", "--workers=2", "polls.wsgi"],
    "uvicorn": ["uvicorn", "--port={port}", "--log-level=warning", "polls.asgi:application"],
    "uvicorn, 2 workers": ["uvicorn", "--port={port}", "--workers=2", "--log-level=warning", "polls.asgi:application"],
}


@pytest.mark.parametrize("server", BLOGS)
def test_a_blog_in_flask_is_measured_without_a_change(tmp_path, server):
    with site(tmp_path, *RUN, *BLOGS[server]) as client:
        assert client.post("/authors", data={"name": "ada", "password": "engine"}).status_code == 201
        assert client.post("/session", data={"name": "ada", "password": "engine"}).status_code == 302
        for number in range(3):
            assert client.post("/posts", data={"title": f"Note {number}", "body": "..."}).status_code == 302
        assert client.get("/").text.count("by ada") == 3
        assert client.get("/posts/2").status_code == 200
        assert client.get("/posts/3/share").status_code == 500
        expected = {
            "/authors": 1, "/session": 1, "/posts": 3, "/": 1, "/posts/<int:number>": 1, "/posts/<int:number>/share": 1,
        }  # fmt: skip
        until(lambda: counted(client) == expected, what=f"{expected} in {counted(client)}")
        spans = until(lambda: traces(client, "/")["spans"], what="a trace of the list")
        assert [span["name"] for span in spans].count("SELECT author") == 3


SLOW = ("reloading", "uvicorn")


@pytest.mark.parametrize(
    "server", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in POLLS]
)
def test_polls_in_django_are_measured_without_a_change(tmp_path, server):
    done(tmp_path, sys.executable, str(HERE / "examples/django/manage.py"), "migrate")
    with site(tmp_path, *RUN, *POLLS[server]) as client:
        asked = {"text": "Tea?", "choice": ["yes", "no"]}
        for _ in range(2):
            assert client.post("/questions", data=asked).status_code == 302
        assert client.get("/").text.count("0 votes") == 2
        assert client.post("/questions/1/vote", data={"choice": "1"}).status_code == 302
        assert "yes: 1" in client.get("/questions/1/").text
        assert client.get("/questions/1/close").status_code == 500
        expected = {
            "/questions": 2,
            "/": 1,
            "/questions/<int:number>/": 1,
            "/questions/<int:number>/vote": 1,
            "/questions/<int:number>/close": 1,
        }
        until(lambda: counted(client) == expected, what=f"{expected} in {counted(client)}")
        names = [span["name"] for span in traces(client, "/")["spans"]]
        assert names.count("SELECT polls_choice") == 2


BARE = {
    "uvicorn": ["uvicorn", "--port={port}", "--log-level=warning", "tests.end_to_end.bare:asgi"],
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:{port}", "--preload", "tests.end_to_end.bare:wsgi"],
}


@pytest.mark.parametrize("server", BARE)
def test_an_application_without_a_framework_is_measured_without_a_change(tmp_path, server):
    line = r'^http_server_request_duration_seconds_count{.*http_response_status_code="200".*} (\d+)'
    with site(tmp_path, *RUN, *BARE[server]) as client:
        for _ in range(3):
            assert client.get("/here").text == "here"
        until(lambda: re.findall(line, client.get("/metrics").text, re.MULTILINE) == ["3"], what="three requests")


@pytest.mark.parametrize("target", ["examples.flask.blog:create_app()", "polls.wsgi:application"])
def test_doctor_says_that_everything_is_covered(tmp_path, target):
    report = json.loads(done(tmp_path, *RUN, *INSITU, "doctor", "--json", target))
    assert report["problems"] == 0
    (found,) = [finding for finding in report["findings"] if finding["section"] == "application"][:1]
    assert "is instrumented" in found["text"]


def test_what_the_application_says_itself_holds(tmp_path):
    script = "import insitu; insitu.init(service='own'); print(insitu.runtime.current().options.service.name)"
    assert done(tmp_path, *PYTHON, "-c", script).strip() == "own"


def test_a_script_is_measured_and_delivers_at_its_end(tmp_path):
    script = "import insitu\nwith insitu.span('nightly'): pass"
    done(tmp_path, *PYTHON, "-c", script)
    assert (tmp_path / "store/site").is_dir()
    assert "nightly" in done(tmp_path, *PYTHON, "-c", script, INSITU_EXPORTERS="console")


def test_options_are_arguments_of_run(tmp_path):
    told = "import insitu; print(insitu.runtime.current().options.store.folder or 'nothing')"
    assert done(tmp_path, *RUN, "--store", "none", sys.executable, "-c", told).strip() == "nothing"


def test_the_environments_own_sitecustomize_runs_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('theirs')")
    path = f"{tmp_path}{os.pathsep}{environ(tmp_path)['PYTHONPATH']}"
    program = "import sys, sitecustomize as s; print(s.__file__, [path for path in sys.path if 'autostart' in path])"
    said = done(tmp_path, *PYTHON, "-c", program, PYTHONPATH=path).splitlines()
    assert said[-2:] == ["theirs", f"{tmp_path / 'sitecustomize.py'} []"]


def test_switched_off_it_only_starts_the_command(tmp_path):
    program = "import sys; print('insitu.adapters.automatic' in sys.modules)"
    assert done(tmp_path, *PYTHON, "-c", program, INSITU_DISABLED="1").strip() == "False"


def test_the_exit_code_is_the_commands(tmp_path):
    assert done(tmp_path, *PYTHON, "-c", "raise SystemExit(7)", code=7) == ""


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ([], 2, "run what?"),
        (["no-such-command"], 127, "there is no command no-such-command"),
        (["nightly.py"], 127, "insitu run python nightly.py"),
        ([str(HERE)], 126, "cannot be started"),
    ],
)
def test_what_cannot_be_started_is_said(tmp_path, command, code, says):
    assert says in done(tmp_path, *RUN, *command, code=code)


def test_an_interpreter_without_insitu_says_so_and_goes_on(tmp_path):
    without = "import sys, runpy; sys.modules['insitu'] = None; runpy.run_path(sys.argv[1]); print('goes on')"
    said = done(tmp_path, sys.executable, "-c", without, str(AUTOSTART / "sitecustomize.py"))
    assert "goes on" in said
    assert "pip install insitu" in said
