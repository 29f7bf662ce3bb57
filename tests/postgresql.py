"""A PostgreSQL that all tests share: a cluster in a temporary folder, on loopback, gone when the session ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.servers import backend, free_port, running

USER, DATABASE = "tester", "postgres"


@dataclass(frozen=True)
class PostgreSQL:
    """Where a running PostgreSQL listens; everybody is let in without a password.

    Attributes:
        port: on 127.0.0.1.
    """

    port: int
    host: str = "127.0.0.1"
    user: str = USER
    database: str = DATABASE

    @property
    def address(self) -> str:
        """What stands behind the ``//`` of its URLs."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"

    @property
    def url(self) -> str:
        """Its URL, as libpq and asyncpg take it."""
        return f"postgresql://{self.address}"


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL without SSL, which may lose everything in a power cut; its database is empty at first."""
    programs, folder = backend("postgresql"), tmp_path_factory.mktemp("postgresql")
    server = PostgreSQL(free_port())
    # It refuses to run as root: where we are that, it is somebody else in a user namespace of its own.
    user = ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []
    cluster = ["--pgdata", str(folder / "cluster")]
    initdb = [*user, str(programs / "initdb"), *cluster, "--auth=trust", "--no-sync", "--encoding=UTF8"]
    made = subprocess.run(
        [*initdb, "--locale=C", f"--username={server.user}"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr

    import psycopg  # not every environment that collects tests has it

    def answer() -> None:
        try:
            psycopg.connect(server.url).close()
        except psycopg.OperationalError as error:
            raise ConnectionError from error

    options = {"port": server.port, "listen_addresses": server.host, "unix_socket_directories": "", "fsync": "off"}
    settings = [word for name, value in {**options, "jit": "off"}.items() for word in ("-c", f"{name}={value}")]
    with running([*user, str(programs / "postgres"), "-D", cluster[1], *settings], answer, folder / "log"):
        yield server
