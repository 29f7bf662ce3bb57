"""A thousand forks of a process whose threads never stop recording."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.test_workers import environ

FORKS = 1_000
SCRIPT = """
import json, os, threading, time
import insitu

insitu.init(service="forks")
jobs = insitu.counter("jobs")
busy = True

def record():
    while busy:
        with insitu.span("work", number=1):
            jobs.add(1)
            insitu.log.info("worked")
        time.sleep(0.0005)

threads = [threading.Thread(target=record) for _ in range(2)]
for thread in threads:
    thread.start()
stuck, began = 0, time.monotonic()
for number in range({forks}):
    child = os.fork()
    if not child:
        with insitu.span("child"):
            jobs.add(1)
            insitu.log.info("worked")
        done = insitu.flush(5) if number % 10 == 0 else True
        os._exit(0 if done else 1)
    deadline = time.monotonic() + 30
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            stuck += status != 0
            break
        if time.monotonic() > deadline:
            stuck += 1
            os.kill(child, 9)
            os.waitpid(child, 0)
            break
        time.sleep(0.0005)
busy = False
for thread in threads:
    thread.join()
print(json.dumps({{"stuck": stuck, "seconds": time.monotonic() - began}}))
"""


@pytest.mark.slow
def test_a_thousand_forks_under_load_leave_nobody_locked(tmp_path):
    """FAULTS 16."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT.format(forks=FORKS)],
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
        process_group=0,
    )
    told = json.loads(done.stdout)
    print(f"FAULTS 16: {told['stuck']} of {FORKS} children stuck, {told['seconds']:.1f} s in all")
    assert told["stuck"] == 0
    assert "Traceback" not in done.stderr
