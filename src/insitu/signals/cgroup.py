"""What the container that we run in may use and does use: control groups, version 1 and 2, from the kernel's files.

Files and their meaning: cgroups(7), and the kernel's `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from insitu.core.records import HOST, Family, MetricKind, Point

MOUNT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
_NO_LIMIT: Final = 1 << 62  # version 1 says "none" by the largest multiple of a page

_METRICS: Final[tuple[tuple[str, str, MetricKind, str, str], ...]] = (
    ("cpu_limit", "cpu.limit", "gauge", "{cpu}", "CPUs that this control group may use."),
    ("throttled", "cpu.throttled_time", "counter", "s", "Time that threads waited as the CPU limit was used up."),
    ("memory_limit", "memory.limit", "gauge", "By", "Memory that the tightest control group around us may use."),
    ("memory_usage", "memory.usage", "gauge", "By", "Memory that this control group uses, the page cache included."),
    ("oom_kills", "memory.oom_kills", "counter", "{kill}", "Processes that the kernel killed as memory ran out."),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What was found; None where the kernel has no such file or sets no limit.

    Attributes:
        cpu_limit: CPUs, the least of this group and those around it.
        throttled: seconds since the group was made.
        memory_limit: bytes, the least of this group and those around it.
        memory_usage: bytes used in the group that has the least limit: those two decide when something is killed.
        oom_kills: processes killed since the group was made.

    """

    cpu_limit: float | None = None
    throttled: float | None = None
    memory_limit: int | None = None
    memory_usage: int | None = None
    oom_kills: int | None = None


def families(time: int, mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> list[Family]:
    """Return what could be read as metrics `insitu.cgroup.*`; nothing where there are no control groups."""
    limits = read(mount, membership)
    found = ((getattr(limits, field), *rest) for field, *rest in _METRICS)
    return [
        Family(f"insitu.cgroup.{name}", kind, [Point({}, value)], unit, text, time=time, merge=HOST)
        for value, name, kind, unit, text in found
        if value is not None
    ]


def read(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> Limits:
    """Read the limits of the calling process; each controller may be under version 1 or 2 (the hybrid layout)."""
    paths = _paths(membership)
    unified = mount / "unified" if (mount / "unified").is_dir() else mount
    groups = list(_upwards(unified, paths.get("", "")))
    cpu = list(_upwards(_controller(mount, "cpu"), paths["cpu"])) if "cpu" in paths else []
    memory = list(_upwards(_controller(mount, "memory"), paths["memory"])) if "memory" in paths else []
    cpu_limit, throttled = _cpu_1(cpu) if cpu else _cpu_2(groups)
    return Limits(cpu_limit, throttled, *(_memory_1(memory) if memory else _memory_2(groups)))


def _paths(membership: Path) -> dict[str, str]:
    """Return the path of our group by controller; version 2 has "" for a controller."""
    paths = {}
    for line in _text(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _controller(mount: Path, name: str) -> Path:
    """Return where a controller of version 1 is mounted: alone, or under a joint name such as `cpu,cpuacct`."""
    if (mount / name).is_dir():
        return mount / name
    return next((path for path in sorted(mount.glob(f"*{name}*")) if name in path.name.split(",")), mount / name)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group at `path` and all around it.

    A container without a namespace of its own sees the host's path, while its mount shows its own group only: the part
    that does not exist is passed over.
    """
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    for depth in range(len(parts), -1, -1):
        if (group := mount.joinpath(*parts[:depth])).is_dir():
            yield group


def _cpu_2(groups: list[Path]) -> tuple[float | None, float | None]:
    limits = []
    for group in groups:
        quota, period = (*_text(group / "cpu.max").split(), "", "")[:2]
        if quota.isdigit() and int(period or 0):
            limits.append(int(quota) / int(period))
    microseconds = _first_field(groups, "cpu.stat", "throttled_usec")
    return min(limits, default=None), None if microseconds is None else microseconds / 1e6


def _cpu_1(groups: list[Path]) -> tuple[float | None, float | None]:
    limits = []
    for group in groups:
        quota, period = _integer(group / "cpu.cfs_quota_us"), _integer(group / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:
            limits.append(quota / period)
    nanoseconds = _first_field(groups, "cpu.stat", "throttled_time")
    return min(limits, default=None), None if nanoseconds is None else nanoseconds / 1e9


def _memory_2(groups: list[Path]) -> tuple[int | None, int | None, int | None]:
    limit, usage = _tightest(groups, "memory.max", "memory.current")
    return limit, usage, _first_field(groups, "memory.events", "oom_kill")


def _memory_1(groups: list[Path]) -> tuple[int | None, int | None, int | None]:
    limit, usage = _tightest(groups, "memory.limit_in_bytes", "memory.usage_in_bytes")
    return limit, usage, _first_field(groups, "memory.oom_control", "oom_kill")


def _tightest(groups: list[Path], limit_file: str, usage_file: str) -> tuple[int | None, int | None]:
    """Return the least limit and what is used under it; without any limit what the innermost group uses."""
    limits = [(_integer(group / limit_file), group) for group in groups]
    real = [(limit, group) for limit, group in limits if limit is not None and limit < _NO_LIMIT]
    if real:
        limit, group = min(real, key=lambda pair: pair[0])
        return limit, _integer(group / usage_file)
    used = (_integer(group / usage_file) for group in groups)
    return None, next((usage for usage in used if usage is not None), None)


def _first_field(groups: list[Path], file: str, field: str) -> int | None:
    """Return a number of a file of `name number` lines, of the innermost group that has it."""
    for group in groups:
        for line in _text(group / file).splitlines():
            name, _, number = line.partition(" ")
            if name == field and number.isdigit():
                return int(number)
    return None


def _integer(file: Path) -> int | None:
    try:
        return int(_text(file))
    except ValueError:  # "max", or nothing at all
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
