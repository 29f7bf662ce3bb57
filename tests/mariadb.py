"""A MariaDB that all tests share: in a temporary folder, on loopback, gone when the session ends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import backend, free_port, running


@pytest.fixture(scope="session")
def mariadb_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a MariaDB on 127.0.0.1, with an empty database `shop`; everybody is let in without a password."""
    program, folder, port = backend("mariadb"), tmp_path_factory.mktemp("mariadb"), free_port()
    (folder / "data").mkdir()
    # Its messages are beside it in /usr, or in the folder that it was unpacked into.
    home = next(each for each in (program.parents[1], program.parents[1] / "usr") if (each / "share").is_dir())
    options = {"basedir": home, "datadir": folder / "data", "socket": folder / "socket", "bind-address": "127.0.0.1"}
    command = [str(program), "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
    command += ["--skip-grant-tables", "--skip-networking=0", f"--port={port}"]  # so it asks for no tables of its own
    command += ["--user=root"] if os.geteuid() == 0 else []

    import pymysql  # not every environment that collects tests has it

    def prepare() -> None:
        try:
            with pymysql.connect(host="127.0.0.1", port=port, user="tester") as connection:
                connection.cursor().execute("CREATE DATABASE IF NOT EXISTS shop")
        except pymysql.OperationalError as error:
            raise ConnectionError from error

    with running(command, prepare, folder / "log"):
        yield port
