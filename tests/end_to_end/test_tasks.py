"""Every way a Celery worker ends: each task that ran has arrived at a real receiver, in time, and nobody noticed."""

import contextlib
import re
import signal

import httpx
import pytest

from tests.end_to_end.test_exits import Run, kept
from tests.servers import datadog_agent, redis_server, until

pytestmark = pytest.mark.backend

TASKS = 60
WITHIN_SECONDS = {"redis": 5.0, "filesystem": 10.0}  # an idle worker looks up from its files every other second
MODULE = "tests.end_to_end.tasks"
POOLS = {
    "prefork of 2": ["--pool=prefork", "--concurrency=2"],
    "prefork that recycles": ["--pool=prefork", "--concurrency=2", "--max-tasks-per-child=7"],
    "4 threads": ["--pool=threads", "--concurrency=4"],
    "solo": ["--pool=solo"],
}
CASES = [
    ("Redis", "prefork of 2"),
    ("Redis", "4 threads"),
    pytest.param("Redis", "prefork that recycles", marks=pytest.mark.slow),
    pytest.param("Redis", "solo", marks=pytest.mark.slow),
    pytest.param("files", "prefork of 2", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with datadog_agent(tmp_path_factory.mktemp("agent")) as started:
        yield started


class Started(Run):
    """A process that sends tasks or runs them, and what has arrived of it."""

    def errors(self):
        """The types of all exceptions, those on spans included."""
        arrived = str([*self._scopes("traces"), *self._scopes("logs")])
        return set(re.findall(r"'exception.type', 'value': {'string_value': '([^']+)'", arrived))


class Start:
    """Starts modules with what feeds the agent, this test's folder and its broker."""

    def __init__(self, agent, folder, broker):
        self._agent = agent
        self.scheme = broker.partition(":")[0]
        self._more = {"TASKS_FOLDER": str(folder), "TASKS_BROKER": broker}

    def keep(self, store):
        """Have what starts from now on keep what it tells."""
        self._more["INSITU_STORE"] = str(store)

    def __call__(self, *command):
        return Started(self._agent, command, **self._more)

    def send(self, task, number=1):
        with self(MODULE, task, str(number)) as run:
            run.end()
            assert (run.process.returncode, run.spans("SPAN_KIND_PRODUCER")) == (0, number), run.complaints
            return run.name

    def worker(self, *options):
        return self("celery", "-A", MODULE, "worker", "--without-gossip", "--without-mingle", *options)


@pytest.fixture(params=["Redis"])
def start(request, agent, tmp_path):
    with contextlib.ExitStack() as servers:
        broker = "filesystem://"
        if request.param == "Redis":
            broker = f"redis://127.0.0.1:{servers.enter_context(redis_server(tmp_path))}"
        yield Start(agent, tmp_path, broker)


@pytest.fixture
def ran(tmp_path):
    """The tasks that have run, or begun to."""
    file = tmp_path / "ran"
    return lambda: file.read_text().splitlines() if file.exists() else []


def arrived(runs):
    told = [(run.spans("SPAN_KIND_CONSUMER"), run.logs(), run.counted()) for run in runs]
    return tuple(map(sum, zip(*told, strict=True)))


@pytest.mark.parametrize(("start", "name"), CASES, indirect=["start"])
def test_a_worker_that_is_told_to_end_has_delivered_everything(start, ran, name):
    start.send("order", TASKS)
    runs, took = [], []
    for enough in (TASKS // 3, TASKS):  # the first is told amidst its work, the second has done the rest
        with start.worker(*POOLS[name]) as run:
            until(lambda enough=enough: len(ran()) >= enough, 30, f"{enough} tasks")
            took.append(run.end(signal.SIGTERM))
            runs.append(run)
    print(f"{name:<30} spans, log records, counted: {arrived(runs)} of {len(ran())}; {took}")
    assert len(ran()) >= TASKS  # Celery promises each at least once
    assert arrived(runs) == (len(ran()),) * 3
    assert sum(run.spans("SPAN_KIND_CLIENT") for run in runs) == 0  # what Celery says to its broker is its own
    assert max(took) <= WITHIN_SECONDS[start.scheme]
    assert "Traceback" not in runs[0].complaints + runs[1].complaints


def test_the_map_shows_the_queue_between_who_sends_tasks_and_who_runs_them(start, ran, tmp_path):
    start.keep(tmp_path / "store")
    sender = start.send("order", 9)
    with start.worker("--pool=prefork", "--concurrency=2") as worker:
        until(lambda: len(ran()) == 9, 30, "9 tasks")
        worker.end(signal.SIGTERM)
    with kept(tmp_path / "store", sender) as page:
        edges = httpx.get(f"{page}dependencies").json()["edges"]
    told = {(edge["from"], edge["to"]): edge["count"] for edge in edges if "queue" in edge["from"] + edge["to"]}
    assert told == {(sender, "queue celery"): 9, ("queue celery", worker.name): 9}


@pytest.mark.parametrize(
    ("task", "error"),
    [
        pytest.param("endless", "TimeLimitExceeded", marks=pytest.mark.slow),
        pytest.param("slow", "SoftTimeLimitExceeded", marks=pytest.mark.slow),
        ("doomed", "WorkerLostError"),
    ],
)
def test_a_task_that_is_ended_by_others_is_an_error(start, ran, task, error):
    start.send(task)
    start.send("order")
    with start.worker("--pool=prefork", "--concurrency=1") as run:
        until(lambda: ran() == [task, "order"], 30, f"{task} to end")
        run.end(signal.SIGTERM)
        assert f"billiard.exceptions.{error}" in run.errors()
        assert (run.logs(), run.counted()) == (1, 1)
