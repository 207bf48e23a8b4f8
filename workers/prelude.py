"""A client between accept and session: what its listener's door asks of it, or its refusal.

    accept ─▶ Prelude ─ door.steps ─┬─ None: Listener.let_in ─▶ a session, of this one's age
                 │                  └─ why not ─▶ refused: told, closed or dropped
                 └─ too slow, reset, drained ─▶ closed

It counts as a session from accept on, as any other does, and owns the client until it hands it
over. One that is told why it is refused stays until it has heard it, so that what it has said
already does not turn the close into a reset, which would take the words away again.
"""

import socket
from typing import TYPE_CHECKING

from aegis.lifecycle import CloseReason
from aegis.limits import LINGER_S, MAX_FAREWELLS, SHARE_WAIT_S
from workers.loop import READ
from workers.refusal import vanish
from workers.steps import Procedure
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.door import Door, Route
    from workers.guarded import GuardedListener
    from workers.quota import Quota
    from workers.session_log import Note


class Prelude(Procedure):
    """One such client."""

    __slots__ = (
        "_door", "_due", "_queue", "_refused", "_until", "accepted_at", "bytes", "client",
        "listener", "note", "route", "slot",
    )  # fmt: skip

    def __init__(self, listener: "GuardedListener", client: socket.socket, door: "Door") -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        super().__init__(listener.loop, client.fileno(), registered=None)
        self.listener = listener
        self.client = client
        """The one to relay with, once all is done: it may speak TLS."""
        self.bytes = listener.figures.bytes
        self.note: Note | None = None
        self.route: Route | None = None
        """Where its name leads; None: to the listener's backend."""
        self.slot = UNARMED
        self.accepted_at = self.loop.now
        self._door = door
        self._due = self._until = self.loop.now + door.patience_s
        self._queue: Quota | None = None
        self._refused: CloseReason | None = None  # and it is being told

    def begin(self) -> None:
        """Have everything asked; what does not need to wait is done when this returns."""
        self.take(self._door.steps(self))
        if self._steps is not None:
            self.loop.wheel.arm(self, self._until)

    # --- for the door --------------------------------------------------------------------------

    def is_from(self, source: tuple[str, int]) -> None:
        """Note what the client says its address is."""
        if self.note is not None:
            self.note.is_from(source)

    def queued(self, quota: "Quota") -> None:
        """Note that a place is waited for, which has its own time."""
        self._queue = quota
        self._look_at(self.loop.now + SHARE_WAIT_S)

    def dequeued(self) -> bool:
        """Note that the wait is over; returns whether there is a place."""
        got = self._queue is not None
        self._queue = None
        self._look_at(self._due)
        return got

    # --- what comes of it ----------------------------------------------------------------------

    def done(self, result: CloseReason | None) -> None:
        """Let the client in, or refuse it."""
        if result is not None:
            self._refuse(result)
            return
        self.leave()
        self.loop.wheel.disarm(self)
        self.listener.let_in(self)

    def broke(self, error: OSError) -> None:  # noqa: ARG002 - a client may go at any time
        """The client has gone."""
        self.close("client_reset")

    def _refuse(self, reason: CloseReason) -> None:
        door, refusal = self._door, self.listener.config.refusal
        door.left(self)
        words = door.words(reason) if refusal == "error" else b""
        if refusal == "drop":
            vanish(self.client)
        if not words or door.farewells >= MAX_FAREWELLS:
            self.close(reason)
            return
        try:
            self.client.send(words)
            self.client.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(reason)
            return
        door.farewells += 1
        self._refused = reason
        self._wait(READ)
        self._look_at(self.loop.now + LINGER_S)

    def on_readable(self, mask: int) -> None:
        """Go on; or throw away what a client says that has been refused."""
        if self._refused is None:
            super().on_readable(mask)
            return
        try:
            more = self.client.recv_into(self.loop.slabs.hot.buffer)
        except BlockingIOError:
            return
        except OSError:
            more = 0
        if not more:
            self.close(self._refused)

    # --- time and end --------------------------------------------------------------------------

    def _look_at(self, due: float) -> None:
        self._until = due
        if self.slot != UNARMED or self._refused is not None:
            self.loop.wheel.disarm(self)
            self.loop.wheel.arm(self, due)

    def expire(self, now: float) -> float:
        """Give up what takes too long; tell when to look again."""
        if now < self._until:
            return self._until
        if self._refused is not None:
            self.close(self._refused)
        elif self._queue is not None:
            self._queue.give_up(self)
            self._queue = None
            self.go_on()
        else:
            self.cancel()
            self._refuse("first_byte_timeout")
        return 0.0 if self._steps is None else self._until

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """End after a step raised what nobody foresaw."""
        self.close("error")

    def close(self, reason: CloseReason) -> None:
        """Close the client and give everything back."""
        self.cancel()
        if self._queue is not None:
            self._queue.give_up(self)
            self._queue = None
        if self._refused is not None:
            self._door.farewells -= 1
            self._refused = None
        self.loop.wheel.disarm(self)
        self.loop.close(self.client)
        self.listener.closed(self, reason)
