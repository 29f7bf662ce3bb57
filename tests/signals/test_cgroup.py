import pytest

from insitu.signals import cgroup
from insitu.signals.cgroup import Limits, read


@pytest.fixture
def tree(tmp_path):
    """Writes files below a folder that stands in for /sys/fs/cgroup, and one for /proc/self/cgroup; returns both."""

    def grow(membership, files):
        mount, own = tmp_path / "cgroup", tmp_path / "membership"
        mount.mkdir()
        own.write_text(membership)
        for name, content in files.items():
            file = mount / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return mount, own

    return grow


def test_version_2_in_a_container_of_its_own_namespace(tree):
    found = read(
        *tree(
            "0::/\n",
            {
                "cpu.max": "150000 100000\n",
                "cpu.stat": "usage_usec 9\nnr_throttled 4\nthrottled_usec 2500000\n",
                "memory.max": "536870912\n",
                "memory.current": "1000000\n",
                "memory.events": "low 0\noom 3\noom_kill 2\n",
            },
        )
    )
    assert found == Limits(cpu_limit=1.5, throttled=2.5, memory_limit=536870912, memory_usage=1000000, oom_kills=2)


def test_max_means_no_limit(tree):
    found = read(*tree("0::/a\n", {"a/cpu.max": "max 100000\n", "a/memory.max": "max\n", "a/memory.current": "5\n"}))
    assert found == Limits(memory_usage=5)


def test_the_tightest_group_around_us_counts_in_version_2(tree):
    files = {
        "pod/cpu.max": "200000 100000",
        "pod/memory.max": "100",
        "pod/memory.current": "90",
        "pod/app/cpu.max": "max 100000",
        "pod/app/cpu.stat": "throttled_usec 7000000",
        "pod/app/memory.max": "400",
        "pod/app/memory.current": "50",
        "pod/app/memory.events": "oom_kill 0",
        "pod/memory.events": "oom_kill 8",
    }
    found = read(*tree("0::/pod/app\n", files))
    assert found == Limits(cpu_limit=2.0, throttled=7.0, memory_limit=100, memory_usage=90, oom_kills=0)


def test_version_1_with_joint_controllers_and_a_nested_path(tree):
    files = {
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
        "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/docker/abc/cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 1500000000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "memory/docker/abc/memory.limit_in_bytes": "268435456\n",
        "memory/docker/abc/memory.usage_in_bytes": "4096\n",
        "memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "8192\n",
    }
    membership = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
    found = read(*tree(membership, files))
    assert found == Limits(cpu_limit=0.5, throttled=1.5, memory_limit=268435456, memory_usage=4096, oom_kills=1)


def test_a_path_of_the_host_that_the_container_does_not_see_means_the_mount_itself(tree):
    files = {"memory/memory.limit_in_bytes": "1024", "memory/memory.usage_in_bytes": "10", "cpu/cpu.cfs_quota_us": "-1"}
    found = read(*tree("5:memory:/docker/abc\n4:cpu:/docker/abc\n", files))
    assert found == Limits(memory_limit=1024, memory_usage=10)


def test_version_1_without_limits(tree):
    files = {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "8192"}
    assert read(*tree("5:memory:/\n", files)) == Limits(memory_usage=8192)


def test_a_hybrid_layout_has_each_controller_where_it_is(tree):
    files = {
        "unified/app/cpu.max": "300000 100000",
        "unified/app/cpu.stat": "throttled_usec 1000000",
        "memory/app/memory.limit_in_bytes": "77",
        "memory/app/memory.usage_in_bytes": "7",
    }
    found = read(*tree("3:memory:/app\n0::/app\n", files))
    assert found == Limits(cpu_limit=3.0, throttled=1.0, memory_limit=77, memory_usage=7)


@pytest.mark.parametrize("membership", ["", "nonsense", "0::", "::", "0::/../../etc\n", "a:b\n\x00\n", "5:memory:/x\n"])
def test_what_is_absent_or_odd_is_left_out(tree, membership):
    assert read(*tree(membership, {})) == Limits()


def test_no_control_groups_at_all(tmp_path):
    assert cgroup.families(1, tmp_path / "none", tmp_path / "neither") == []


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "", "memory.max": ""},
        {"cpu.max": "100000 0", "memory.max": "-"},
        {"cpu.max": "x y", "memory.max": "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")},
        {"cpu.max": "100000", "cpu.stat": "throttled_usec\nthrottled_usec many\n"},
    ],
)
def test_damaged_files_are_left_out(tree, files):
    assert read(*tree("0::/\n", files)) == Limits()


def test_only_what_was_found_becomes_a_metric(tree):
    mount, own = tree("0::/\n", {"cpu.max": "50000 100000", "memory.max": "max", "cpu.stat": "throttled_usec 1"})
    found = {
        family.name: (family.kind, family.unit, family.points[0].value) for family in cgroup.families(9, mount, own)
    }
    assert found == {
        "insitu.cgroup.cpu.limit": ("gauge", "{cpu}", 0.5),
        "insitu.cgroup.cpu.throttled_time": ("counter", "s", 1e-6),
    }


def test_the_real_files_of_this_machine_are_read_without_an_error():
    assert all(family.points[0].value >= 0 for family in cgroup.families(9))
