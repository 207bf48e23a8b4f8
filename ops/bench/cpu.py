"""CPU time that processes have used: exact in sum, sampled in its parts.

The sum is the process's CPU clock, all threads and those that have ended, in nanoseconds. Its id is
made of the pid as clock_getcpuclockid(3) makes it. The kernel knows user and system time only by
what it met at its ticks (kernel/sched/cputime.c, cputime_adjust), so `/proc/PID/stat` gives the
proportion and the clock the amount.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from ops.bench.failure import MeasurementError

_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h


class Cpu(NamedTuple):
    """Seconds."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        """Both."""
        return self.user_s + self.system_s

    @property
    def user_share(self) -> float:
        """User time of both, between 0 and 1."""
        return self.user_s / self.total_s if self.total_s else 0.0


class _Reading(NamedTuple):
    clock_s: float
    user_ticks: int
    system_ticks: int


Readings = dict[int, _Reading]


def family(root: psutil.Process | None) -> tuple[int, ...]:
    """Return the pids of a process and its descendants; of None, nothing."""
    if root is None:
        return ()
    return tuple(sorted([root.pid, *(child.pid for child in root.children(recursive=True))]))


def read(pids: tuple[int, ...]) -> Readings:
    """Return what each process has used since it began.

    Raises:
        MeasurementError: one of them has ended.
    """
    try:
        return {pid: _read(pid) for pid in pids}
    except OSError as error:
        raise MeasurementError("a process ended during the measurement") from error


def _read(pid: int) -> _Reading:
    clock_s = time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Reading(clock_s, int(fields[11]), int(fields[12]))


def spent(before: Readings, after: Readings) -> Cpu:
    """Return what was used between two readings of the same processes."""
    total_s = sum(after[pid].clock_s - before[pid].clock_s for pid in before)
    user = sum(after[pid].user_ticks - before[pid].user_ticks for pid in before)
    system = sum(after[pid].system_ticks - before[pid].system_ticks for pid in before)
    share = user / (user + system) if user + system else 0.0
    return Cpu(total_s * share, total_s * (1 - share))


def rss_bytes(pids: tuple[int, ...]) -> int:
    """Return the resident memory of processes."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)
