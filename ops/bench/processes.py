"""Start a process pinned to a core for the time of a measurement, and end it again."""

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil

from ops.bench.failure import MeasurementError

START_DEADLINE_S = 30.0
END_DEADLINE_S = 10.0


def cores() -> tuple[int, int]:
    """Return the proxy's core, and the one of load and server; one and the same if there is one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1] if len(usable) < 2 else usable[1]


PROXY_CPU, LOAD_CPU = cores()


def raise_fd_limit() -> int:
    """Allow this process and those it starts as many fds as it may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """Return a TCP port of loopback that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], cpu: int | str, log: Path) -> Iterator[psutil.Process]:
    """Run a command on one core, or on several ("0,1"); what it prints goes to `log`."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["taskset", "-c", str(cpu), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
        )
    try:
        yield psutil.Process(child.pid)
    finally:
        _end(child)


def _end(child: "subprocess.Popen[bytes]") -> None:
    # Killed, not stopped: nothing is to be saved, and a drain would cost more than a measurement.
    # The root first, so that a supervisor does not replace what ends.
    left: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=END_DEADLINE_S)


def wait_until_answering(
    name: str, process: psutil.Process, probe: Callable[[], None], log: Path
) -> None:
    """Call `probe` until it raises no OSError.

    Raises:
        MeasurementError: the process ended, or did not answer in time.
    """
    give_up = monotonic() + START_DEADLINE_S
    while True:
        try:
            return probe()
        except OSError as error:
            reason = str(error)
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise MeasurementError(f"{name} ended at once: {last_line(log)}")
        if monotonic() > give_up:
            late = f"no answer from {name} in {START_DEADLINE_S:.0f} s: {reason}"
            raise MeasurementError(f"{late}; {last_line(log)}")
        sleep(0.01)


def last_line(log: Path) -> str:
    """Return the last line a process printed, shortened."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
