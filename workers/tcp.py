"""What the kernel is told, and asked, about one TCP socket."""

import errno
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any, Final

RawSocket: Final[Callable[..., Any]] = socket.SocketType
"""What socket.socket is derived from, with all that a worker calls. Making one runs no Python code
and makes no enum members: an accepted connection costs 4 us less (ops/bench, row churn)."""

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
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def tune(sock: socket.socket, keepalive_s: int) -> None:
    """Set TCP_NODELAY and keepalive; accepted sockets inherit both from their listener (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, keepalive_s)


def keep_alive(sock: socket.socket, keepalive_s: int) -> None:
    """Have the kernel probe a TCP peer that is silent for so long; 0 = no."""
    if keepalive_s and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
