"""USE metrics (utilisation, saturation, errors) of this process, its host, its container, its collector and its loops.

Names are OpenTelemetry's semantic conventions for `process.*`, `system.*` and `cpython.gc.*`; where there is no
convention they begin with `insitu.`. Everything is read on the worker, each group at its own interval, and a collection
returns what was read last.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from insitu.core import guard
from insitu.core.clock import Clock
from insitu.core.records import HOST, Family, Merge, MetricKind, Point
from insitu.signals import cgroup
from insitu.signals.event_loop import EventLoopMonitor, Report

Points = Iterable[Point]

MOST_INTERFACES: Final = 20
PAUSE_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
GENERATIONS: Final = 3


class Metric(NamedTuple):
    """A metric and how it is read; a reading that fails leaves out this metric only."""

    name: str
    kind: MetricKind
    unit: str
    help: str
    read: Callable[[], Points]


class Group(Protocol):
    """Metrics that are read together, at most every `interval` seconds."""

    interval: float

    def sample(self, time: int) -> Iterable[Family]:
        """Read the system, metric by metric; `time` is the wall clock in nanoseconds."""


def _one(value: float) -> Points:
    return (Point({}, value),)


def _each(label: str, values: dict[str, float]) -> Points:
    return [Point({label: name}, value) for name, value in values.items()]


def _families(metrics: Iterable[Metric], start: int, time: int) -> Iterator[Family]:
    """Read metrics one by one and yield those that there are on this system, to this user, now."""
    import psutil

    # Where the host turns warnings into errors, psutil's own are exceptions.
    absent = (psutil.Error, OSError, AttributeError, RuntimeError, Warning)
    for name, kind, unit, text, read in metrics:
        with suppress(*absent):
            if points := list(read()):
                since = start if kind == "counter" else 0
                yield Family(name, kind, points, unit, text, start=since, time=time, merge=_merge(name, kind))


def _merge(name: str, kind: MetricKind) -> Merge | None:
    """Return how a metric of several workers becomes one: of their host they all say the same."""
    if name.startswith(("system.", "python.")):
        return HOST
    return "sum" if kind == "updown" else None


class _Share:
    """What each mode's CPU time is of all CPU time between two readings."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: dict[str, float] | None = None

    def of(self, seconds: dict[str, float], available: float | None = None) -> dict[str, float]:
        """Return fractions by mode, of the `available` seconds or else of the sum; nothing at the first reading."""
        last, self.last = self.last, seconds
        if last is None:
            return {}
        spent = {mode: max(0.0, value - last.get(mode, value)) for mode, value in seconds.items()}
        whole = sum(spent.values()) if available is None else available
        return {mode: value / whole for mode, value in spent.items()} if whole > 0 else {}


class ProcessGroup:
    """What this process uses."""

    interval = 5.0

    def __init__(self, clock: Clock) -> None:
        import psutil

        self.clock = clock
        self.process = psutil.Process()
        self.start = int(self.process.create_time() * 1e9)
        self.age = max(0, clock.wall() - self.start) - clock.monotonic()  # the wall clock may be set later
        self.share = _Share()
        self.last = 0
        process = self.process
        self.metrics = (
            Metric("process.cpu.time", "counter", "s", "CPU time by mode.", lambda: _each("cpu.mode", self._cpu())),
            Metric(
                "process.cpu.utilization",
                "gauge",
                "1",
                "CPU time by mode since the last reading, of all that this process may use.",
                self._utilization,
            ),
            Metric("process.memory.usage", "updown", "By", "Physical memory.", lambda: _one(process.memory_info().rss)),
            Metric(
                "process.memory.virtual", "updown", "By", "Virtual memory.", lambda: _one(process.memory_info().vms)
            ),
            Metric("process.thread.count", "updown", "{thread}", "Threads.", lambda: _one(process.num_threads())),
            Metric(
                "process.unix.file_descriptor.count",
                "updown",
                "{file_descriptor}",
                "Open file descriptors.",
                lambda: _one(process.num_fds()),
            ),
            Metric(
                "process.context_switches",
                "counter",
                "{context_switch}",
                "Context switches: voluntary ones wait for something, involuntary ones lost their CPU to others.",
                lambda: _each("process.context_switch.type", process.num_ctx_switches()._asdict()),
            ),
            Metric("process.disk.io", "counter", "By", "Bytes read from and written to disks.", self._disk_io),
            Metric("process.uptime", "gauge", "s", "Time since the process was started.", lambda: _one(self._uptime())),
            Metric("python.info", "gauge", "", "The interpreter.", lambda: (Point(_python(), 1),)),
        )

    def sample(self, time: int) -> Iterator[Family]:
        """Read all in one go: psutil then opens each file of /proc once."""
        with self.process.oneshot():
            yield from _families(self.metrics, self.start, time)

    def _cpu(self) -> dict[str, float]:
        times = self.process.cpu_times()
        return {"user": times.user, "system": times.system}

    def _utilization(self) -> Points:
        now = self.clock.monotonic()
        available = (now - self.last) / 1e9 * _usable_cpus()
        self.last = now
        return _each("cpu.mode", self.share.of(self._cpu(), available))

    def _disk_io(self) -> Points:
        counters = self.process.io_counters()
        return _each("disk.io.direction", {"read": counters.read_bytes, "write": counters.write_bytes})

    def _uptime(self) -> float:
        return (self.age + self.clock.monotonic()) / 1e9


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _python() -> dict[str, str]:
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "gil": "enabled" if getattr(sys, "_is_gil_enabled", lambda: True)() else "disabled",
    }


class HostGroup:
    """What the machine has, and how much of it all its processes use."""

    interval = 10.0

    def __init__(self) -> None:
        import psutil

        self.psutil = psutil
        self.share = _Share()
        self.start = int(psutil.boot_time() * 1e9)
        state = "system.memory.state"
        paging = "system.paging.state"
        self.metrics = (
            Metric("system.cpu.time", "counter", "s", "CPU time by mode.", lambda: _each("cpu.mode", self._cpu())),
            Metric(
                "system.cpu.utilization",
                "gauge",
                "1",
                "CPU time by mode since the last reading, of that of all CPUs.",
                lambda: _each("cpu.mode", self.share.of(self._cpu())),
            ),
            Metric("system.cpu.logical.count", "updown", "{cpu}", "CPUs.", lambda: _one(os.cpu_count() or 1)),
            Metric(
                "system.cpu.load_average.1m",
                "gauge",
                "{thread}",
                "Threads that run or want to, averaged over a minute.",
                lambda: _one(os.getloadavg()[0]),
            ),
            Metric("system.memory.limit", "updown", "By", "Memory.", lambda: _one(psutil.virtual_memory().total)),
            Metric("system.memory.usage", "updown", "By", "Memory by state.", lambda: _each(state, self._memory())),
            Metric(
                "system.memory.utilization",
                "gauge",
                "1",
                "Memory by state, of all.",
                lambda: _fractions(state, self._memory()),
            ),
            Metric("system.paging.usage", "updown", "By", "Swap by state.", lambda: _each(paging, self._swap())),
            Metric(
                "system.paging.utilization",
                "gauge",
                "1",
                "Swap by state, of all.",
                lambda: _fractions(paging, self._swap()),
            ),
            Metric("system.network.io", "counter", "By", "Bytes over each network interface.", self._network),
        )

    def sample(self, time: int) -> Iterator[Family]:
        """Read the host."""
        return _families(self.metrics, self.start, time)

    def _cpu(self) -> dict[str, float]:
        times = self.psutil.cpu_times()._asdict()
        interrupts = times.get("irq", 0.0) + times.get("softirq", 0.0) + times.get("interrupt", 0.0)
        modes = {mode: times[mode] for mode in ("user", "system", "nice", "idle", "iowait", "steal") if mode in times}
        return modes | {"interrupt": interrupts}

    def _memory(self) -> dict[str, float]:
        memory = self.psutil.virtual_memory()
        if not hasattr(memory, "buffers"):  # beyond Linux and BSD "free" says little: what can be had counts as free
            return {"used": memory.total - memory.available, "free": memory.available}
        used = memory.total - memory.free - memory.cached - memory.buffers
        return {"used": max(0, used), "free": memory.free, "cached": memory.cached, "buffers": memory.buffers}

    def _swap(self) -> dict[str, float]:
        swap = self.psutil.swap_memory()
        return {"used": swap.used, "free": swap.free} if swap.total else {}

    def _network(self) -> Iterator[Point]:
        interfaces = sorted(self.psutil.net_io_counters(pernic=True, nowrap=False).items())
        for name, counters in [pair for pair in interfaces if pair[0] != "lo"][:MOST_INTERFACES]:
            yield Point({"network.interface.name": name, "network.io.direction": "receive"}, counters.bytes_recv)
            yield Point({"network.interface.name": name, "network.io.direction": "transmit"}, counters.bytes_sent)


def _fractions(label: str, values: dict[str, float]) -> Points:
    whole = sum(values.values())
    return _each(label, {name: value / whole for name, value in values.items()} if whole else {})


class DiskGroup:
    """The disks, and the file systems that matter to us: the root, and the store's."""

    interval = 30.0

    def __init__(self, store_path: str | os.PathLike[str] | None) -> None:
        import psutil

        self.psutil = psutil
        self.start = int(psutil.boot_time() * 1e9)
        self.paths = [Path(os.sep).resolve()] + ([Path(store_path)] if store_path is not None else [])
        self.metrics = (
            Metric("system.disk.io", "counter", "By", "Bytes read from and written to all disks.", self._disk_io),
            Metric(
                "system.filesystem.utilization",
                "gauge",
                "1",
                "Fraction used of the file systems of the root and of the store.",
                self._file_systems,
            ),
        )

    def sample(self, time: int) -> Iterator[Family]:
        """Read disks and file systems."""
        return _families(self.metrics, self.start, time)

    def _disk_io(self) -> Points:
        counters = self.psutil.disk_io_counters(nowrap=False)
        if counters is None:  # no disk at all, as in some containers
            return ()
        return _each("disk.io.direction", {"read": counters.read_bytes, "write": counters.write_bytes})

    def _file_systems(self) -> Iterator[Point]:
        mounts = dict.fromkeys(filter(None, map(_mount_point, self.paths)))
        for mount in mounts:
            usage = self.psutil.disk_usage(str(mount))
            yield Point({"system.filesystem.mountpoint": str(mount)}, usage.used / (usage.used + usage.free or 1))


def _mount_point(path: Path) -> Path | None:
    """Return where the file system of a path begins; of the nearest folder that exists, as the store may come later."""
    for folder in (path.absolute(), *path.absolute().parents):
        with suppress(OSError):
            if folder.exists() and folder.is_mount():
                return folder
    return None


class CgroupGroup:
    """The limits of our container."""

    interval = 10.0

    def sample(self, time: int) -> list[Family]:
        """Read the control groups around us."""
        return cgroup.families(time)


class GarbageCollection:
    """What the garbage collector does, and how long each of its runs holds up all threads.

    Its callback runs inside the application's threads whenever a generation is full, so it only takes two readings of
    the clock and adds two numbers.
    """

    interval = 5.0
    __slots__ = ("clock", "counts", "since", "started", "sums")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.reset()
        gc.callbacks.append(self.measure)

    def reset(self) -> None:
        """Start over."""
        self.since = self.clock.wall()
        self.started = 0
        self.counts = [[0] * (len(PAUSE_BOUNDS) + 1) for _ in range(GENERATIONS)]
        self.sums = [0] * GENERATIONS

    def close(self) -> None:
        """Leave the collector alone."""
        with suppress(ValueError):
            gc.callbacks.remove(self.measure)

    def measure(self, phase: str, info: dict[str, int]) -> None:
        """Be called by the collector before and after a run."""
        if phase == "start":
            self.started = self.clock.monotonic()
        elif self.started:
            took, self.started = self.clock.monotonic() - self.started, 0
            generation = info["generation"]
            self.counts[generation][bisect_left(PAUSE_BOUNDS, took / 1e9)] += 1
            self.sums[generation] += took

    def sample(self, time: int) -> list[Family]:
        """Read the collector's own counts, and ours."""
        stats = gc.get_stats()
        label = "cpython.gc.generation"
        tables = (
            ("collections", "collections", "{collection}", "Runs of the garbage collector."),
            ("collected_objects", "collected", "{object}", "Objects that the garbage collector freed."),
            (
                "uncollectable_objects",
                "uncollectable",
                "{object}",
                "Objects that it could not free.",
            ),
        )
        counters = [
            Family(f"cpython.gc.{name}", "counter", _by_generation(stats, key), unit, text, time=time)
            for name, key, unit, text in tables
        ]
        pauses = [
            Point({label: generation}, total / 1e9, tuple(counts))
            for generation, (total, counts) in enumerate(zip(self.sums, self.counts, strict=True))
        ]
        pause = Family("insitu.gc.pause", "histogram", pauses, "s", bounds=PAUSE_BOUNDS, start=self.since, time=time)
        pause.help = "How long a run of the garbage collector held up the process."
        return [*counters, pause]


def _by_generation(stats: list[dict[str, Any]], key: str) -> list[Point]:
    return [Point({"cpython.gc.generation": generation}, each[key]) for generation, each in enumerate(stats)]


class _Sampled:
    """A group and what was read of it last. The group is made on the worker, as psutil takes a while to import."""

    __slots__ = ("due", "families", "group", "make")

    def __init__(self, make: Callable[[], Group]) -> None:
        self.make = make
        self.reset()

    def reset(self) -> None:
        self.group: Group | None = None
        self.due = 0
        self.families: list[Family] = []

    def is_due(self, clock: Clock) -> bool:
        """Whether the interval is over since the last reading."""
        return not self.due or clock.monotonic() >= self.due

    def sample(self, clock: Clock) -> Iterator[None]:
        """Read the group, and yield after each metric."""
        now = clock.monotonic()
        self.due = now + 1_000_000_000  # at least, in case of a failure
        if self.group is None:
            self.group = self.make()
        self.due = now + int(self.group.interval * 1e9)
        families: list[Family] = []
        for family in self.group.sample(clock.wall()):
            families.append(family)
            yield
        self.families = families


class Resources:
    """All resources of this process, as one Collector.

    Args:
        clock: time.
        report: called on the worker with (seconds, stack) when an event loop was blocked; see `event_loop.describe`.
        store_path: folder whose file system is watched beside the root.

    """

    def __init__(self, clock: Clock, report: Report, store_path: str | os.PathLike[str] | None = None) -> None:
        self.clock = clock
        self.begun = False
        self.loops = EventLoopMonitor(clock, report)
        self.garbage = GarbageCollection(clock)
        self.groups = [
            _Sampled(lambda: ProcessGroup(clock)),
            _Sampled(lambda: self.garbage),
            _Sampled(HostGroup),
            _Sampled(CgroupGroup),
            _Sampled(lambda: DiskGroup(store_path)),
        ]

    def collect(self) -> Iterable[Family]:
        """Return what was read last; touches nothing of the system."""
        return [family for group in list(self.groups) for family in group.families] + self.loops.collect()

    def sample(self) -> Iterator[None]:
        """Read what is due, at first everything, later one group a call; yield where a request may have its turn.

        For the worker, about once a second.
        """
        for group in self.groups:
            if group.is_due(self.clock):
                yield from guard.each("signals.resources", group.sample(self.clock))
                if self.begun:
                    return
        self.begun = True

    def watch(self) -> None:
        """Look for blocked event loops; for the worker, every quarter to half of a second."""
        self.loops.watch()

    def attach_loop(self) -> None:
        """Watch the running event loop; to be called inside it, as often as one likes."""
        self.loops.attach()

    def reset(self) -> None:
        """Start over in a forked child."""
        self.begun = False
        self.garbage.reset()
        self.loops.reset()
        for group in self.groups:
            group.reset()

    def close(self) -> None:
        """Take our callback out of the garbage collector, and let go of the loops."""
        self.garbage.close()
        self.loops.close()
