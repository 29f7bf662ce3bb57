"""Many workers, one answer: real servers whose workers are killed, recycled and restarted while they count."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import insitu
from tests.servers import free_port, running, until

ROOTS = (Path(insitu.__file__).parents[1], Path(__file__).parents[2])
MODULE = "tests.end_to_end.counting"
VISITS, AT_ONCE = 200, 8
GUNICORN = ["gunicorn", "--bind=127.0.0.1:{port}", "--log-level=warning", "--workers=4"]
SERVERS = {
    "sync": [*GUNICORN, f"{MODULE}:flask()"],
    "gthread": [*GUNICORN, "--threads=4", f"{MODULE}:flask()"],
    "preload": [*GUNICORN, "--preload", f"{MODULE}:flask()"],
    "uvicorn": ["uvicorn", "--factory", "--port={port}", "--workers=4", "--log-level=warning", f"{MODULE}:fastapi"],
    "recycling": [*GUNICORN, "--max-requests=15", f"{MODULE}:flask()"],
}


def environ(folder):
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, ROOTS)), "INSITU_STORE": str(folder)}


def sample(page, name, **labels):
    """A sample of a page, None where there is none."""
    wanted = "".join(f'(?=[^}}]*{key}="{value}")' for key, value in labels.items())
    found = re.findall(rf"^{name}(?:{{{wanted}[^}}]*}})? (\S+)", page, re.MULTILINE)
    return sum(map(float, found)) if found else None


class Service:
    """gunicorn at work, in a group of its own as from a shell."""

    def __init__(self, address):
        self.address = address
        self.client = httpx.Client(base_url=address, headers={"connection": "close"}, timeout=10)
        self.sent = 0

    def visit(self, number):
        """Send so many requests and return who answered."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda _: self.client.get("/"), range(number)))
        self.sent += number
        assert {answer.status_code for answer in answers} == {200}
        return {int(answer.text) for answer in answers}

    def page(self):
        return self.client.get("/metrics").text

    def counts(self):
        page = self.page()
        return (
            sample(page, "visits_total", kind="page"),
            sample(page, "own_visits_total"),
            sample(page, "took_seconds_count"),
            sample(page, "http_server_request_duration_seconds_count", http_route="/"),
        )


@pytest.fixture
def serve(tmp_path):
    def serve(kind):
        port = free_port()
        clean = ["env", "-i", *(f"{name}={value}" for name, value in environ(tmp_path / "store").items())]
        command = [*clean, sys.executable, "-m", *(part.format(port=port) for part in SERVERS[kind])]
        return running(command, f"http://127.0.0.1:{port}/ready", tmp_path / "log"), port

    return serve


@pytest.mark.parametrize("kind", SERVERS)
def test_any_worker_answers_for_all_of_them(serve, kind, tmp_path):
    started, port = serve(kind)
    with started:
        service = Service(f"http://127.0.0.1:{port}")
        workers = service.visit(VISITS)
        until(lambda: len(workers) > 1 or workers.update(service.visit(AT_ONCE)), what="a second worker's answer")
        until(lambda: service.counts() == (service.sent,) * 4, what=f"{service.sent} visits in {service.counts()}")
        began = time.perf_counter()
        page = service.page()
        took = (time.perf_counter() - began) * 1e3
        files = list((tmp_path / "store").glob("*/*-*/*"))
        print(f"{kind}: {len(workers)} workers, {len(files)} files, page of {len(page)} bytes in {took:.1f} ms")
        assert "process_pid" not in page
        assert len(files) <= 2 * 6 + 1
        assert len(list((tmp_path / "store").glob("*/*.db"))) <= 6  # of four, and of who goes while who comes
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_worker_that_is_killed_takes_no_count_with_it(serve):
    started, port = serve("sync")
    with started:
        service = Service(f"http://127.0.0.1:{port}")
        last = 0
        for _ in range(5):
            workers = service.visit(40)
            until(lambda: service.counts() == (service.sent,) * 4, what=f"{service.sent} visits in {service.counts()}")
            os.kill(workers.pop(), signal.SIGKILL)
            for _ in range(10):
                now = service.counts()[0]
                assert now >= last
                last = now
        until(lambda: sample(service.page(), "insitu_workers") == 4, what="four workers")
        assert service.counts() == (service.sent,) * 4
        living = len(service.visit(20))
        until(lambda: living <= sample(service.page(), "depth") <= 4, what=f"a gauge of {living} to four workers")


def test_many_short_lived_workers_leave_few_files_and_a_quick_scrape(tmp_path):
    script = f"""if True:
        import multiprocessing, time, insitu
        from insitu import runtime
        from tests.end_to_end import counting
        def job(): counting.visits.add(kind="job")
        if __name__ == "__main__":
            insitu.init(service="jobs", store={str(tmp_path)!r})
            context = multiprocessing.get_context("fork")
            for _ in range(251 // 8 + 1):
                jobs = [context.Process(target=job) for _ in range(8)]
                [each.start() for each in jobs]
                [each.join() for each in jobs]
            began = time.perf_counter()
            families = runtime.current()._scrape()
            took = time.perf_counter() - began
            (orders,) = [family for family in families if family.name == "visits"]
            print(orders.points[0].value, took)
    """
    file = tmp_path / "jobs.py"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, file],
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        process_group=0,
    )
    counted, took = map(float, done.stdout.split())
    files = list(tmp_path.glob("jobs/*-*/*"))
    size = sum(path.stat().st_size for path in files)
    print(f"256 workers: {len(files)} files, {size} bytes, a scrape in {took * 1e3:.1f} ms")
    assert counted == 256
    assert len(files) <= 2 * 9 + 1
    assert took < 0.2
