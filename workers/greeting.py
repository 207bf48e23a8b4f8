"""What a connection to a server begins with, where a backend has it so: PROXY header, handshake.

    connected ─▶ Greeting ─ header ─▶ ClientHello … Finished ─▶ owner.greeted
                    └─ the connection breaks, the certificate does not hold ─▶ owner.not_greeted

The owner (a session that dials, a pipe, a spare) has connected a socket and gets it back, as it was
registered. Its connect deadline goes on; closing the socket ends the greeting. Nothing of a client
was sent before, so another server may be tried.
"""

import errno
import socket
import ssl
from typing import Protocol

from aegis.proxy_protocol import Endpoints, build_v1, build_v2
from workers.backend import Backend
from workers.handshake import reason_of, shake_hands
from workers.loop import WRITE, Loop, Reader, Writer
from workers.steps import Procedure, Steps
from workers.target import Server
from workers.tls import TlsSocket
from workers.tls_loop import TlsLoop


class Owner(Reader, Writer, Protocol):
    """Whoever has connected."""

    def speaks(self, sock: socket.socket) -> None:
        """This socket is to be used from now on in place of the one that was connected."""
        ...

    def greeted(self) -> None:
        """The server may be spoken to."""
        ...

    def not_greeted(self, error: int | str) -> None:
        """It may not; an errno or a reason."""
        ...


class Greeting(Procedure):
    """The beginning of one connection."""

    __slots__ = ("_backend", "_began", "_owner")

    def __init__(self, owner: Owner, backend: Backend, sock: socket.socket, loop: Loop) -> None:
        """Take over a connected socket that is registered with WRITE."""
        super().__init__(loop, sock.fileno(), registered=WRITE)
        self._owner = owner
        self._backend = backend
        self._began = loop.now
        loop.hand_over(sock.fileno(), WRITE, self, self)

    def begin(self, target: Server, sock: socket.socket, ends: Endpoints | None) -> None:
        """Say what is to be said; `ends` is the client's connection, where there is one client."""
        self.take(self._greet(target, sock, ends))

    def _greet(self, target: Server, sock: socket.socket, ends: Endpoints | None) -> Steps[None]:
        conf = self._backend.config
        if conf.send_proxy != "off":
            header = (build_v1 if conf.send_proxy == "v1" else build_v2)(ends)
            if sock.send(header) < len(header):  # a fresh connection takes more than that
                raise ConnectionResetError
        if conf.tls is None:
            return
        assert isinstance(self.loop, TlsLoop)
        assert self._backend.tls_context is not None
        name = conf.tls.server_name or (str(target.address.host) if conf.tls.verify else None)
        server = TlsSocket(
            sock, self._backend.tls_context, self.loop, server_side=False, server_name=name
        )
        self._owner.speaks(server)
        yield from shake_hands(server, server.handshake())
        self._backend.tls.completed(self.loop.now - self._began)

    def done(self, result: None) -> None:
        """Give the connection back."""
        del result
        self.loop.hand_over(self._fd, WRITE, self._owner, self._owner)
        self._owner.greeted()

    def broke(self, error: OSError) -> None:
        """Leave the next attempt to the owner."""
        if isinstance(error, ssl.SSLError):
            reason = reason_of(error)
            self._backend.tls.failed(reason)
            self._owner.not_greeted(f"TLS_{reason}")
        else:
            self._owner.not_greeted(error.errno or errno.ECONNRESET)

    def fail(self, error: Exception) -> None:
        """End what it was the beginning of."""
        self._owner.fail(error)
