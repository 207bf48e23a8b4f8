"""The listening sockets, which the controller owns and workers inherit.

A TCP listener has one SO_REUSEPORT socket per worker slot and the kernel spreads connections over
those that listen; a unix listener has one socket for all slots. A slot keeps its queue when its
worker has died; control/slots.py says who has which.

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

from aegis.addresses import Address
from aegis.config import Config, unix_paths
from aegis.errors import AegisError

SlotSockets = dict[str, socket.socket]
"""Address.text → the listening socket of one slot."""

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
    # O_NONBLOCK is the open file's, which all holders share: a socket object that takes itself for
    # blocking would clear it in dup(), and a worker would hang in accept(2).
    sock.setblocking(False)
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


def take_over(pidfd: int, fds: dict[str, int]) -> dict[str, tuple[str, socket.socket]]:
    """Duplicate the listening sockets of a living worker, as far as the kernel lets us.

    Args:
        pidfd: the worker.
        fds: listener name → fd in the worker, from its report.

    Returns:
        Listener name → (Address.text, socket) of each that could be had.
    """
    taken = {}
    for name, fd in fds.items():
        copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            continue
        os.set_inheritable(copy, False)
        sock = socket.socket(fileno=copy)
        sock.setblocking(False)  # as in `open_listener`
        text = bound_to(sock)
        if text:
            taken[name] = text, sock
        else:
            sock.close()
    return taken


def bound_to(sock: socket.socket) -> str:
    """Return where a listener's socket is bound, as Address.text; empty if it is none.

    A connection that was accepted there is none, nor is a socket of another family.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return ""
    with contextlib.suppress(OSError):
        sock.getpeername()
        return ""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}" if isinstance(name, str) and name else ""
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    host, _, zone = name[0].partition("%")
    if name[3] and not zone:
        zone = socket.if_indextoname(name[3])
    return f"[{host}%{zone}]:{name[1]}" if zone else f"[{host}]:{name[1]}"


def close_all(sockets: SlotSockets) -> None:
    """Close the sockets of a slot; unix socket files stay."""
    for sock in sockets.values():
        sock.close()


def remove_unix_files(config: Config) -> None:
    """Unlink the unix listeners' files; for the controller that ends."""
    for path in unix_paths(config):
        Path(path).unlink(missing_ok=True)


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
