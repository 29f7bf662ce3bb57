"""How much of what is called is seen."""

import pytest

from insitu import coverage
from insitu.adapters.libraries import Found


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(coverage.libraries, "HOOKS", {"sqlite3": None, "missing_library": None})
    monkeypatch.setattr(coverage, "OTHERS", {"xml": "xml", "json-rpc": "json"})


@pytest.mark.usefixtures("here")
def test_libraries_of_this_environment_are_covered_or_not():
    found = {
        "sqlite3": Found("sqlite3", "waiting for its import", "insitu"),
        "xml": Found("xml", "instrumented", "opentelemetry.instrumentation.xml"),
        "json-rpc": Found("json-rpc", "not instrumented: it failed", "its package"),
    }
    listed = coverage.covered(found)
    assert listed == [
        ("json-rpc", False, ""),
        ("sqlite3", True, "insitu"),
        ("xml", True, "opentelemetry.instrumentation.xml"),
    ]
    assert coverage.share(listed) == pytest.approx(2 / 3)


@pytest.mark.usefixtures("here")
def test_what_nothing_is_known_of_is_not_covered():
    assert [library.covered for library in coverage.covered({})] == [False, False, False]


def test_nothing_to_see_is_all_of_it():
    assert coverage.share([]) == 1
