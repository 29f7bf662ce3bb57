import os
import subprocess
import sys
import textwrap

import pytest

from insitu.store import locks

SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path
    from insitu.store import locks
    sys.exit(locks.take(Path(sys.argv[1])) is None)
""")


def is_free_elsewhere(path):
    return subprocess.run([sys.executable, "-c", SCRIPT, path], check=False).returncode == 0


def test_a_lock_is_one_processs_until_its_file_is_closed(tmp_path):
    handle = locks.take(tmp_path / "lock")
    assert not is_free_elsewhere(tmp_path / "lock")
    assert locks.take(tmp_path / "lock") is None
    os.close(handle)
    assert is_free_elsewhere(tmp_path / "lock")


def test_looking_at_a_lock_takes_nothing(tmp_path):
    looking = locks.open_file(tmp_path / "lock")
    assert not locks.is_held(looking)
    assert is_free_elsewhere(tmp_path / "lock")
    handle = locks.take(tmp_path / "lock")
    assert locks.is_held(looking)
    os.close(handle)
    os.close(looking)


def test_a_program_that_is_started_does_not_inherit_it(tmp_path):
    handle = locks.take(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        os.close(handle)
        assert is_free_elsewhere(tmp_path / "lock")
        child.communicate(b"\n")


def test_a_file_that_cannot_be_made_is_an_error_and_not_somebody_elses(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        locks.take(tmp_path / "nowhere" / "lock")
