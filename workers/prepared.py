"""Sessions whose server has to hear something else before it hears their client.

    connected ─▶ Greeting: PROXY header, TLS handshake ─▶ relay

The client's bytes wait in the kernel until then. Only listeners that lead to such a backend have
such sessions; the others say what the client has said together with their connect (dialling.py).
"""

import errno
import socket

from workers.greeting import Greeting
from workers.session import Session


class PreparedSession(Session):
    """One such session."""

    __slots__ = ()

    def _speak(self, server: socket.socket) -> int:  # noqa: ARG002 - it is told nothing yet
        return errno.EAGAIN

    def _connected(self, seconds: float, *, registered: bool) -> None:
        assert self.server is not None
        assert self.target is not None
        if not self.backend.greets:
            super()._connected(seconds, registered=registered)
            return
        self.target.connected(seconds)
        if self.note is not None:
            self.note.connected(self.loop.now)
        greeting = Greeting(self, self.backend, self.server, self.loop)
        greeting.begin(self.target, self.server, self.listener.ends_of(self))

    def speaks(self, sock: socket.socket) -> None:
        """The server is spoken to in TLS from now on."""
        self.server = sock

    def greeted(self) -> None:
        """The server may be given what the client says."""
        assert self.server is not None
        self._relay(self.server, registered=True)

    def not_greeted(self, error: int | str) -> None:
        """It may not: try the next."""
        self._attempt_failed(error)
        self.dial()
