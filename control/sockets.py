"""The listening sockets, which the controller owns and workers inherit.

A TCP listener has one SO_REUSEPORT socket per worker slot and the kernel spreads connections over
those that listen; a unix listener has one socket for all slots. They are bound here and listened on
by the worker when it serves, so a slot without a worker gets no connections at first, and keeps its
queue when its worker has died.

SO_REUSEPORT would let a second Aegis of the same user share a port unnoticed, so a port is first
bound without it: that fails as long as anyone listens there (socket(7)).
"""

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from aegis.addresses import Address, parse_address
from aegis.config import Config, unix_paths
from aegis.errors import AegisError

SlotSockets = dict[str, socket.socket]
"""Listener name → the listening socket of one slot."""

_PIDFD_GETFD = 438  # the same on every architecture (since Linux 5.6); glibc has no wrapper
_libc = ctypes.CDLL(None, use_errno=True)


def probe(address: Address, what: str) -> None:
    """Make sure that nobody else has the address.

    Raises:
        AegisError: it is in use, not permitted or not one of this machine.
    """
    if address.is_unix:
        _probe_unix(address, what)
        return
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is nobody
        _bind(sock, address, what)
        with _explained(address, what):
            sock.listen(1)  # bind alone passes beside a socket that is bound but does not listen


def open_listener(address: Address, what: str) -> socket.socket:
    """Bind a socket that workers can inherit; it does not listen yet.

    Raises:
        AegisError: as for `probe`.
    """
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    if address.is_unix:
        # The file is ours to replace: probe has found nobody behind it.
        with contextlib.suppress(FileNotFoundError):
            Path(str(address.sockaddr)).unlink()
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        _bind(sock, address, what)
    except AegisError:
        sock.close()
        raise
    return sock


def open_slots(
    config: Config, slots: list[int], sharing: SlotSockets | None = None
) -> dict[int, SlotSockets]:
    """Open every listener for the given slots.

    Args:
        config: the listeners.
        slots: the slots that have no sockets.
        sharing: the sockets of a slot that has; its unix listeners serve the new ones as well.

    Raises:
        AegisError: as for `probe`; nothing stays open then.
    """
    opened: dict[int, SlotSockets] = {slot: {} for slot in slots}
    made: list[Path] = []
    try:
        for listener in config.listeners:
            address, what = parse_address(listener.bind), f'listener "{listener.name}"'
            if not address.is_unix:
                for slot in slots:
                    opened[slot][listener.name] = open_listener(address, what)
            elif slots:
                first = (sharing or {}).get(listener.name)
                if first is None:
                    first = opened[slots[0]][listener.name] = open_listener(address, what)
                    made.append(Path(str(address.sockaddr)))
                for slot in slots:
                    if listener.name not in opened[slot]:
                        opened[slot][listener.name] = first.dup()
    except AegisError:
        for sockets in opened.values():
            close_all(sockets)
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return opened


def take_over(pidfd: int, fds: dict[str, int], config: Config) -> SlotSockets | None:
    """Duplicate the listening sockets of a living worker; None where the kernel does not let us.

    Args:
        pidfd: the worker.
        fds: listener name → fd in the worker, from its report.
        config: only sockets bound to what it says are taken; all listeners must be there.
    """
    taken: SlotSockets = {}
    for listener in config.listeners:
        fd = fds.get(listener.name)
        copy = -1 if fd is None else _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy >= 0:
            os.set_inheritable(copy, False)
            sock = taken[listener.name] = socket.socket(fileno=copy)
            if _bound_to(sock, parse_address(listener.bind)):
                continue
        close_all(taken)
        return None
    return taken


def close_all(sockets: SlotSockets) -> None:
    """Close the sockets of a slot; unix socket files stay."""
    for sock in sockets.values():
        sock.close()


def remove_unix_files(config: Config) -> None:
    """Unlink the unix listeners' files; for the controller that ends."""
    for path in unix_paths(config):
        Path(path).unlink(missing_ok=True)


def _bound_to(sock: socket.socket, address: Address) -> bool:
    """Whether this is a listener's socket there, and not a connection that was accepted there."""
    try:
        sock.getpeername()
    except OSError:
        return sock.family == address.family and sock.getsockname() == address.sockaddr
    return False


def _bind(sock: socket.socket, address: Address, what: str) -> None:
    if address.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    with _explained(address, what):
        sock.bind(address.sockaddr)


@contextlib.contextmanager
def _explained(address: Address, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "the address is in use by another process",
            errno.EACCES: "no permission; ports below 1024 need CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }
        why = reasons.get(error.errno or 0, error.strerror)
        raise AegisError(f"{what}: cannot bind {address.text}: {why}") from None


def _probe_unix(address: Address, what: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        code = sock.connect_ex(address.sockaddr)
    if code == errno.ENOENT:
        return  # no file
    path = Path(str(address.sockaddr))
    why = os.strerror(code)
    if code in {0, errno.EAGAIN}:  # EAGAIN: its backlog is full
        why = "another process listens there"
    elif code == errno.ECONNREFUSED:  # nobody listens, or it is not even a socket
        if path.is_socket():
            return
        why = "the file exists and is not a socket"
    raise AegisError(f"{what}: cannot bind {address.text}: {why}")
