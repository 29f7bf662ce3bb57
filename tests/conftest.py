"""What every test may ask for: the real servers of tests/servers.py."""

import os

import pytest

pytest.register_assert_rewrite("insitu.contracts")
pytest_plugins = ["tests.servers", "tests.postgresql", "tests.mariadb"]

# Tests that want a store say where; what they start inherits this.
os.environ.setdefault("INSITU_STORE", "none")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that take long, too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long: --slow runs it"))
