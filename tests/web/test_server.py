import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from insitu.testing import FakeClock
from tests.store.facts import a_log, a_trace
from tests.store.test_store import Store, place_for


@pytest.fixture
def kept(tmp_path):
    """A store in which a process has left a trace and a log record."""
    store = Store(place_for(str(tmp_path / "kept"), "shop"))
    store.put(a_trace(name="GET /slow", kept="slow"), a_log("order placed"))
    store.writer.close()
    return tmp_path / "kept"


@pytest.fixture
def serve(kept):
    """Runs `insitu serve` and returns where it answers."""
    command = [sys.executable, "-m", "insitu.cli", "serve", "--store", str(kept), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()
        process.communicate()


def read(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return json.loads(answer.read())


def test_a_store_is_looked_at_with_no_application_running(serve):
    assert [found["name"] for found in read(f"{serve}traces?reason=slow")["traces"]] == ["GET /slow"]
    assert [found["body"] for found in read(f"{serve}logs")["logs"]] == ["order placed"]
    assert read(f"{serve}openapi.json")["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("traces?limit=none", {}, 400),
        ("nothing", {}, 404),
        ("../../etc/passwd", {}, 404),
        ("traces", {"Host": "evil.example"}, 401),
        ("traces", {"X-Forwarded-For": "203.0.113.9"}, 401),
    ],
)
def test_what_may_not_be_read_is_refused(serve, path, headers, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        read(serve + path, **headers)
    with refused.value as answer:
        assert answer.status == status


@pytest.mark.parametrize("arguments", [["--store", "nowhere"], ["--service", "other"], ["--port", "99999"]])
def test_what_cannot_be_served_is_told_with_what_can(kept, arguments):
    command = [sys.executable, "-m", "insitu.cli", "serve", "--store", str(kept), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert any(word in done.stderr for word in ("nothing that you may read is stored", "it has shop", "--port 0"))


def test_of_several_services_one_is_chosen(kept):
    other = Store(place_for(str(kept), "recommender"))
    other.clock = FakeClock()
    other.put(a_log("other"))
    other.writer.close()
    command = [sys.executable, "-m", "insitu.cli", "serve", "--store", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "it has recommender, shop: choose one by --service" in done.stderr) == (2, True)
