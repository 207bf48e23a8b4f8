"""The server's side of a pipe: its connection, and what waits to be sent on it.

    dialled ─▶ connecting ─▶ setting up ─▶ ready ─▶ closed, once
                                │             │
    out ──flush, of a turn or a few──▶ send   └ short: the rest waits for the server to take it

Everything that was gathered leaves in one send. What was written is never sent again; what
was not, not even its first byte, is whole in `_out` and may go elsewhere when the server is lost.
"""

from socket import SHUT_WR, SO_ERROR, SOL_SOCKET, socket
from typing import TYPE_CHECKING

from workers.greeting import Greeting
from workers.loop import WRITE
from workers.target import Server

if TYPE_CHECKING:
    from workers.pool import Pool

CONNECTING, SETTING_UP, READY, CLOSED = 0, 1, 2, 3


class ServerEnd:
    """A connection to a server; Pipe adds who is owed what comes from it."""

    __slots__ = (
        "_begun_bytes", "_leaving", "_mask", "_out", "_out_max", "_write_ends", "dialled_at",
        "full", "gathering", "loop", "pool", "sock", "state", "target",
    )  # fmt: skip

    def __init__(self, pool: "Pool", target: Server, sock: socket) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        self.pool = pool
        self.loop = pool.loop
        self.target = target
        self.sock = sock
        self.state = CONNECTING
        self.dialled_at = self.loop.now
        self._out = bytearray()
        self._begun_bytes = 0  # of `_out`: the rest of requests of which some has gone
        self._out_max = len(self.loop.slabs.hot.buffer)
        self.full = False
        """The server takes requests more slowly than they come."""
        self._write_ends = False  # nothing more will be submitted: end the stream behind it
        self.gathering = False
        """Requests wait for others, to leave together."""
        self._leaving = False  # what waits leaves at the end of this turn
        self._mask = WRITE

    @property
    def unsent(self) -> bool:
        """Whether bytes of requests have not gone yet."""
        return bool(self._out)

    def end_writing(self) -> None:
        """Pass on that its only client has closed its half: the server decides what that means."""
        self._write_ends = True
        self.retire()
        self.send_later()

    def send_later(self) -> None:
        """Send at the end of this turn."""
        if not self._leaving:
            self._leaving = True
            self.loop.defer(self)

    def flush(self) -> None:
        """Send what was gathered, in one call."""
        self.gathering = self._leaving = False
        if self.state != CLOSED and not self._mask & WRITE and (self._out or self._write_ends):
            self._send()

    def _send(self) -> None:
        out = self._out
        try:
            sent = self.sock.send(out)
            if self._write_ends and sent == len(out):
                self.sock.shutdown(SHUT_WR)
        except BlockingIOError:
            sent = 0
        except OSError:  # the server is gone; what it said before is read first
            del out[: self._begun_bytes]
            self._begun_bytes = 0
            self.wait(self._mask & ~WRITE)
            self.retire()  # closed when the reading ends
            return
        del out[:sent]
        if sent:
            self._begun_bytes = len(out)
            self.began_to_go()
        self.wait(self._mask | WRITE if out else self._mask & ~WRITE)
        if self.full and len(out) < self._out_max:
            self.full = False
            self.has_room()

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - SO_ERROR says more
        """The connect has ended, or the server takes requests again."""
        if self.state == CONNECTING:
            code = self.sock.getsockopt(SOL_SOCKET, SO_ERROR)
            if code:
                self.connect_failed(code)
                return
            self.target.connected(self.loop.now - self.dialled_at)
            if self.pool.backend.greets:
                greeting = Greeting(self, self.pool.backend, self.sock, self.loop)
                greeting.begin(self.target, self.sock, None)
                return
            self.connected()
            if self.state == CLOSED:  # a tunnel, perhaps: the fd is another's
                return
        self._send_or_wait()

    def _send_or_wait(self) -> None:
        if self._out:
            self._send()
        else:
            self.wait(self._mask & ~WRITE)

    def speaks(self, sock: socket) -> None:
        """The server is spoken to in TLS from now on."""
        self.sock = sock

    def greeted(self) -> None:
        """The server may be asked."""
        self.connected()
        if self.state != CLOSED:
            self._send_or_wait()

    def not_greeted(self, error: int | str) -> None:
        """It may not."""
        self.connect_failed(error)

    def wait(self, mask: int) -> None:
        """Register for other events, where that is a change."""
        if mask != self._mask:
            self._mask = self.loop.switch(self.sock.fileno(), self._mask, mask)

    def release(self) -> None:
        """Give the socket up without closing it: somebody relays on it now."""
        self.state = CLOSED

    def close(self) -> None:
        """Close the socket; for the pool, which has forgotten the pipe."""
        if self.state != CLOSED:
            self.release()
            self.pool.backend.close(self.target, self.sock, self.loop)

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """Close after a handler raised."""
        self.lose("error")

    # --- for the pipe --------------------------------------------------------------------------

    def on_readable(self, mask: int) -> None:
        """The server has said something, or has gone."""
        raise NotImplementedError

    def connected(self) -> None:
        """The connect has succeeded."""
        raise NotImplementedError

    def connect_failed(self, error: int | str) -> None:
        """The connect has failed, with this errno or for this reason."""
        raise NotImplementedError

    def began_to_go(self) -> None:
        """Bytes of every request that was gathered have gone, or nobody knows."""
        raise NotImplementedError

    def has_room(self) -> None:
        """The server takes requests again."""
        raise NotImplementedError

    def retire(self) -> None:
        """Take no more requests."""
        raise NotImplementedError

    def lose(self, why: str) -> None:
        """Close, and answer for every reply that is owed."""
        raise NotImplementedError
