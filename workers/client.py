"""The client's side of a session that shares pipes: output it does not take yet, and its close.

    deliver ─▶ send ─▶ short: the rest waits in a slab, the client is blocked ─▶ writable: flush
                               no slab: the rest is not taken, and the pipe it came from waits

    finish ─▶ output gone ─▶ shutdown, then read and discard until the client closes ─▶ closed
                         └─ the client has asked for the close, and said nothing since ─▶ closed

A close over unread bytes makes the kernel reset the connection, which destroys the answer that went
before it, so a close of ours lingers (RFC 9112, 9.6; it holds for every protocol), unless the
client has said that nothing more comes.

What is out of the ordinary with a client is a bit of its `state`. 0 is the ordinary client, between
two requests or owed replies and nothing else: requests and replies of such go the quick way, which
looks at this one number (SharedSession.on_readable, Pipe._deal) and changes none of the bits.
"""

from socket import MSG_MORE, SHUT_WR, socket
from typing import TYPE_CHECKING

from aegis.lifecycle import CloseReason
from aegis.limits import LINGER_S, SLOW_CLIENT_S
from workers.loop import READ, SILENCED, WRITE, Loop
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.dealing import Dealer
    from workers.listener import Listener
    from workers.session_log import Note
    from workers.slab import Slab

BLOCKED = 1 << 0
"""It does not take its output: some waits for it."""
GONE = 1 << 1
"""It has left, and nobody wants what it is owed."""
EOF = 1 << 2
"""It has closed its half."""
ENDING = 1 << 3
"""It is to be closed once its output has gone."""
LINGERING = 1 << 4
"""Our half is closed; what it still says is thrown away."""
HELD = 1 << 5
"""Some of its input is held (workers/intake.py)."""
STREAMING = 1 << 6
"""A request too long to be held goes on piece by piece."""
WAITING = 1 << 7
"""It is in its pool's queue."""
ALONE = 1 << 8
"""It has a pipe to itself."""
SWITCHING = 1 << 9
"""The reply that is due says whether its new setup holds."""
DRAINING = 1 << 10
"""It ends with its next reply."""
LOGGED = 1 << 11
"""The session log wants to know of each request."""


class ClientEnd:
    """A client's socket; SharedSession adds what is done with what it says."""

    __slots__ = (
        "_ending", "_held_up", "_mask", "_out", "_out_end", "_out_start", "accepted_at",
        "active_at", "bytes", "client", "listener", "loop", "note", "send", "slot", "state",
        "until",
    )  # fmt: skip

    def __init__(self, listener: "Listener", client: socket) -> None:
        """Take over an accepted, non-blocking client."""
        self.listener = listener
        self.loop: Loop = listener.loop
        self.client = client
        self.bytes = listener.figures.bytes
        """[from client, to client], of this session alone if it is logged."""
        self.note: Note | None = None
        """What the session log will say, if it is logged."""
        self.state = 0
        """Bits of what is out of the ordinary."""
        self.slot = UNARMED
        self.active_at = self.accepted_at = self.loop.now
        self.send = client.send
        self._out: Slab | None = None  # output that the client does not take yet
        self._out_start = self._out_end = 0
        self.until = float("inf")  # deadline of whatever the state waits for
        self._ending: CloseReason | None = None  # why it is ENDING
        self._mask = READ
        self._held_up: Dealer | None = None  # it waits for us to take our replies

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """End after a handler raised."""
        self._ending = None
        self.close("error")

    def deliver(self, data: memoryview, *, ends: bool = False) -> int:
        """Give the client bytes it is owed; returns how many it took, or are kept for it.

        `ends`: our half is closed right behind them. The kernel is told that more comes (send(2)),
        so that the end travels with them and not after them.
        """
        if self.state & (GONE | BLOCKED):  # of who has left, exactly these are thrown away
            return len(data) if self.state & GONE else 0
        try:
            sent = self.send(data, MSG_MORE) if ends else self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close("client_reset")
            return len(data)
        if sent < len(data):
            sent = self._block(data, sent)
        self.bytes[1] += sent
        self.active_at = self.loop.now
        return sent

    def _block(self, data: memoryview, sent: int) -> int:
        """Keep what was not taken, if there is a slab for it; returns how much is dealt with."""
        self.state |= BLOCKED
        slabs = self.loop.slabs
        if slabs.spare and len(data) - sent <= len(slabs.hot.buffer):
            self._out = slabs.borrow()
            self._out_start, self._out_end = 0, len(data) - sent
            self._out.view[: self._out_end] = data[sent:]
            sent = len(data)
        self.update()
        return sent

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - the mask says nothing more
        """The client takes bytes again."""
        if self._out is not None:
            try:
                self._out_start += self.send(self._out.view[self._out_start : self._out_end])
            except BlockingIOError:
                return
            except OSError:
                self.close("client_reset")
                return
            self.active_at = self.loop.now
            if self._out_start < self._out_end:
                return
            self.drop_output()
        self.state &= ~BLOCKED
        self.unblocked()
        self.go_on()
        if self.state & (BLOCKED | ENDING) == ENDING:
            self._linger()
        self.update()

    def hold_up(self, pipe: "Dealer") -> None:
        """Note that a pipe cannot go on until we take our replies; not for ever if others wait."""
        self._held_up = pipe
        if pipe.owner is None:
            self.until = self.loop.now + SLOW_CLIENT_S
            self.rearm()

    def unblocked(self) -> None:
        """Let a pipe go on that waited for us."""
        pipe, self._held_up = self._held_up, None
        if pipe is not None:
            self.until = float("inf")
            pipe.resume()

    def say(self, reply: bytes) -> None:
        """Give the client an answer of our own; one that takes nothing is closed."""
        if reply and self.deliver(memoryview(reply)) < len(reply):
            self.close("slow_client")

    def finish(self, reason: CloseReason) -> None:
        """Close once the client has taken what it was given."""
        if self.state & (GONE | ENDING):
            return
        self.state |= ENDING
        self._ending = reason
        if not self.state & BLOCKED:
            self._linger()
        self.update()

    def _linger(self) -> None:
        if self.state & (LINGERING | GONE):
            return
        if self.state & EOF or self.has_said_all():
            self.close(self._ending or "client_eof")
            return
        try:
            self.client.shutdown(SHUT_WR)
        except OSError:
            self.close("client_reset")
            return
        self.state |= LINGERING
        self.until = self.loop.now + LINGER_S
        self.rearm()

    def drop_output(self) -> None:
        """Give the slab with output back; there is one."""
        assert self._out is not None
        self.loop.slabs.release(self._out)
        self._out = None

    def update(self) -> None:
        """Register for what the state calls for."""
        state = self.state
        if state & GONE or (self._mask == READ and not state & BLOCKED):
            return  # READ stays until something comes that may not be read: that costs nothing
        mask = (READ if state & LINGERING or self.may_read() else 0) | (
            WRITE if state & BLOCKED else 0
        )
        if self._mask != SILENCED:
            mask |= self._mask & READ
        # One that has hung up stays out of epoll, which would report that every turn.
        if mask != self._mask and (mask or self._mask >= 0):
            self._mask = self.loop.switch(self.client.fileno(), self._mask, mask)

    # --- for the session -----------------------------------------------------------------------

    def has_said_all(self) -> bool:
        """Whether the client has asked to be closed, and nothing has come after that."""
        raise NotImplementedError

    def may_read(self) -> bool:
        """Whether what the client sends could go somewhere."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Continue with what could not go on while the client was blocked."""
        raise NotImplementedError

    def rearm(self) -> None:
        """Be looked at when the next deadline comes."""
        raise NotImplementedError

    def close(self, reason: CloseReason) -> None:
        """Leave at once."""
        raise NotImplementedError
