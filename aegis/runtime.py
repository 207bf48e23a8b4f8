"""The runtime directory, and who is alive in it.

Every process of Aegis holds a lock on a file of its own, NAME.pid, as long as it lives, and the
file says who it is. The kernel drops the lock with the process, so a lock that is held means alive
and a stale file is told from a live one without trusting a pid:

    controller.pid   exporter.pid   worker-SLOT-PID.pid      JSON, a Claim

The lock is an open file description's, on one byte (F_OFD_SETLK, fcntl(2)): it lives through
execve(2) with its fd, and F_OFD_GETLK looks at it without taking it, so that who only looks never
gets in the way of who starts. A second byte, the gate, is held for the few calls in which a file
becomes somebody's or is unlinked.

A process is signalled through a pidfd that was opened while its lock was held, so never one that
got the pid later (pidfd_open(2)).
"""

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import time
from pathlib import Path
from typing import Literal

import msgspec

from aegis.errors import AegisError

MAX_DIRECTORY_BYTES = 80  # of the 107 that a unix socket's path may have (unix(7))
SOCKET_FILES = ("commands.ipc", "reports.ipc", "requests.ipc")
EXPORTER_LEDGER_FILE = "exporter.counters"
SERVERS_FILE = "servers.json"
EXPORTER_HISTORY_FILE = "exporter.history"
EXPORTER_FILES = (
    "telemetry.ipc", "sessions.ipc", EXPORTER_LEDGER_FILE, EXPORTER_HISTORY_FILE,
)  # fmt: skip
_HELD, _GATE = 0, 1  # bytes of a claim's file
_FLOCK = "hhqqi0q"  # struct flock with 64-bit offsets: type, whence, start, length, pid


class Claim(msgspec.Struct, frozen=True):
    """What a process writes into the file that it holds locked."""

    role: Literal["controller", "exporter", "worker"]
    pid: int
    slot: int = -1
    cpu: int = -1
    supervised: bool = True
    """False: an exporter that somebody else runs and ends."""
    drain_timeout_s: float = 0.0
    """How long a worker takes at most after SIGTERM; a second one ends it at once."""
    unix_paths: tuple[str, ...] = ()
    """Socket files of its listeners, for whoever cleans up after a dead controller."""

    @property
    def file_name(self) -> str:
        """Name of the file in the runtime directory."""
        return f"worker-{self.slot}-{self.pid}.pid" if self.role == "worker" else f"{self.role}.pid"


class AlreadyRunningError(AegisError):
    """Another process holds the claim."""


def boot_id() -> str:
    """Return what differs when the machine has been started anew: random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def default_runtime_dir() -> Path:
    """Return AEGIS_RUNTIME_DIR, or a per-user directory that needs no setting up."""
    if chosen := os.environ.get("AEGIS_RUNTIME_DIR"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/aegis")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base, "aegis")
    return Path(f"/tmp/aegis-{os.geteuid()}")


def open_runtime_dir(path: Path, owner: int | None = None) -> Path:
    """Make the directory if it is missing and check that nobody else can get in.

    Args:
        path: where it is.
        owner: account that we are going to become, whose it may be already.

    Raises:
        AegisError: it cannot be made, is no directory, is somebody else's or open to others.
    """
    path = path.absolute()
    if len(os.fsencode(path)) > MAX_DIRECTORY_BYTES:
        raise AegisError(
            f"runtime directory {path}: longer than {MAX_DIRECTORY_BYTES} bytes, which leaves "
            "no room for the names of sockets"
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise AegisError(f"runtime directory {path}: {error.strerror}") from None
    if info.st_uid not in {os.geteuid(), owner}:
        raise AegisError(f"runtime directory {path}: owned by uid {info.st_uid}, not by us")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise AegisError(
            f"runtime directory {path}: mode {stat.S_IMODE(info.st_mode):04o} lets others in; "
            "it must be 0700"
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise AegisError(f"runtime directory {path}: not writable")
    return path


def take_claim(runtime_dir: Path, claim: Claim) -> int:
    """Lock the claim's file and write it; returns the fd that must stay open.

    Raises:
        AlreadyRunningError: a living process holds it.
        AegisError: the file cannot be written.
    """
    path = runtime_dir / claim.file_name
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AegisError(f"{path}: {error.strerror}") from None
        _lock(fd, _GATE, fcntl.F_OFD_SETLKW)
        ours = _lock(fd, _HELD)
        if _stands_at(path, fd):
            break
        os.close(fd)  # unlinked between our open and our lock: it is nobody's file now
    if not ours:
        os.close(fd)
        holder = read_claim(path)
        pid = f" (pid {holder.pid})" if holder else ""
        raise AlreadyRunningError(f"another {claim.role}{pid} runs in {runtime_dir}")
    os.ftruncate(fd, 0)
    os.write(fd, msgspec.json.encode(claim))
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, _GATE))
    return fd


def drop_claim(runtime_dir: Path, claim: Claim) -> None:
    """Unlink the file of a claim that we hold; the lock goes with the process."""
    (runtime_dir / claim.file_name).unlink(missing_ok=True)


def read_claim(path: Path) -> Claim | None:
    """Return the claim if a living process holds it; unlink the file if none does."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise
        try:
            if not _is_held(fd):
                _unlink_stale(path, fd)
                return None
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(os.read(fd, 4096), type=Claim)
        finally:
            os.close(fd)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)  # held, not yet written: its owner is between the two calls


def _unlink_stale(path: Path, fd: int) -> None:
    """Unlink the file that `fd` is, unless it has become somebody's, or another stands there."""
    if _lock(fd, _GATE) and not _is_held(fd) and _stands_at(path, fd):
        path.unlink(missing_ok=True)


def _stands_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _lock(fd: int, byte: int, how: int = fcntl.F_OFD_SETLK) -> bool:
    """Lock a byte of an open file; False when another open file has it."""
    try:
        fcntl.fcntl(fd, how, _flock(fcntl.F_WRLCK, byte))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES (fcntl(2))
        return False
    return True


def _is_held(fd: int) -> bool:
    """Whether another open file holds the claim."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, _HELD))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _flock(kind: int, byte: int) -> bytes:
    """Return a struct flock for one byte; l_pid must be 0 with an open file description's lock."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)


def living(runtime_dir: Path) -> list[Claim]:
    """Return the claims of all living processes; stale files are removed on the way."""
    try:
        paths = sorted(runtime_dir.glob("*.pid"))
    except OSError:  # no directory, or no name of one
        return []
    claims = (read_claim(path) for path in paths)
    return [claim for claim in claims if claim is not None]


def open_process(runtime_dir: Path, claim: Claim) -> int | None:
    """Return a pidfd of the process that holds the claim, None when it has just died."""
    try:
        pidfd = os.pidfd_open(claim.pid)
    except ProcessLookupError:
        return None
    if read_claim(runtime_dir / claim.file_name) != claim:
        os.close(pidfd)
        return None
    return pidfd


def send_signal(pidfd: int, number: signal.Signals) -> None:
    """Signal a process by pidfd; nothing happens when it is dead."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def remove_sockets(runtime_dir: Path) -> None:
    """Unlink what is of no use without its owner: the bus's socket files, an exporter's sums.

    For who holds the controller's claim, when it has found no workers or has ended them.
    """
    for name in SOCKET_FILES:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (runtime_dir / name).unlink()
    if read_claim(runtime_dir / Claim("exporter", 0).file_name) is None:
        for name in EXPORTER_FILES:
            (runtime_dir / name).unlink(missing_ok=True)
