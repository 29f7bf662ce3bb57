"""Which libraries are watched, by whom, and what `doctor` can say of it."""

import json
import logging
import os
import subprocess
import sys
from importlib import metadata

import pytest

from insitu.adapters import libraries
from insitu.testing import recording

PACKAGE = """
from opentelemetry import trace

class Instrumentor:
    calls = []
    is_instrumented_by_opentelemetry = {instrumented}

    def _check_dependency_conflicts(self):
        return {conflict!r}

    def instrument(self, **options):
        self.calls.append(options)
        if {fails}:
            raise RuntimeError("cannot")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs packages that offer an instrumentation, as opentelemetry-instrumentation-* do."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(libraries, "found", {})

    def install(name, *, instrumented=False, conflict=None, fails=False, entry=None):
        module = f"invented_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(
            PACKAGE.format(instrumented=instrumented, conflict=conflict, fails=fails)
        )
        folder = tmp_path / f"{module}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        target = entry or f"{module}:Instrumentor"
        (folder / "entry_points.txt").write_text(f"[opentelemetry_instrumentor]\n{name} = {target}\n")
        metadata.FastPath.__new__.cache_clear()  # MetadataPathFinder.invalidate_caches cannot be called on 3.11
        return lambda: sys.modules[module].Instrumentor.calls if module in sys.modules else None

    yield install
    for module in [name for name in sys.modules if name.startswith("invented_")]:
        del sys.modules[module]


def only_ours(monkeypatch):
    """Leaves the real packages of this machine out, and our own hooks, which would stay in this process."""
    monkeypatch.setattr(libraries, "HOOKS", {})
    every = metadata.entry_points
    monkeypatch.setattr(
        libraries.metadata,
        "entry_points",
        lambda **wanted: [entry for entry in every(**wanted) if entry.value.startswith(("invented", "nowhere"))],
    )


def test_what_is_installed_is_switched_on(package, monkeypatch):
    calls = package("rabbit")
    only_ours(monkeypatch)
    with recording(libraries="auto"):
        assert len(calls()) == 1
        assert libraries.found["rabbit"] == ("rabbit", "instrumented", "invented_rabbit:Instrumentor")


def test_what_the_application_has_instrumented_already_is_left_alone(package, monkeypatch):
    calls = package("rabbit", instrumented=True)
    only_ours(monkeypatch)
    with recording(libraries="auto"):
        assert calls() == []
        assert libraries.found["rabbit"] == ("rabbit", "instrumented", "the application")


def test_what_its_library_does_not_satisfy_is_left_alone_and_the_reason_kept(package, monkeypatch):
    calls = package("rabbit", conflict="requires rabbit < 2, found 3")
    only_ours(monkeypatch)
    with recording(libraries="auto"):
        assert calls() == []
        assert libraries.found["rabbit"].state == "not instrumented: requires rabbit < 2, found 3"


@pytest.mark.parametrize(
    "trouble", [{"fails": True}, {"entry": "nowhere_at_all:Thing"}, {"entry": "invented_rabbit:Missing"}]
)
def test_one_that_fails_hurts_nobody_and_is_told(package, monkeypatch, trouble):
    package("rabbit", **trouble)
    healthy = package("tortoise")
    only_ours(monkeypatch)
    with recording(libraries="auto", strict=False):
        assert len(healthy()) == 1
        assert libraries.found["rabbit"].state.startswith("not instrumented: ")
        assert libraries.found["tortoise"].state == "instrumented"


def test_by_name_only_what_was_named_is_switched_on(package, monkeypatch):
    rabbit, tortoise = package("rabbit"), package("tortoise")
    only_ours(monkeypatch)
    with recording(libraries=["tortoise"]):
        assert (rabbit(), len(tortoise())) == (None, 1)
        assert set(libraries.found) == {"tortoise"}


def test_none_means_none(package, monkeypatch):
    rabbit = package("rabbit")
    only_ours(monkeypatch)
    with recording(libraries=()):
        assert rabbit() is None
        assert libraries.found == {}


@pytest.mark.parametrize("name", ["httpx", "requests"])
def test_a_hook_of_ours_that_is_named_is_alone(package, monkeypatch, name):
    theirs, hook = package(name), {"httpx": "httpx", "requests": "urllib3"}[name]
    only_ours(monkeypatch)
    hooked = []
    monkeypatch.setattr(libraries, "HOOKS", {hook: hooked.append})
    monkeypatch.setattr(libraries, "module_of", lambda _: "json")
    monkeypatch.setattr(json, "__insitu__", False, raising=False)
    with recording(libraries=[name]):
        assert (hooked, theirs()) == ([json], None)
        assert set(libraries.found) == {hook}


@pytest.mark.parametrize("name", sorted(libraries.OWN_WORK - {"requests"}))
def test_what_we_do_ourselves_is_not_left_to_another_unless_named(package, monkeypatch, name):
    calls = package(name)
    only_ours(monkeypatch)
    with recording(libraries="auto"):
        assert calls() is None
    with recording(libraries=[name]):
        assert len(calls()) == 1


def test_a_name_that_nobody_knows_is_told(package, monkeypatch, caplog):
    only_ours(monkeypatch)
    with caplog.at_level(logging.WARNING, "insitu"), recording(libraries=["no-such-thing"]):
        pass
    assert "no-such-thing" in caplog.text


def test_a_library_is_hooked_when_it_is_imported_and_only_once(package, monkeypatch, tmp_path):
    hooked = []
    (tmp_path / "invented_late.py").write_text("")
    only_ours(monkeypatch)
    monkeypatch.setattr(libraries, "HOOKS", {"invented_late": hooked.append})
    with recording(libraries="auto"):
        assert libraries.found["invented_late"] == ("invented_late", "waiting for its import", "insitu")
        import invented_late

        assert hooked == [invented_late]
        assert libraries.found["invented_late"] == ("invented_late", "instrumented", "insitu")
    with recording(libraries="auto"):
        assert hooked == [invented_late]
        assert libraries.found["invented_late"].state == "instrumented"


def test_an_instrumentation_with_another_name_than_its_library_waits_for_that(package, monkeypatch, tmp_path):
    (tmp_path / "invented_hare.py").write_text("")
    monkeypatch.setitem(libraries._LIBRARIES, "rabbit", "invented_hare")
    calls = package("rabbit")
    only_ours(monkeypatch)
    with recording(libraries="auto"):
        assert calls() is None
        import invented_hare

        assert invented_hare
        assert len(calls()) == 1


def test_whether_a_library_is_installed_is_known_without_importing_it():
    assert libraries.installed("json")
    assert libraries.installed("aiohttp-client")
    assert not libraries.installed("no_such_library_at_all")


REAL = """
import json, sys
import insitu
from insitu.adapters import libraries
insitu.init(service="auto", exporters=())
before = sorted(name for name in ("aiohttp", "httpx", "httpx2", "jinja2", "sqlalchemy") if name in sys.modules)
import aiohttp, httpx, httpx2, jinja2, requests, sqlalchemy
print(json.dumps([before, {name: list(found) for name, found in libraries.found.items()}]))
insitu.shutdown()
"""


def test_with_real_packages_our_own_hooks_stand_and_nobody_elses_does_their_work():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INSITU", "OTEL"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REAL],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    imported, found = json.loads(done.stdout)
    assert imported == []  # nobody pays for a library that the application does not use
    for name in ("aiohttp-client", "httpx", "httpx2", "sqlalchemy", "urllib3"):
        assert found[name] == [name, "instrumented", "insitu"]
    assert found["jinja2"] == ["jinja2", "instrumented", "opentelemetry.instrumentation.jinja2:Jinja2Instrumentor"]
    assert not {"fastapi", "requests"} & found.keys()
    assert done.stderr == ""


@pytest.mark.parametrize(("name", "library"), [("jinja2", "jinja2"), ("aiohttp-client", "aiohttp")])
def test_a_library_that_is_installed_and_not_used_is_not_imported(name, library):
    """The instrumentation of jinja2 imports it when it is loaded; that of aiohttp has another name."""
    program = f"import sys, insitu; insitu.init(store='none'); assert '{library}' not in sys.modules; import {library}"
    program += f"; from insitu.adapters.libraries import found; print(found['{name}'].state)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("instrumented\n", "")
