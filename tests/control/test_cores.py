"""Which cores a proxy gets: affinity and cgroup quota, from files as the kernel writes them."""

import os
from pathlib import Path

import pytest

from control.cores import cgroup_quota, usable_cores


def own_file(directory: Path, *lines: str) -> Path:
    path = directory / "self-cgroup"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def group(directory: Path, path: str, **files: str) -> Path:
    made = directory / path
    made.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (made / name.replace("__", ".")).write_text(text + "\n")
    return made


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("cpu_max", "quota"), [("max 100000", None), ("250000 100000", 2.5), ("50000 100000", 0.5)]
)
def test_a_version_2_quota_is_read_in_cpus(
    tmp_path: Path, cpu_max: str, quota: float | None
) -> None:
    group(tmp_path, "system.slice/aegis", cpu__max=cpu_max)
    assert cgroup_quota(tmp_path, own_file(tmp_path, "0::/system.slice/aegis")) == quota


def test_the_strictest_ancestor_counts(tmp_path: Path) -> None:
    group(tmp_path, "a", cpu__max="150000 100000")
    group(tmp_path, "a/b", cpu__max="400000 100000")
    group(tmp_path, "a/b/c", cpu__max="max 100000")
    assert cgroup_quota(tmp_path, own_file(tmp_path, "0::/a/b/c")) == 1.5


def test_a_quota_at_the_root_of_a_container_counts(tmp_path: Path) -> None:
    group(tmp_path, ".", cpu__max="100000 100000")
    assert cgroup_quota(tmp_path, own_file(tmp_path, "0::/")) == 1


def test_a_sibling_does_not_count(tmp_path: Path) -> None:
    group(tmp_path, "a", cpu__max="100000 100000")
    group(tmp_path, "b")
    assert cgroup_quota(tmp_path, own_file(tmp_path, "0::/b")) is None


def test_a_cgroup_outside_of_the_namespace_is_no_error(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path, own_file(tmp_path, "0::/../../elsewhere")) is None


@pytest.mark.parametrize(("quota_us", "quota"), [("-1", None), ("300000", 3.0)])
def test_a_version_1_quota_is_read_in_cpus(
    tmp_path: Path, quota_us: str, quota: float | None
) -> None:
    group(tmp_path, "cpu,cpuacct/d", cpu__cfs_quota_us=quota_us, cpu__cfs_period_us="100000")
    own = own_file(tmp_path, "4:memory:/d", "3:cpu,cpuacct:/d", "0::/")
    assert cgroup_quota(tmp_path, own) == quota


def test_version_1_controllers_without_cpu_do_not_count(tmp_path: Path) -> None:
    group(tmp_path, "cpuset/d", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert cgroup_quota(tmp_path, own_file(tmp_path, "3:cpuset:/d", "9:name=systemd:/d")) is None


def test_half_a_cpu_still_gives_one_core(tmp_path: Path) -> None:
    group(tmp_path, ".", cpu__max="50000 100000")
    cores = usable_cores(tmp_path, own_file(tmp_path, "0::/"))
    assert cores == sorted(os.sched_getaffinity(0))[:1]


def test_more_quota_than_cores_gives_the_cores(tmp_path: Path) -> None:
    group(tmp_path, ".", cpu__max="9999900000 100000")
    assert usable_cores(tmp_path, own_file(tmp_path, "0::/")) == sorted(os.sched_getaffinity(0))


def test_a_core_outside_of_the_affinity_mask_is_not_used(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    last = max(before)
    os.sched_setaffinity(0, {last})
    try:
        assert usable_cores(tmp_path, tmp_path / "missing") == [last]
    finally:
        os.sched_setaffinity(0, before)
