"""Notes the first bytes a server says in a session, then gets out of the way.

    connected ─▶ FirstWord.on_readable ─▶ flow.on_readable ─▶ bytes came: Server.heard
                                                        └────▶ from now on the flow itself reads

A server is heard when it answers and not when it accepts: a kernel accepts for a process that is
stopped. Only where a server is observed (ServerWish.observed) does a session begin with one.
"""

from typing import TYPE_CHECKING

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
        session, way = self._session, self._down.way
        before = session.bytes[way]
        self._down.on_readable(mask)
        if session.bytes[way] > before:
            self._server.heard(session.loop.now)
            if session.server is not None:
                session.loop.succeed(session.server.fileno(), self, self._down)

    def fail(self, error: Exception) -> None:
        """End the session after a handler raised."""
        self._session.fail(error)
