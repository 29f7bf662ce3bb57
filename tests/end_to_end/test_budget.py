"""A budget in a running application: what is recorded shrinks until insitu costs no more, and counts stay exact."""

import re
import threading
import time

import pytest

from tests.end_to_end.serving import serving
from tests.servers import get_json, until

LIMIT = 0.02
WITHIN_SECONDS = 20
SPANS = 60
"""A request that traces itself so finely costs insitu more than itself."""
RATE = 80


class Load:
    """Requests at a steady rate, until it is told to end."""

    def __init__(self, application):
        self._application = application
        self._client = application.client()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def _run(self):
        due = time.monotonic()
        while not self._over.is_set():
            assert self._client.get(f"/work/{SPANS}").status_code == 200
            self.sent += 1
            due = max(due + 1 / RATE, time.monotonic() - 1)
            self._over.wait(max(0.0, due - time.monotonic()))

    def metrics(self):
        """The application's page, twice a second: a scrape is insitu's cost too."""
        self._over.wait(0.5)
        return self._application.metrics()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._client.close()


def value(page, name):
    found = [float(number) for number in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", page, re.MULTILINE)]
    return sum(found) if found else None


class Below:
    """Whether the cost has been below the budget for a while: one look may be that of a step a moment ago."""

    def __init__(self, load):
        self._load = load
        self._since = None

    def for_two_seconds(self):
        now = time.monotonic()
        if value(self._load.metrics(), "insitu_budget_utilization_ratio") > LIMIT:
            self._since = None
            return False
        self._since = self._since or now
        return now - self._since >= 2


@pytest.fixture
def application(tmp_path):
    with serving(tmp_path, INSITU_BUDGET=f"{LIMIT:.0%}") as started:
        yield started


def test_under_a_load_that_costs_too_much_the_cost_comes_back_below_the_budget(application):
    with Load(application) as load:
        began = time.monotonic()
        until(lambda: value(load.metrics(), "insitu_budget_step") > 0, timeout=WITHIN_SECONDS, what="a step")
        before = value(application.metrics(), "insitu_cpu_seconds_total"), time.monotonic()

        below = Below(load)
        until(below.for_two_seconds, timeout=WITHIN_SECONDS, what="the budget")
        took = time.monotonic() - began
        overview = get_json(f"{application.url}/monitoring/overview")["live"]
    page = application.metrics()
    step = int(value(page, "insitu_budget_step"))
    used = value(page, "insitu_budget_utilization_ratio")
    after = value(page, "insitu_cpu_seconds_total"), time.monotonic()
    print(
        f"budget {LIMIT:.0%}: held after {took:.1f} s at step {step}, {used:.2%} of a core; "
        f"{(after[0] - before[0]) / (after[1] - before[1]):.2%} from the first step on"
    )
    assert took <= WITHIN_SECONDS
    assert overview["budget"]["limit"] == LIMIT
    assert overview["budget"]["step"] >= 1
    assert overview["budget"]["detail"] != "everything"
    counted = re.findall(
        r'^http_server_request_duration_seconds_count{[^}]*http_route="/work/{spans}"[^}]*} (\S+)', page, re.MULTILINE
    )
    assert sum(map(float, counted)) == load.sent
