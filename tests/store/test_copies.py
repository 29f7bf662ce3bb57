import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from insitu.core.questions import Period, TraceSearch
from insitu.store.reader import Reader
from tests.store.facts import START, a_trace
from tests.store.test_store import Store

NOBODY = 65_534


@contextmanager
def without_write_access(folder):
    """Reads alone are allowed in the folder; root, who may do everything, becomes somebody else meanwhile."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def left_behind():
    """Leaves a store as a writer that was killed does, with its log and no index; or as one that has ended."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are for their owner alone
    writers = []

    def take(*names, ended=False, file="one.db"):
        written = folder / f"written-{len(writers)}"
        written.mkdir()
        store = Store(written)
        for number, name in enumerate(names):
            store.put(a_trace(name=name, at=START + number))
        path = store.writer.path
        writers.append(store.writer)
        if ended:
            store.writer.close()
        left = folder / "left"
        left.mkdir(exist_ok=True)
        for suffix in ("",) if ended else ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", left / f"{file}{suffix}")
        return left

    folder.chmod(0o755)
    yield take
    for writer in writers:
        writer.close()
    shutil.rmtree(folder)


def names(reader):
    return [found["name"] for found in reader.traces(TraceSearch(), Period(), 10).found]


def test_what_a_killed_process_has_left_is_read_without_write_access(left_behind):
    folder = left_behind("one", "two")
    reader = Reader(folder, lambda: None)
    with without_write_access(folder):
        before = sorted(path.name for path in folder.iterdir())
        assert names(reader) == ["two", "one"]
        assert sorted(path.name for path in folder.iterdir()) == before


def test_what_has_ended_well_is_read_where_it_lies(left_behind, monkeypatch):
    folder = left_behind("one", ended=True)
    monkeypatch.setattr(shutil, "copyfile", None)
    with without_write_access(folder):
        assert names(Reader(folder, lambda: None)) == ["one"]


def test_copies_go_with_their_reader(left_behind, monkeypatch):
    folder = left_behind("one")
    monkeypatch.setattr(tempfile, "tempdir", str(room := folder.parent / "room"))
    room.mkdir()
    room.chmod(0o777)
    reader = Reader(folder, lambda: None)
    with without_write_access(folder):
        assert names(reader) == ["one"]
    assert "one.db" in {path.name for path in room.glob("*/*")}
    del reader
    assert list(room.iterdir()) == []


def test_a_copy_is_made_anew_when_its_original_has_changed_and_only_then(left_behind, monkeypatch):
    copied = []
    copyfile = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: (copied.append(paths), copyfile(*paths)))
    folder = left_behind("one")
    reader = Reader(folder, lambda: None)
    copied.clear()
    with without_write_access(folder):
        assert (names(reader), names(reader)) == (["one"], ["one"])
        assert len(copied) == 2  # the database and its log
    left_behind("one", "two", "three")
    with without_write_access(folder):
        assert names(reader) == ["three", "two", "one"]


def test_a_copy_goes_with_its_original(left_behind, monkeypatch):
    folder = left_behind("one")
    monkeypatch.setattr(tempfile, "tempdir", str(room := folder.parent / "room"))
    room.mkdir()
    room.chmod(0o777)
    reader = Reader(folder, lambda: None)
    with without_write_access(folder):
        assert names(reader) == ["one"]
    for path in folder.iterdir():
        path.unlink()
    left_behind("two", file="two.db")
    with without_write_access(folder):
        assert names(reader) == ["two"]
    assert {path.name.partition(".")[0] for path in room.glob("*/*")} == {"two"}


def test_where_there_is_no_room_for_a_copy_it_is_said_and_the_other_files_are_read(left_behind, monkeypatch, caplog):
    folder = left_behind("one")
    left_behind("other", ended=True, file="other.db")
    monkeypatch.setattr(shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    reader = Reader(folder, lambda: None)
    with without_write_access(folder):
        assert names(reader) == ["other"]
    assert "cannot be read where it lies, nor copied ([Errno 28] No space left on device)" in caplog.text
