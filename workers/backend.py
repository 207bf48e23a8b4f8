"""A named group of servers as one worker sees it, and the choice of the next one.

Nothing here does I/O. Counts are this worker's own: least_conn compares what this worker has open.
"""

import socket
from typing import Final

from aegis import config
from aegis.addresses import Address, parse_address
from aegis.figures import ServerFigures


class Server:
    """One address of a backend; `figures.connections` is kept by the sessions that use it."""

    __slots__ = ("address", "bit", "figures")

    def __init__(self, backend: str, text: str, index: int) -> None:
        self.address: Final[Address] = parse_address(text)
        self.bit: Final = 1 << index
        self.figures: Final = ServerFigures(backend, text)


class Backend:
    """The servers of one backend. `pick` never returns one whose bit is in `tried`."""

    __slots__ = ("_least_conn", "_turn", "config", "servers")

    def __init__(self, conf: config.Backend, slot: int) -> None:
        """Start the rotation at the worker's slot, so that workers do not move in step."""
        self.config = conf
        self.servers = [Server(conf.name, text, i) for i, text in enumerate(conf.servers)]
        self._turn = slot % len(self.servers)
        self._least_conn = conf.balance == "least_conn"

    def pick(self, tried: int) -> Server | None:
        """Choose a server for a session that has tried those in the bit set; None: all tried."""
        servers, turn = self.servers, self._turn
        best: Server | None = None
        for server in servers[turn:] + servers[:turn] if len(servers) > 1 else servers:
            if server.bit & tried:
                continue
            if not self._least_conn:
                best = server
                break
            if best is None or server.figures.connections < best.figures.connections:
                best = server
        if best is not None:
            self._turn = best.bit.bit_length() % len(servers)  # the one after it, ties rotate
        return best

    def dial(self, server: Server) -> tuple[socket.socket, int]:
        """Start a non-blocking connect; returns the socket and connect(2)'s errno (0: done).

        Raises:
            OSError: no socket could be made (EMFILE and its like).
        """
        address = server.address
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if address.family != socket.AF_UNIX:
            tune(sock, self.config.keepalive_s)
        return sock, sock.connect_ex(address.sockaddr)


def tune(sock: socket.socket, keepalive_s: int) -> None:
    """Set TCP_NODELAY and keepalive; accepted sockets inherit both from their listener (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive_s:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
