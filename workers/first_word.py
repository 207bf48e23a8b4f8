"""Notes the first bytes a server says in a session, then gets out of the way.

    connected ─▶ FirstWord.on_readable ─▶ flow.on_readable ─▶ bytes came: how long they took,
                                                        │     and Server.heard
                                                        └────▶ from now on the flow itself reads

So a read need not ask whether it is the first. A session is in its `active_at` when the last byte
went to the server: the time until the server speaks is the server's and the network's, however long
the client thought before.

A server is heard when it answers and not when it accepts: a kernel accepts for a process that is
stopped. That matters only where a server is observed (ServerWish.observed).
"""

from typing import TYPE_CHECKING

from aegis.figures import REPLY_BOUNDS_S
from workers.flow import Flow
from workers.target import Server

if TYPE_CHECKING:
    from workers.session import Session


class FirstWord:
    """The reader of a server's socket until it has said something."""

    __slots__ = ("_down", "_server", "_session")

    def __init__(self, session: "Session", server: Server, down: Flow) -> None:
        self._session = session
        self._server = server
        self._down = down

    def on_readable(self, mask: int) -> None:
        """Let the flow read, and see whether there were bytes."""
        session, server, way = self._session, self._server, self._down.way
        before, asked_at, now = session.bytes[way], session.active_at, session.loop.now
        self._down.on_readable(mask)
        if session.bytes[way] > before:
            server.figures.first_byte_seconds.observe(now - asked_at, REPLY_BOUNDS_S)
            if server.wish.observed:
                server.heard(now)
            if session.server is not None:
                session.loop.succeed(session.server.fileno(), self, self._down)

    def fail(self, error: Exception) -> None:
        """End the session after a handler raised."""
        self._session.fail(error)
