"""The loop of a worker that speaks TLS: some of its sockets hold bytes that epoll cannot see.

    recv_into fills the reader's buffer, more is decrypted already ─▶ held back ─▶ next turn:
    on_readable, as if epoll had said so, unless the reader does not read at the moment

A worker of which no listener and no backend has TLS has the plain Loop. Here every change of what a
TLS socket's reader waits for is noted, which is a dictionary look-up at each change of a
registration, and none for each byte.
"""

from socket import socket
from typing import TYPE_CHECKING

from aegis.figures import Figures
from aegis.limits import EVENTS_PER_TURN, HANDSHAKES_PER_TURN, TLS_RECORD_BYTES
from workers.backlog import Backlog
from workers.kernel_pipes import KernelPipes
from workers.loop import NOBODY, READ, Loop, Reader, Writer
from workers.slab import Slab, Slabs, make_slab

if TYPE_CHECKING:
    from workers.tls import TlsSocket


class TlsLoop(Loop):
    """A Loop that knows what its TLS sockets hold back, and what their readers wait for."""

    __slots__ = ("_held", "_sockets", "handshakes", "raw")

    def __init__(self, slabs: Slabs, kernel_pipes: KernelPipes, figures: Figures) -> None:
        super().__init__(slabs, kernel_pipes, figures)
        self._sockets: dict[int, TlsSocket] = {}
        self._held = Backlog(self, EVENTS_PER_TURN)
        self.handshakes = Backlog(self, HANDSHAKES_PER_TURN)
        """Steps of handshakes: each may cost a millisecond, and the others want their turn."""
        self.raw: Slab = make_slab(max(TLS_RECORD_BYTES, len(slabs.hot.buffer)))
        """What is read from the network before it is decrypted."""

    def adopt(self, sock: "TlsSocket") -> None:
        """Know a socket from now on until it is closed."""
        self._sockets[sock.fileno()] = sock

    def hold(self, sock: "TlsSocket") -> None:
        """Have a socket's reader called next turn: there are bytes for it."""
        if sock.wanted and not sock.held:
            sock.held = True
            self._held.put(sock)

    def call_reader(self, fd: int) -> None:
        """Call the reader of a fd as if epoll had something to tell."""
        self._readers[fd].on_readable(READ)

    def fail_handlers(self, fd: int, error: Exception) -> None:
        """Tell both handlers of a fd that one of them has raised."""
        self._readers[fd].fail(error)
        self._writers[fd].fail(error)

    def abandon(self, sock: "TlsSocket") -> None:
        """Let epoll forget a socket that stays open for a while, although nobody reads it."""
        super().remove(sock.fileno())
        self._forget(sock.fileno())

    # --- what readers wait for -----------------------------------------------------------------

    def add(self, fd: int, mask: int, reader: Reader, writer: Writer = NOBODY) -> None:
        """Register a fd."""
        super().add(fd, mask, reader, writer)
        self._note(fd, mask)

    def switch(self, fd: int, old: int, new: int) -> int:
        """Wait for other events of a registered fd."""
        super().switch(fd, old, new)
        self._note(fd, max(new, 0))
        return new

    def hand_over(self, fd: int, mask: int, reader: Reader, writer: Writer) -> None:
        """Give a registered fd to other handlers."""
        super().hand_over(fd, mask, reader, writer)
        self._note(fd, mask)

    def remove(self, fd: int) -> None:
        """Deregister a fd that others hold as well."""
        super().remove(fd)
        self._note(fd, 0)

    def close(self, sock: socket) -> None:
        """Close a socket at the end of the turn."""
        self._forget(sock.fileno())
        super().close(sock)

    def _note(self, fd: int, mask: int) -> None:
        sock = self._sockets.get(fd)
        if sock is not None:
            sock.wanted = bool(mask & READ)
            if sock.holds:
                self.hold(sock)

    def _forget(self, fd: int) -> None:
        sock = self._sockets.pop(fd, None)
        if sock is not None:
            sock.wanted = False
