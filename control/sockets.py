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
from collections.abc import Iterable, Iterator
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
    config: Config, slots: dict[int, SlotSockets], known: Iterable[SlotSockets] = ()
) -> None:
    """Open, in place, every listener that a slot does not have yet.

    Args:
        config: the listeners.
        slots: the slots, each with the sockets that it has.
        known: sockets of other slots; their unix listeners serve these as well.

    Raises:
        AegisError: as for `probe`; what was opened is closed again.
    """
    opened: list[tuple[SlotSockets, str]] = []
    made: list[Path] = []
    try:
        for listener in config.listeners:
            name, address = listener.name, parse_address(listener.bind)
            shared = [s[name] for s in [*slots.values(), *known] if name in s][:1]
            for sockets in slots.values():
                if name in sockets:
                    continue
                if address.is_unix and shared:
                    sockets[name] = shared[0].dup()
                else:
                    sockets[name] = open_listener(address, f'listener "{name}"')
                    shared = [sockets[name]]
                    if address.is_unix:
                        made.append(Path(str(address.sockaddr)))
                opened.append((sockets, name))
    except AegisError:
        for sockets, name in opened:
            sockets.pop(name).close()
        for path in made:
            path.unlink(missing_ok=True)
        raise


def take_over(pidfd: int, fds: dict[str, int], config: Config) -> SlotSockets:
    """Duplicate the listening sockets of a living worker, as far as the kernel lets us.

    Args:
        pidfd: the worker.
        fds: listener name → fd in the worker, from its report.
        config: only sockets bound to what it says are taken.
    """
    taken: SlotSockets = {}
    for listener in config.listeners:
        fd = fds.get(listener.name)
        copy = -1 if fd is None else _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            continue
        os.set_inheritable(copy, False)
        sock = socket.socket(fileno=copy)
        # O_NONBLOCK is the open file's, which the worker shares: a socket object that takes itself
        # for blocking would clear it in dup(), and the worker would hang in accept(2).
        sock.setblocking(False)
        if _bound_to(sock, parse_address(listener.bind)):
            taken[listener.name] = sock
        else:
            sock.close()
    return taken


def addresses_of(pidfd: int, fds: dict[str, int]) -> set[str]:
    """Return where the listening sockets of a living worker are bound, as Address.text."""
    held = set()
    for fd in fds.values():
        copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            continue
        with socket.socket(fileno=copy) as sock:
            name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            held.add(f"unix:{name}")
        else:
            host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
            held.add(f"{host}:{name[1]}")
    return held


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
