import os
import subprocess
import sys

import pytest

from insitu.store import family
from insitu.store.family import family_of, gate, remove_dead, started


def test_a_family_can_be_named():
    assert family_of({"INSITU_INSTANCE": "blue/1"}) == ("named-blue_1", False)


def test_a_process_that_nobody_of_its_kind_started_is_a_family_of_its_own():
    script = "import os; from insitu.store.family import family_of; print(*family_of({}), os.getpid())"
    # A group of its own, as a shell gives to whatever it starts.
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, process_group=0)
    name, alone, pid = told.stdout.split()
    assert alone == "True"
    assert name == f"{pid}-{name.partition('-')[2]}"


def test_children_however_they_begin_are_of_their_parents_family(tmp_path):
    script = """if True:
        import multiprocessing, os
        from insitu.store.family import family_of
        def told(queue): queue.put(family_of({}))
        if __name__ == "__main__":
            found = [family_of({})]
            for how in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(how)
                queue = context.SimpleQueue()
                child = context.Process(target=told, args=(queue,))
                child.start(); found.append(queue.get()); child.join()
            print(len({each.name for each in found}), *(each.alone for each in found))
    """
    file = tmp_path / "script.py"  # children import it
    file.write_text(script, encoding="utf-8")
    told = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True, process_group=0)
    assert told.stdout.split() == ["1", "True", "False", "False", "False"]


def test_when_a_process_began_is_known_as_long_as_it_lives():
    assert started(os.getpid()) == started(os.getpid()) != ""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert started(gone.pid) == ""


def test_the_gate_is_shared_by_readers_and_one_writers_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "_ALONE_SECONDS", 0.01)
    with gate(tmp_path, alone=False) as first, gate(tmp_path, alone=False) as second:
        assert (first, second) == (True, True)
        with gate(tmp_path, alone=True) as third:
            assert not third
    with gate(tmp_path, alone=True) as held, gate(tmp_path, alone=False) as reader:
        assert (held, reader) == (True, False)


@pytest.mark.parametrize(("name", "stays"), [("999999999-1", False), (f"{os.getpid()}-1", False), ("named-x", True)])
def test_the_folders_of_families_that_are_no_more_are_removed(tmp_path, name, stays):
    for each in (name, "mine", family_of({}).name):
        (tmp_path / each).mkdir()
        with gate(tmp_path / each, alone=True):
            (tmp_path / each / "000.val").write_bytes(b"")
    remove_dead(tmp_path, "mine")
    left = {path.name for path in tmp_path.iterdir()}
    assert (name in left) == stays
    assert {"mine", family_of({}).name} <= left
