import asyncio
import gc
import itertools
import math
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from insitu.core import guard
from insitu.core.clock import SYSTEM, Clock
from insitu.core.records import Resource
from insitu.exporters.prometheus import Format, render
from insitu.signals import resources as module
from insitu.signals.resources import GarbageCollection, HostGroup, Resources
from insitu.testing import FakeClock

linux = pytest.mark.skipif(sys.platform != "linux", reason="psutil has it on Linux only")


@pytest.fixture(autouse=True)
def swallowed():
    """No test here may pass over an internal error."""
    errors = []
    guard.watch(errors.append)
    yield errors
    guard.watch(None)
    assert errors == []


class Time:
    """The real clock, and seconds that a test adds."""

    def __init__(self):
        self.ahead = 0.0
        self.clock = Clock(
            wall=lambda: SYSTEM.wall() + int(self.ahead * 1e9),
            monotonic=lambda: SYSTEM.monotonic() + int(self.ahead * 1e9),
        )


@pytest.fixture
def later():
    return Time()


@pytest.fixture
def resources(later, tmp_path):
    made = Resources(later.clock, lambda *_: None, tmp_path)
    yield made
    made.close()


def values(collector):
    """Every value by its metric's name and its labels' values."""
    return {
        (family.name, *map(str, point.labels.values())): point.value
        for family in collector.collect()
        for point in family.points
    }


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(10_000))  # the clock itself is read in the kernel, whose time is not the user's


def test_there_is_nothing_before_the_first_sample(resources):
    assert list(resources.collect()) == []


@linux
def test_the_process_and_its_host_are_measured(resources, later):
    list(resources.sample())
    burn(0.1)
    later.ahead += 60
    for _ in resources.groups:
        list(resources.sample())
    found = values(resources)
    own = psutil.Process()
    assert found["process.cpu.time", "user"] == pytest.approx(own.cpu_times().user, abs=1)
    assert 0 < found["process.cpu.utilization", "user"] < 1
    assert found["process.memory.usage",] == pytest.approx(own.memory_info().rss, rel=0.2)
    assert found["process.memory.virtual",] > found["process.memory.usage",]
    assert found["process.thread.count",] >= threading.active_count()
    assert found["process.unix.file_descriptor.count",] >= 3
    assert found["process.context_switches", "voluntary"] > 0
    assert found["process.context_switches", "involuntary"] >= 0
    assert found["process.disk.io", "read"] >= 0
    assert found["process.uptime",] == pytest.approx(time.time() - own.create_time() + 60, abs=5)
    assert found["python.info", "CPython", sys.version.split()[0], "enabled"] == 1
    assert found["system.cpu.logical.count",] == os.cpu_count()
    assert sum(value for key, value in found.items() if key[0] == "system.cpu.utilization") == pytest.approx(1)
    assert found["system.cpu.load_average.1m",] >= 0
    memory = psutil.virtual_memory()
    assert sum(value for key, value in found.items() if key[0] == "system.memory.usage") == pytest.approx(
        memory.total, rel=0.05
    )
    assert sum(value for key, value in found.items() if key[0] == "system.memory.utilization") == pytest.approx(1)
    assert found["system.memory.limit",] == memory.total
    assert 0 < found["system.filesystem.utilization", "/"] <= 1
    assert ("system.network.io", "lo", "receive") not in found


@linux
def test_everything_read_is_plain_and_stamped_with_its_time(resources):
    before = time.time_ns()
    list(resources.sample())
    names = [family.name for family in resources.collect()]
    assert len(names) == len(set(names)) > 20
    for family in resources.collect():
        assert before <= family.time <= time.time_ns(), family.name
        assert family.help.endswith("."), family.name
        assert family.points
        for point in family.points:
            assert type(point.value) in {int, float}, family.name
            assert math.isfinite(point.value)
            assert point.value >= 0
        if family.name.startswith(("process.", "system.")) and family.kind == "counter":
            assert 0 < family.start < before, family.name


def test_each_group_keeps_its_interval_and_after_the_first_time_only_one_is_read_at_once(monkeypatch):
    clock = FakeClock()
    resources = Resources(clock, lambda *_: None)
    resources.close()  # it needs no callback in the garbage collector
    intervals = {"ProcessGroup": 5, "GarbageCollection": 5, "HostGroup": 10, "CgroupGroup": 10, "DiskGroup": 30}
    reads = {name: [] for name in intervals}

    def sample(group, _):
        if any(group is each.group for each in resources.groups):  # another runtime may still read in its thread
            reads[type(group).__name__].append(second)
        return []

    for name in intervals:
        monkeypatch.setattr(getattr(module, name), "sample", sample)
    for second in range(121):  # noqa: B007 the groups note it
        list(resources.sample())
        clock.advance(1)
    for name, interval in intervals.items():
        gaps = [after - before for before, after in itertools.pairwise(reads[name])]
        assert interval <= min(gaps) <= max(gaps) <= interval + len(intervals), name
    times = [second for seconds in reads.values() for second in seconds]
    assert times.count(0) == 5
    assert max(times.count(second) for second in times if second) == 1


@linux
def test_between_samples_the_last_one_stands_and_the_system_is_left_alone(resources, later, monkeypatch):
    list(resources.sample())
    first = values(resources)
    monkeypatch.setattr(psutil, "_psplatform", None)
    list(resources.sample())
    later.ahead += 3
    list(resources.sample())
    assert values(resources) == first


@linux
@pytest.mark.parametrize(
    "error", [psutil.AccessDenied(1), psutil.NoSuchProcess(1), OSError("x"), NotImplementedError(), AttributeError()]
)
def test_what_cannot_be_read_is_left_out_and_nothing_else(resources, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(psutil.Process, "io_counters", refuse)
    monkeypatch.setattr(psutil.Process, "num_fds", refuse)
    monkeypatch.setattr(psutil, "swap_memory", refuse)
    list(resources.sample())
    names = {family.name for family in resources.collect()}
    assert not names & {"process.disk.io", "process.unix.file_descriptor.count", "system.paging.usage"}
    assert {"process.cpu.time", "process.uptime", "system.memory.usage", "system.network.io"} <= names


def test_a_group_that_fails_as_a_whole_costs_no_other(resources, monkeypatch, swallowed):
    def refuse():
        raise ValueError("no host")

    monkeypatch.setattr(resources.groups[2], "make", refuse)
    list(resources.sample())
    assert [str(error) for error in swallowed] == ["no host"]
    swallowed.clear()
    assert {family.name for family in resources.collect()} >= {"process.cpu.time", "insitu.gc.pause"}


def test_memory_states_add_up_on_systems_that_know_fewer_of_them(monkeypatch):
    host = HostGroup()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10, available=4))
    assert host._memory() == {"used": 6, "free": 4}


def test_a_machine_without_disks_or_swap_has_no_metrics_of_them(resources, monkeypatch):
    monkeypatch.setattr(psutil, "disk_io_counters", lambda **_: None)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=0, used=0, free=0))
    list(resources.sample())
    names = {family.name for family in resources.collect()}
    assert not names & {"system.disk.io", "system.paging.usage", "system.paging.utilization"}


def test_the_interfaces_told_apart_are_bounded(monkeypatch):
    one = SimpleNamespace(bytes_recv=1, bytes_sent=2)
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: {f"veth{n:03}": one for n in range(300)} | {"lo": one})
    assert len(list(HostGroup()._network())) == 2 * module.MOST_INTERFACES


def test_a_store_that_does_not_exist_yet_is_on_the_file_system_of_its_nearest_folder(tmp_path):
    disks = module.DiskGroup(tmp_path / "not" / "there" / "yet")
    assert all(0 <= point.value <= 1 for point in disks._file_systems())
    assert next(disks._file_systems()).labels == {"system.filesystem.mountpoint": "/"}


def test_the_garbage_collector_is_measured(later):
    garbage = GarbageCollection(later.clock)
    try:
        for _ in range(3):
            cycle = []
            cycle.append(cycle)
            del cycle
            gc.collect()
        gc.collect(0)
        families = {family.name: family for family in garbage.sample(5)}
    finally:
        garbage.close()
    pauses = families["insitu.gc.pause"]
    assert [point.labels for point in pauses.points] == [{"cpython.gc.generation": number} for number in range(3)]
    assert sum(pauses.points[2].buckets) >= 3
    assert sum(pauses.points[0].buckets) >= 1
    assert 0 < pauses.points[2].value < 10
    assert families["cpython.gc.collections"].points[2].value == gc.get_stats()[2]["collections"]
    assert families["cpython.gc.collected_objects"].points[2].value >= 3
    assert families["cpython.gc.uncollectable_objects"].points[0].value >= 0


def test_the_collectors_callback_is_taken_out_again(later):
    before = list(gc.callbacks)
    made = Resources(later.clock, lambda *_: None)
    assert len(gc.callbacks) == len(before) + 1
    made.close()
    made.close()
    assert gc.callbacks == before


def test_a_callback_that_begins_in_the_middle_of_a_collection_counts_nothing(later):
    garbage = GarbageCollection(later.clock)
    garbage.close()
    garbage.reset()
    garbage.measure("stop", {"generation": 2})
    assert garbage.sums == [0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_measures_itself(tmp_path):
    code = """
import os, sys, threading
from insitu.core.clock import SYSTEM
from insitu.signals.resources import Resources
resources = Resources(SYSTEM, print)
list(resources.sample())
if (child := os.fork()) == 0:
    resources.reset()
    empty = list(resources.collect())
    list(resources.sample())
    uptime = next(f.points[0].value for f in resources.collect() if f.name == "process.uptime")
    os._exit(0 if empty == [] and resources.groups[0].group.process.pid == os.getpid() and uptime < 20 else 1)
print(os.waitpid(child, 0)[1])
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_psutil_is_imported_on_the_worker_only():
    code = "import sys; from insitu.signals import resources; print('psutil' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"


def test_a_blocked_loop_is_reported_through_the_one_entry(later):
    reports = []
    made = Resources(SYSTEM, lambda seconds, frames: reports.append((seconds, frames[-1].code.co_name)))
    made.loops.beat = int(0.02 * 1e9)
    list(made.sample())
    stop = threading.Event()

    def work():
        while not stop.wait(0.02):
            list(made.sample())
            made.watch()

    worker = threading.Thread(target=work)
    worker.start()

    async def main():
        made.attach_loop()
        await asyncio.sleep(0)
        burn(0.3)
        async with asyncio.timeout(10):
            while not reports:
                await asyncio.sleep(0.01)

    asyncio.run(main())
    stop.set()
    worker.join()
    made.close()
    assert [name for _, name in reports] == ["burn"]


def test_promtool_has_nothing_to_say_about_their_names(resources, later, promtool):
    list(resources.sample())
    later.ahead += 60
    for _ in resources.groups:
        list(resources.sample())

    async def main():
        resources.attach_loop()
        resources.loops._finish(resources.loops.hearts[0])

    asyncio.run(main())
    page = render(resources.collect(), Resource({"service.name": "shop"}), Format.TEXT)
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
