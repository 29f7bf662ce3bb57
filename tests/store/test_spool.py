"""What no back-end took in time, and how it gets there after all."""

import multiprocessing
import os

import pytest

from insitu.store import spool as spools
from insitu.store.spool import Spool
from insitu.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def spool(tmp_path, clock):
    return Spool(tmp_path / "spool" / "otlp", clock)


def taken(spool, *, done=True):
    with spool.oldest() as left:
        if left is None:
            return None
        left.done = done
        return left.signal, left.items, left.body


def test_what_is_kept_comes_back_the_oldest_first_and_once(spool, clock):
    for number in range(3):
        assert spool.keep("traces", number + 1, b"request %d\n" % number)
        clock.advance(1)
    assert [taken(spool) for _ in range(4)] == [
        ("traces", 1, b"request 0\n"),
        ("traces", 2, b"request 1\n"),
        ("traces", 3, b"request 2\n"),
        None,
    ]


def test_what_was_not_sent_after_all_stays(spool):
    spool.keep("logs", 5, b"request")
    assert taken(spool, done=False) == taken(spool) == ("logs", 5, b"request")
    assert taken(spool) is None


def test_another_process_finds_it_and_two_never_hold_the_same(spool, tmp_path, clock):
    spool.keep("logs", 1, b"one")
    other = Spool(tmp_path / "spool" / "otlp", clock)
    with spool.oldest() as held:
        assert held.body == b"one"
        assert taken(other) is None
    assert taken(other) == ("logs", 1, b"one")


def test_it_never_takes_more_than_its_cap(spool, monkeypatch):
    monkeypatch.setattr(spools, "BYTES", 1_000)
    kept = [spool.keep("logs", 1, bytes(300)) for _ in range(5)]
    assert kept == [True, True, True, False, False]


def test_it_never_has_more_than_so_many_files(spool, monkeypatch):
    monkeypatch.setattr(spools, "FILES", 3)
    assert [spool.keep("logs", 1, b"x") for _ in range(5)] == [True, True, True, False, False]


def test_nobody_else_may_read_it(spool, tmp_path):
    spool.keep("logs", 1, b"x")
    (file,) = (tmp_path / "spool" / "otlp").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_what_a_killed_process_had_begun_to_write_is_nobodys_request(spool, tmp_path, clock):
    spool.keep("logs", 1, b"a whole request")
    (file,) = (tmp_path / "spool" / "otlp").iterdir()
    os.truncate(file, file.stat().st_size - 3)
    assert taken(spool) is None
    assert list((tmp_path / "spool" / "otlp").iterdir()) == []


def test_what_is_too_old_comes_back_empty_to_be_counted(spool, clock):
    spool.keep("logs", 7, b"old")
    clock.advance(2 * 24 * 3600)
    assert taken(spool) == ("logs", 7, b"")


def test_a_damaged_file_is_in_nobodys_way(spool, tmp_path, clock):
    spool.keep("logs", 1, b"good")
    (tmp_path / "spool" / "otlp" / f"{0:020d}-x.request").write_bytes(b"\x00\xffnonsense")
    assert taken(spool) == ("logs", 1, b"good")


def test_where_nothing_can_be_written_it_says_so(tmp_path, clock):
    (tmp_path / "file").write_text("")
    assert Spool(tmp_path / "file" / "otlp", clock).keep("logs", 1, b"x") is False


def _kill_while_sending(folder):
    with Spool(folder, FakeClock()).oldest():
        os.kill(os.getpid(), 9)


def test_a_process_that_is_killed_while_it_sends_leaves_it_to_the_next(spool, tmp_path):
    spool.keep("logs", 1, b"one")
    child = multiprocessing.get_context("spawn").Process(
        target=_kill_while_sending, args=(tmp_path / "spool" / "otlp",)
    )
    child.start()
    child.join(30)
    assert child.exitcode == -9
    assert taken(spool) == ("logs", 1, b"one")
