"""One process that the supervisor watches, whether it is our child or an orphan that we adopted.

A pidfd becomes readable when the process ends, whoever its parent is (pidfd_open(2)).
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import msgspec

from aegis.config import Config
from aegis.limits import HUNG_AFTER_S
from aegis.messages import Boot, Report
from aegis.runtime import send_signal


class Process:
    """A living process, or one that has ended and is not forgotten yet."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.started = monotonic()
        self.report: Report | None = None
        self.serving_since: float | None = None
        self.kill_at: float | None = None
        """Instant from which the process has outlived what it was given."""
        self.heard_at = self.started
        self.hung = False
        """It has missed its heartbeats and got a successor."""
        self.digest = ""
        self.generation = 0
        self.binds: dict[str, str] = {}
        """Listener name → address of what a worker accepts from."""
        self.private = False
        """Its sockets are its own: the kernel did not let us take them over."""
        self._child = child
        self._exit: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the process is gone; a child's exit status is kept for `how_it_ended`."""
        return self.wait(0)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False when it has not come in time."""
        if not select.select([self.pidfd], [], [], timeout_s)[0]:
            return False
        if self._child is not None:
            self._exit = self._child.wait()
        elif self._exit is None:
            # A child of the program that we were before execve(2) is our child still.
            with contextlib.suppress(ChildProcessError):
                ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
                if ended is not None:
                    killed = ended.si_code != os.CLD_EXITED
                    self._exit = -ended.si_status if killed else ended.si_status
        return True

    @property
    def how_it_ended(self) -> str:
        """Words for the exit status, which only a parent gets to know."""
        if self.hung:
            return f"hung for {HUNG_AFTER_S:g} s and was killed"
        code = self._exit
        if code is None:
            return "ended"
        if code >= 0:
            return f"exit code {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, to this process and never to a later one with its pid."""
        send_signal(self.pidfd, number)

    def close(self) -> None:
        """Forget an ended process."""
        os.close(self.pidfd)


def spawn_worker(boot: Boot) -> Process:
    """Start a worker: a fresh interpreter, because a ZeroMQ context does not survive a fork."""
    return _spawn(["workers.worker"], boot, list(boot.listeners.values()))


def spawn_exporter(config: Config, runtime_dir: Path, fd: int) -> Process:
    """Start the exporter on the listening socket `fd`, which outlives it.

    It is told the configuration: the file may be another, or broken, by now.
    """
    arguments = ["--runtime-dir", str(runtime_dir), "--fd", str(fd)]
    return _spawn(["control.exporter", *arguments], config, [fd])


def _spawn(module: list[str], told: msgspec.Struct, fds: list[int]) -> Process:
    """Run a module, which finds what it is told on its standard input."""
    memory = os.memfd_create("told")
    try:
        os.write(memory, msgspec.msgpack.encode(told))
        os.lseek(memory, 0, os.SEEK_SET)
        return _run(module, memory, fds)
    finally:
        os.close(memory)


def _run(module: list[str], stdin: int, fds: list[int]) -> Process:
    # A session of its own: Ctrl-C in the terminal is the controller's to handle. -P: the current
    # directory is not to be searched for modules.
    # SIGUSR1 would kill a newborn; a mask is inherited, and undone by who has a handler.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", *module], stdin=stdin, pass_fds=fds, start_new_session=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Process(child.pid, os.pidfd_open(child.pid), child)
