"""More than the worker can drain, for a minute: counts are exact, losses are counted, memory is flat, nobody waits."""

import re
import statistics
import time

import httpx
import psutil
import pytest

from tests.end_to_end.serving import serving
from tests.servers import free_port, until

SECONDS = 60
SPANS = 500
"""Of a request; the worker needs ten times as long for them as the request itself."""
LOOKS = 60
WAITED_SECONDS = 0.1
GROWTH = 16e6
"""Of the last third: what has a cap has reached it by then. A leak of one span in thirty would show as more."""
TIMES = 10
"""What is produced, over what is drained."""


def total(page, name, **labels):
    """The sum over all series of a metric that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in page.splitlines() if re.match(rf"{name}[ {{]", line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))


@pytest.fixture
def application(tmp_path):
    """Keeps, cleans and encodes everything, for a collector that is not there."""
    with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}") as started:
        yield started


def loaded(application):
    """Send one request after the other; return the seconds of each, and the process's bytes over time."""
    took, memory, process = [], [], psutil.Process(application.process.pid)
    began = time.monotonic()
    with httpx.Client(base_url=application.url) as client:
        while (since := time.monotonic() - began) < SECONDS:
            before = time.perf_counter()
            assert client.get(f"/heavy/{SPANS}").status_code == 200
            took.append(time.perf_counter() - before)
            if since > len(memory) * SECONDS / LOOKS:
                memory.append(process.memory_info().rss)
    return took, memory


@pytest.mark.slow
def test_a_minute_of_ten_times_what_the_worker_can_drain(application):
    took, memory = loaded(application)
    page = application.metrics()
    produced = total(page, "insitu_records_total", signal="traces")
    lost = total(page, "insitu_dropped_records_total", signal="traces", reason="queue_full")
    lost -= total(page, "insitu_dropped_records_total", exporter="otlp", reason="queue_full")
    until(lambda: not total(application.metrics(), "insitu_queue_size_bytes", queue="worker"), 60, what="the worker")
    page = application.metrics()

    p99 = statistics.quantiles(took, n=100)[98]
    times = produced / (produced - lost)
    grown = max(memory[-LOOKS // 3 :]) - max(memory[: -LOOKS // 3])
    print(
        f"overload: {len(took)} requests of {SPANS} spans in {SECONDS} s, {times:.1f} times "
        f"what was drained; p50 {statistics.median(took) * 1e3:.1f}, p99 {p99 * 1e3:.1f} ms; {max(memory) / 1e6:.0f} "
        f"MB, {grown / 1e6:+.1f} MB in the last third"
    )
    assert total(page, "http_server_request_duration_seconds_count", http_route="/heavy/{spans}") == len(took)
    assert total(page, "insitu_records_total", signal="traces") == len(took) * (SPANS + 1)
    assert times > TIMES
    assert p99 < WAITED_SECONDS
    assert grown < GROWTH
