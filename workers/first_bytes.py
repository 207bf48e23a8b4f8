"""How long a server lets wait for the first byte of its answer, without a test per read.

    server readable ─▶ FirstBytes ─▶ Flow.on_readable     which is the loop's reader from then on

A session is in its `active_at` when the last byte went to the server, so the time until the server
speaks is the server's and the network's, however long the client thought before.
"""

from typing import TYPE_CHECKING

from aegis.figures import REPLY_BOUNDS_S
from workers.flow import Flow

if TYPE_CHECKING:
    from workers.session import Session


class FirstBytes:
    """The reader of a server's fd until the server speaks or ends."""

    __slots__ = ("_down", "_session")

    def __init__(self, session: "Session", down: Flow) -> None:
        self._session = session
        self._down = down

    def on_readable(self, mask: int) -> None:
        """Let the flow read, and count the time unless there was nothing but an end."""
        session, down = self._session, self._down
        assert session.server is not None
        assert session.target is not None
        figures, waited_s = session.target.figures, session.loop.now - session.active_at
        before = session.bytes[down.way]
        session.loop.read_by(session.server.fileno(), down)
        down.on_readable(mask)
        if session.bytes[down.way] > before:
            figures.first_byte_seconds.observe(waited_s, REPLY_BOUNDS_S)

    def fail(self, error: Exception) -> None:
        """End the session after a handler raised."""
        self._session.fail(error)
