"""What a controller tells the program that it becomes: `aegis-ctl upgrade`.

execve(2) keeps the pid, so children stay children and systemd's main process stays itself; it keeps
the fds that are made inheritable, so the listening sockets and the claim on the runtime directory
are never let go. All else the new program learns as any new controller does, from the workers.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from aegis.config import Config
from aegis.config_file import load_config
from aegis.errors import AegisError
from aegis.lifecycle import Goal
from control.privileges import keep_through_exec

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD}
"""What a controller handles; blocked while nobody does."""

log = logging.getLogger(__name__)


class Handover(msgspec.Struct, frozen=True):
    """In a memory file whose fd is the new program's `--handover`."""

    config_file: str
    runtime_dir: str
    config: bytes
    """JSON of the configuration in force, as far as the new program still understands it."""
    count: int
    generation: int
    epoch: int
    upgrades: int
    claim_fd: int
    slots: dict[int, dict[str, int]]
    orders: dict[str, list[int] | None]
    inherited: dict[str, int]
    exporter: tuple[str, int] | None
    goal: Goal
    deadline: float
    doors_close_at: float
    listeners: dict[str, float]

    def configuration(self) -> Config:
        """Return the configuration that was in force, or what the file says now.

        Raises:
            AegisError: it means nothing to this version, and the file has errors.
        """
        try:
            return msgspec.json.decode(self.config, type=Config)
        except msgspec.MsgspecError as error:
            log.warning("the running configuration is not this version's: %s", error)
            return load_config(Path(self.config_file))


def become(executable: str, handover: Handover) -> None:
    """Execute the new program in our place; returns only if that fails.

    Raises:
        AegisError: it cannot be executed.
    """
    memory = os.memfd_create("handover")
    os.write(memory, msgspec.msgpack.encode(handover))
    os.lseek(memory, 0, os.SEEK_SET)
    os.set_inheritable(memory, True)
    os.set_inheritable(handover.claim_fd, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # kept by execve(2), so none is lost
    arguments = [executable, "-P", "-m", "control.main", "--handover", str(memory)]
    try:
        keep_through_exec()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(executable, arguments)
    except OSError as error:
        raise AegisError(f"cannot execute {executable}: {error.strerror}") from None
    finally:
        os.close(memory)
        os.set_inheritable(handover.claim_fd, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def receive(fd: int) -> Handover:
    """Read what the program before us has left.

    Raises:
        AegisError: it makes no sense.
    """
    try:
        with open(fd, "rb") as file:
            handover = msgspec.msgpack.decode(file.read(), type=Handover)
        os.set_inheritable(handover.claim_fd, False)
    except (OSError, msgspec.MsgspecError) as error:
        raise AegisError(f"--handover {fd}: {error}") from None
    return handover
