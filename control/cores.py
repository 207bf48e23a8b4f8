"""Which cores Aegis may use: the affinity mask, cut down to the cgroup's CPU quota."""

from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroup_root: Path = CGROUP_ROOT, own: Path = OWN_CGROUP) -> list[int]:
    """Return the CPU numbers to pin workers to, one worker each; never empty.

    A quota of 2.5 CPUs on 8 cores gives the first two: a third worker would be throttled half of
    the time, and with it the clients that hash to it.
    """
    cores = sorted(psutil.Process().cpu_affinity())
    quota = cgroup_quota(cgroup_root, own)
    return cores if quota is None else cores[: max(1, int(quota))]


def cgroup_quota(cgroup_root: Path, own: Path) -> float | None:
    """Return the CPUs that the strictest of our cgroup and its ancestors allows, None for all.

    Source: Documentation/admin-guide/cgroup-v2.rst, cpu.max; for version 1 sched-bwc.rst.
    """
    quotas: list[float] = []
    for line in _lines(own):
        number, controllers, path = line.split(":", 2)
        version_1 = "cpu" in controllers.split(",")
        if not version_1 and number != "0":
            continue
        top = cgroup_root / controllers if version_1 else cgroup_root
        group = top / path.lstrip("/")
        while True:
            quotas += _quota_v1(group) if version_1 else _quota_v2(group)
            if group == top or top not in group.parents:
                break
            group = group.parent
    return min(quotas, default=None)


def _quota_v2(group: Path) -> list[float]:
    for line in _lines(group / "cpu.max"):
        quota, period = line.split()
        if quota != "max":
            return [int(quota) / int(period)]
    return []


def _quota_v1(group: Path) -> list[float]:
    quota, period = _lines(group / "cpu.cfs_quota_us"), _lines(group / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return [int(quota[0]) / int(period[0])]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")[:-1]
    except OSError:
        return []
