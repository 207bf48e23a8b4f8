"""CPU and memory of the worker processes, asked of the kernel by whoever hears of them.

A worker does not measure itself: that would cost its loop a system call or two, and psutil.
"""

from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    """What the kernel says of one process."""

    cpu_s: float
    """User and system time since it started."""
    rss_bytes: int
    cpu: int
    """The core it is pinned to, -1 when it may use several."""


class Meter:
    """Measures workers by pid; remembers who is one, by what it was started as."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def measure(self, pid: int) -> Usage | None:
        """Return the usage; None for what is no worker here: gone, or of another pid namespace."""
        try:
            process = self._known.get(pid)
            if process is None or not process.is_running():
                process = psutil.Process(pid)
                if "workers.worker" not in process.cmdline():
                    return None
                self._known[pid] = process
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
            cores = process.cpu_affinity() or []
        except psutil.Error:
            self._known.pop(pid, None)
            return None
        return Usage(times.user + times.system, memory.rss, cores[0] if len(cores) == 1 else -1)

    def keep(self, pids: set[int]) -> None:
        """Forget all other processes."""
        for pid in self._known.keys() - pids:
            del self._known[pid]


def unmeasured(pid: int) -> Usage | None:  # noqa: ARG001 - stands in for Meter.measure
    """Measure nothing, for a state whose processes are not on this machine."""
    return None
