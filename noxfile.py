"""Every way to run this repository, each in a virtual environment of its own: ``nox -s NAME -- ARGUMENTS``.

``nox --list`` shows the sessions. Without ``-s``, the quick ones run: tests, lint, types.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Sequence

os.environ["UV_PYTHON_DOWNLOADS"] = "never"  # an interpreter that is not here is an error, not a download
os.environ.pop("PYTHONPATH", None)

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "no" if os.environ.get("CI") else "yes"
nox.options.sessions = ["tests", "lint", "types"]

PYTHONS = ["3.11", "3.12", "3.13"]
BUDGETED = "3.13"  # the Python that the budgets were set on; 3.11 raises, imports and logs at other prices
OURS = ["src", "tests", "tools", "examples", "benchmarks", "noxfile.py", "hatch_build.py"]


OLDEST = [
    *("django==4.2", "fastapi==0.100.0", "flask==2.3.0", "httpx<0.28", "sqlalchemy==2.0.0", "werkzeug<3"),
    *("opentelemetry-api==1.27.0", "opentelemetry-sdk==1.27.0", "orjson==3.9.0", "prometheus-client==0.20.0"),
    *("psutil==5.9.0", "urllib3==2.0.2", "wrapt==1.14.0"),
]
"""The oldest releases that insitu promises to work with: pyproject.toml's lower bounds, and what they need."""


def install(session: nox.Session, *groups: str, pins: Sequence[str] = ()) -> None:
    """Installs insitu itself and these dependency groups of pyproject.toml, some of them in releases of their own."""
    session.install("-e", ".", *(word for group in groups for word in ("--group", group)), *pins)


def pytest(session: nox.Session, *arguments: str) -> None:
    """Runs pytest; the counts also go to .cache/junit, where .ci/run adds them up."""
    session.run("python", "-m", "pytest", f"--junitxml=.cache/junit/{session.name}.xml", *arguments)


def test(session: nox.Session, *arguments: str) -> None:
    """Runs the tests, with the test-suite of the very opentelemetry-api that was installed beside them."""
    install(session, "test")
    session.run("python", "-m", "tools.backends", "install", "opentelemetry-api-tests")
    pytest(session, *arguments, *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The shop: a FastAPI application with traffic, measured by insitu, until Ctrl-C.

    ``nox -s demo -- --seconds 20`` (or INSITU_DEMO_SECONDS=20) ends by itself.
    """
    install(session, "demo")
    # After Ctrl-C the shop still drains and prints its table; nox alone would give it 0.3 s.
    session.run("python", "-m", "examples.shop", *session.posargs, interrupt_timeout=30, terminate_timeout=5)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests on the Python that nox runs with: ``nox -s tests -- tests/core -k redact``; ``-- --slow`` for all."""
    test(session)


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """All tests on every Python that insitu supports; a missing one is an error. One alone: ``nox -s matrix-3.12``."""
    test(session, "--slow")


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The contract of every adapter, and the core, with the oldest releases that insitu supports."""
    install(session, "test", pins=OLDEST)
    old = ("-W", "ignore::DeprecationWarning")  # what they were written against warns of them
    tests = ["tests/core", *(f"tests/adapters/test_{name}.py" for name in ("contracts", "sqlalchemy"))]
    pytest(session, *old, *(session.posargs or tests))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, by every rule of ruff but those that pyproject.toml argues away. To mend: ``ruff check --fix``."""
    session.install("--group", "lint")
    session.run("ruff", "check", *OURS)
    session.run("ruff", "format", "--check", *OURS)


@nox.session
def types(session: nox.Session) -> None:
    """Types, by mypy --strict, of the package and its tools."""
    install(session, "types")
    session.run("mypy", "--strict", "src", "tools")


@nox.session
def structure(session: nox.Session) -> None:
    """The house rules: imports go down only (import-linter), sizes, cycles, the map, the public face."""
    install(session, "test", "structure")
    session.run("lint-imports", "--no-cache")
    pytest(session, "tests/structure")


@nox.session(python=BUDGETED)
def bench(session: nox.Session) -> None:
    """Every budget against its baseline, and docs/benchmarks.md anew; ``-- --gate`` fails where one is broken."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["--write"]))


@nox.session(name="bench-peers", python=BUDGETED)
def bench_peers(session: nox.Session) -> None:
    """The same request measured by other libraries, in an environment of their own because their versions clash."""
    install(session, "bench-peers")
    session.run("python", "-m", "benchmarks", "--peers", *(session.posargs or ["--write"]))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation into ./site, every warning an error. To write with live reload: ``nox -s docs -- serve``."""
    session.install("--group", "docs")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # the theme's advertisement for its successor
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env=quiet)
