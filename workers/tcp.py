"""What the kernel is told, and asked, about one TCP socket."""

import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final

from aegis.proxy_protocol import Endpoints

RawSocket: Final[Callable[..., Any]] = socket.SocketType
"""What socket.socket is derived from, with all that a worker calls. Making one runs no Python code
and makes no enum members: an accepted connection costs 4 us less (ops/bench, row churn)."""

_NOTHING = bytes(4)  # the int 0, as ioctl(2) gives it
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

SHORTAGES = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EADDRNOTAVAIL,  # every local port to this server is in use
    errno.EAGAIN,  # a unix socket whose backlog is full (unix(7)); a TCP connect never says so
}
"""What is wrong here and passes by itself: worth another try with the same server."""

LOST = {
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.ENOTCONN,  # shutdown(2) of a socket that was reset
}
"""Errnos of a broken connection that are not ConnectionError."""
_TCP_CLOSE = 7  # tcp_states.h; the first byte of struct tcp_info is the state


def unsent(sock: socket.socket) -> int:
    """Return how many bytes the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    if sock.family == socket.AF_UNIX:
        return 0  # what was written is in the peer's queue already
    if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
        return 0  # reset: the count stays, the bytes are gone
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _NOTHING), sys.byteorder)


def has_unread(sock: socket.socket) -> bool:
    """Tell whether bytes wait to be read (FIONREAD, tcp(7)); a close over them is a reset."""
    return fcntl.ioctl(sock.fileno(), termios.FIONREAD, _NOTHING) != _NOTHING


def tune(sock: socket.socket, keepalive_s: int) -> None:
    """Set TCP_NODELAY and keepalive; accepted sockets inherit both from their listener (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, keepalive_s)


def reset_on_close(sock: socket.socket) -> None:
    """Have close(2) send a reset: SO_LINGER with zero seconds (socket(7)); nothing on unix."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def resets_on_close(sock: socket.socket) -> bool:
    """Tell whether close(2) will send a reset."""
    option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET_ON_CLOSE))
    return option == _RESET_ON_CLOSE


def keep_alive(sock: socket.socket, keepalive_s: int) -> None:
    """Have the kernel probe a TCP peer that is silent for so long; 0 = no."""
    if keepalive_s and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)


def ends_of(client: socket.socket) -> Endpoints | None:
    """Return both ends of a connection; None if it is a unix socket's, or has been reset."""
    if client.family == socket.AF_UNIX:
        return None
    try:
        source, destination = client.getpeername(), client.getsockname()
    except OSError:
        return None
    return Endpoints(_end(source), _end(destination))


def _end(name: tuple[str, int]) -> tuple[str, int]:
    host, port = name[:2]
    return host.partition("%")[0], port
