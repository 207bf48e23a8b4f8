"""A connection to a server that we have ended, and that the server does not know of yet.

    close ─▶ the server has all that was sent ─▶ closed, its place is given on at the turn's end
        └─ it reads slowly, and places are limited ─▶ our half ends, looked at each tick ─▶ closed
                                                       └─ server_fin_timeout_s ─▶ reset

close(2) returns at once, but the end of the stream waits in our kernel behind what the server has
not read. Until it has, the connection is open to the server, so it keeps its place here.
"""

import contextlib
from socket import SHUT_WR, socket
from typing import TYPE_CHECKING

from aegis.limits import TICK_S
from workers.loop import Loop
from workers.target import Server
from workers.tcp import reset_on_close, unsent

if TYPE_CHECKING:
    from workers.backend import Backend


class Leaving:
    """One such connection; it is on the wheel until it is closed."""

    __slots__ = ("_backend", "_give_up_at", "_loop", "_server", "_sock", "slot")

    slot: int

    def __init__(self, backend: "Backend", server: Server, sock: socket, loop: Loop) -> None:
        """End our half of a connection that nobody reads from any more."""
        self._backend = backend
        self._server = server
        self._sock = sock
        self._loop = loop
        self._give_up_at = loop.now + (backend.config.server_fin_timeout_s or float("inf"))
        backend.ending.add(self)
        loop.remove(sock.fileno())
        with contextlib.suppress(OSError):  # reset meanwhile: the next look finds that out
            sock.shutdown(SHUT_WR)
        loop.wheel.arm(self, loop.now + TICK_S)

    def expire(self, now: float) -> float:
        """Close once the server has everything, or has had time enough; tell when to look again."""
        if unsent(self._sock):
            if now < self._give_up_at:
                return now + TICK_S
            reset_on_close(self._sock)
        self.end()
        return 0.0

    def end(self) -> None:
        """Close, whatever the server has."""
        self._loop.wheel.disarm(self)
        self._backend.ending.discard(self)
        self._loop.close(self._sock)
        self._backend.freed(self._server, self._loop)

    def fail(self, error: Exception) -> None:
        """Let the worker die: a budget that is wrong must be made anew."""
        raise error
