#!/usr/bin/env python3
"""The real servers that tests talk to: found on this machine, or fetched once into a cache.

    python -m tools.backends list
    python -m tools.backends install                      # everything
    python -m tools.backends install prometheus promtool

Tests ask ``path("prometheus")`` and never install anything themselves. The cache is ``$INSITU_BACKENDS``, by default
``~/.cache/insitu-backends``; delete it to start over. Packages come from where this machine takes its own: apt's
configured Debian mirror (no root needed, nothing on the system changes) and pip's configured index.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


class Missing(RuntimeError):
    """The server is neither on this machine nor in the cache; the message names the command that fetches it."""


@dataclass(frozen=True)
class Debian:
    """A program in a Debian package.

    Attributes:
        package: the package to unpack.
        program: the executable's name in its ``/usr/bin``.
        suite: the Debian release to take it from; None means the machine's own, whose ``PATH`` is then looked at first.
    """

    package: str
    program: str
    suite: str | None = None

    def find(self) -> Path | None:
        """Where the program is: installed on the system, or unpacked in the cache."""
        system = shutil.which(self.program) if self.suite is None else None
        return Path(system) if system else existing(self.folder() / "usr/bin" / self.program)

    def folder(self) -> Path:
        """The folder that the package is unpacked into."""
        return cache() / "debian" / (self.suite or "system") / self.package

    def install(self) -> None:
        """Downloads the package with apt in folders of our own and unpacks it: no root, no change to the system."""
        private = cache() / "apt" / (self.suite or "system")
        options = apt_options(private, self.suite)
        run("apt-get", *options, "-qq", "update")
        with tempfile.TemporaryDirectory(dir=private) as work:
            run("apt-get", *options, "-qq", "download", *self.packages(options), cwd=work)
            unpacked = Path(work, "unpacked")
            for archive in sorted(Path(work).glob("*.deb")):
                run("dpkg", "-x", str(archive), str(unpacked))
            self.complete(unpacked)
            shutil.rmtree(self.folder(), ignore_errors=True)
            self.folder().parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(self.folder())

    def packages(self, _options: list[str]) -> list[str]:
        """What to download, decided by an apt with these options."""
        return [self.package]

    def complete(self, unpacked: Path) -> None:
        """Adds to the unpacked files what the program needs to run from there."""


@dataclass(frozen=True)
class Launched(Debian):
    """A program in a Debian package that is fetched with all that this machine lacks for it: libraries, above all.

    A launcher starts it from wherever the folder is.

    Attributes:
        executable: the program itself. What is in ``/usr/bin`` may be a script that knows only the system's folders.
        also: packages that come along whether this machine has them or not.
    """

    executable: str = ""
    also: tuple[str, ...] = ()

    def find(self) -> Path | None:
        """Where the program is: installed on the system, or its launcher in the cache."""
        system = shutil.which(self.program) if self.suite is None else None
        return Path(system) if system else existing(self.launcher(self.folder()))

    def launcher(self, folder: Path) -> Path:
        """The script that starts the program out of ``folder``."""
        return folder / "launch" / self.program

    def packages(self, options: list[str]) -> list[str]:
        """The program, what comes along, and all that apt would have to install for it on this machine."""
        plan = run("apt-get", *options, "-qq", "--simulate", "install", "--no-install-recommends", self.package)
        lacking = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")}
        return sorted(lacking | {self.package, *self.also})

    def complete(self, unpacked: Path) -> None:
        """Writes the launcher."""
        # Every folder with a library: some are private to a package, which finds them under /usr/lib alone.
        libraries = sorted({f"$root/{file.parent.relative_to(unpacked)}" for file in unpacked.rglob("lib*.so*")})
        launcher = self.launcher(unpacked)
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(self.script(":".join(libraries)), encoding="utf-8")
        launcher.chmod(0o755)

    def script(self, libraries: str) -> str:
        """The launcher's text."""
        return LAUNCHER.format(libraries=libraries, settings="", executable=self.executable)


@dataclass(frozen=True)
class PostgreSQL(Launched):
    """PostgreSQL in the version of this machine's release, whose package depends on the one that carries its number."""

    def find(self) -> Path | None:
        """The folder of its programs: installed on the system, or of their launchers in the cache."""
        installed = list(Path("/usr/lib/postgresql").glob(f"*/bin/{self.program}"))
        return installed[0].parent if installed else existing(self.launcher(self.folder()).parent)

    def packages(self, options: list[str]) -> list[str]:
        """The server, whether this machine has it or not, and all that it lacks for it."""
        depends = run("apt-cache", *options, "depends", self.package)
        server = next(word for word in depends.split() if re.fullmatch(r"postgresql-\d+", word))
        return Launched(server, self.program).packages(options)

    def complete(self, unpacked: Path) -> None:
        """Writes a launcher for each of its programs."""
        for program in ("initdb", "postgres"):
            (found,) = unpacked.glob(f"usr/lib/postgresql/*/bin/{program}")
            one = Launched(self.package, program, self.suite, str(found.relative_to(unpacked)))
            one.complete(unpacked)


@dataclass(frozen=True)
class Desktop(Launched):
    """A program with a screen. It sees only the fonts that came with it: a page looks alike on every machine."""

    def complete(self, unpacked: Path) -> None:
        """Writes the launcher, and the configuration that leads to the fonts."""
        super().complete(unpacked)
        self.launcher(unpacked).with_name("fonts.conf").write_text(FONTS, encoding="utf-8")

    def script(self, libraries: str) -> str:
        """The launcher's text, which names the fonts."""
        settings = 'export FONTCONFIG_FILE="$root/launch/fonts.conf"\n'
        return LAUNCHER.format(libraries=libraries, settings=settings, executable=self.executable)


LAUNCHER = """\
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")
export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
{settings}exec "$root/{executable}" "$@"
"""

FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir prefix="relative">../usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>serif</family><prefer><family>DejaVu Serif</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@dataclass(frozen=True)
class PyPI:
    """A program in a Python package, which gets a virtual environment of its own.

    Attributes:
        requirement: what to install, with its bounds.
        program: the executable's name among the environment's scripts.
    """

    requirement: str
    program: str

    def find(self) -> Path | None:
        """Where the program is, in the environment of the cache."""
        return existing(self.folder() / "bin" / self.program)

    def folder(self) -> Path:
        """The virtual environment."""
        return cache() / "pypi" / self.program

    def install(self) -> None:
        """Makes the environment and installs the requirement into it."""
        run(sys.executable, "-m", "venv", "--clear", str(self.folder()))
        run(str(self.folder() / "bin/python"), "-m", "pip", "install", "--quiet", self.requirement)


@dataclass(frozen=True)
class Tests:
    """The test suite in a Python package's source distribution, of the very version that is installed here.

    Attributes:
        package: whose tests.
        aid: the package that they import to test with. Only its files are taken: what it requires would move the
            versions under test.
    """

    package: str
    aid: str

    def find(self) -> Path | None:
        """Where the unpacked source distribution is; ``tests`` and ``aid`` are folders in it."""
        return existing(self.folder())

    def folder(self) -> Path:
        """The folder that the source distribution is unpacked into."""
        return cache() / "tests" / f"{self.package}-{metadata.version(self.package)}"

    def install(self) -> None:
        """Downloads and unpacks the source distribution, and puts the aid beside its tests."""
        pip = (sys.executable, "-m", "pip", "--quiet")
        self.folder().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder().parent) as work:
            wanted = f"{self.package}=={metadata.version(self.package)}"
            run(*pip, "download", "--no-deps", "--no-binary", ":all:", wanted, cwd=work)
            (archive,) = Path(work).glob("*.tar.gz")
            shutil.unpack_archive(archive, Path(work, "unpacked"), filter="data")
            (unpacked,) = Path(work, "unpacked").iterdir()
            run(*pip, "install", "--no-deps", "--target", str(unpacked / "aid"), self.aid)
            unpacked.rename(self.folder())


BACKENDS: dict[str, Debian | PyPI | Tests] = {
    "prometheus": Debian("prometheus", "prometheus"),
    "promtool": Debian("prometheus", "promtool"),  # bookworm's package carries both
    "prometheus-3": Debian("prometheus", "prometheus", suite="forky"),
    "promtool-3": Debian("promtool", "promtool", suite="forky"),
    "alertmanager": Debian("prometheus-alertmanager", "prometheus-alertmanager"),
    "chromium": Desktop("chromium", "chromium", executable="usr/lib/chromium/chromium", also=("fonts-dejavu-core",)),
    "redis-server": Launched(  # its package holds a link, to the program in the package of the tools
        "redis-server", "redis-server", executable="usr/bin/redis-server", also=("redis-tools",)
    ),
    "postgresql": PostgreSQL("postgresql", "postgres"),
    "mariadb": Launched("mariadb-server-core", "mariadbd", executable="usr/sbin/mariadbd"),
    "ddapm-test-agent": PyPI("ddapm-test-agent>=1.69", "ddapm-test-agent"),
    "opentelemetry-api-tests": Tests("opentelemetry-api", "opentelemetry-test-utils"),
}


def path(name: str) -> Path:
    """The executable of a server, or the folder of a test suite.

    Args:
        name: one of the names that ``python -m tools.backends list`` prints.

    Raises:
        Missing: it is not here; the message names the command that fetches it.
        KeyError: no such name.
    """
    found = BACKENDS[name].find()
    if found is None:
        message = f"{name} is not on this machine; fetch it with: python -m tools.backends install {name}"
        raise Missing(message)
    return found


def install(name: str) -> Path:
    """Fetches a server unless it is here already, one process at a time, and returns what ``path`` does."""
    with locked():
        if BACKENDS[name].find() is None:
            BACKENDS[name].install()
    return path(name)


def cache() -> Path:
    """The folder that holds what was fetched."""
    return Path(os.environ.get("INSITU_BACKENDS") or Path.home() / ".cache/insitu-backends")


def existing(file: Path) -> Path | None:
    """The file, if it is there."""
    return file if file.exists() else None


def apt_options(private: Path, suite: str | None) -> list[str]:
    """Options that keep apt inside ``private``, and point it at ``suite`` on the mirror this machine already uses."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    options = [f"Dir::State::Lists={private}/lists", f"Dir::Cache={private}/cache", "APT::Sandbox::User="]
    if suite:
        sources = private / "sources.list"
        sources.write_text(f"deb {mirror()} {suite} main\n", encoding="utf-8")
        options += [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=-"]
    return [word for option in options for word in ("-o", option)]


def mirror() -> str:
    """The address of the Debian archive in apt's own configuration."""
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main")
    for address in targets.split():
        if address.rstrip("/").endswith("/debian"):
            return address
    message = "apt knows no Debian archive on this machine"
    raise Missing(message)


def run(*command: str, cwd: str | None = None) -> str:
    """Runs a command and returns its output; a failure carries what the command said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return done.stdout


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Holds the cache for one process, so that parallel sessions fetch once."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.backends", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, and where it was found")
    fetch = commands.add_parser("install", help="fetch what is missing")
    fetch.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BACKENDS)}; all of them by default")
    options = parser.parse_args()
    if options.command == "list":
        for name, backend in BACKENDS.items():
            print(f"{name:<24} {backend.find() or '-'}")
        return 0
    unknown = set(options.names) - set(BACKENDS)
    if unknown:
        parser.error(f"no such backend: {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    for name in options.names or BACKENDS:
        print(f"{name:<24} {install(name)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
