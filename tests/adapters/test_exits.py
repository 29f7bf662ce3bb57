"""What runs last in children of multiprocessing; servers and scripts stand in tests/end_to_end/test_exits.py."""

import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize("late", [False, True], ids=["started by the parent", "started by the child"])
def test_a_child_delivers_at_its_end(tmp_path, late):
    """Behind the application's own finalizers; where the child has started insitu, Python's `atexit` may be first."""
    lines = tmp_path / "lines"
    program = f"""
        import multiprocessing, multiprocessing.util, insitu

        def start():
            insitu.init(service="x", store="none", libraries=(), exporters=(), log_output={str(lines)!r})

        def job():
            {late} and start()
            multiprocessing.util.Finalize(None, insitu.log.info, args=("finalized",), exitpriority=0)
            insitu.log.info("worked")

        {late} or start()
        process = multiprocessing.get_context("fork").Process(target=job)
        process.start()
        process.join()
        assert process.exitcode == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = lines.read_text()
    assert "worked" in text
    assert late or "finalized" in text
