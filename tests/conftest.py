"""What every test may ask for: the real servers of tests/servers.py."""

import os

import pytest

pytest.register_assert_rewrite("insitu.contracts")
pytest_plugins = ["tests.servers", "tests.postgresql", "tests.mariadb"]

# Tests that want a store say where; what they start inherits this.
os.environ.setdefault("INSITU_STORE", "none")
