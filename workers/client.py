"""The client's side of a session that shares pipes: output it does not take yet, and its close.

    deliver ─▶ send ─▶ short: the rest waits in a slab, the client is blocked ─▶ writable: flush
                               no slab: the rest is not taken, and the pipe it came from waits

    finish ─▶ output gone ─▶ shutdown, then read and discard until the client closes ─▶ closed

A close over unread bytes makes the kernel reset the connection, which destroys the answer that went
before it, so a close of ours lingers (RFC 9112, 9.6; it holds for every protocol).
"""

from socket import SHUT_WR, socket
from typing import TYPE_CHECKING

from aegis.lifecycle import CloseReason
from aegis.limits import LINGER_S, SLOW_CLIENT_S
from workers.loop import READ, SILENCED, WRITE, Loop
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.listener import Listener
    from workers.pipe import Pipe
    from workers.session_log import Note
    from workers.slab import Slab


class ClientEnd:
    """A client's socket; SharedSession adds what is done with what it says."""

    __slots__ = (
        "_blocked", "_ending", "_eof", "_gone", "_held_up", "_lingering", "_mask", "_out",
        "_out_end", "_out_start", "_send", "accepted_at", "active_at", "bytes", "client",
        "listener", "loop", "note", "slot", "until",
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
        self.slot = UNARMED
        self.active_at = self.accepted_at = self.loop.now
        self._send = client.send
        self._out: Slab | None = None  # output that the client does not take yet
        self._out_start = self._out_end = 0
        self._blocked = False
        self.until = float("inf")  # deadline of whatever the state waits for
        self._eof = self._gone = self._lingering = False
        self._ending: CloseReason | None = None  # to be closed for, once the output has gone
        self._mask = READ
        self._held_up: Pipe | None = None  # it waits for us to take our replies

    @property
    def gone(self) -> bool:
        """Whether the client has left, so that nobody wants what it is owed."""
        return self._gone

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """End after a handler raised."""
        self._ending = None
        self.close("error")

    def deliver(self, data: memoryview) -> int:
        """Give the client bytes it is owed; returns how many it took, or are kept for it."""
        if self._gone:
            return len(data)  # exactly these are thrown away
        if self._blocked:
            return 0
        try:
            sent = self._send(data)
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
        self._blocked = True
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
                self._out_start += self.client.send(self._out.view[self._out_start : self._out_end])
            except BlockingIOError:
                return
            except OSError:
                self.close("client_reset")
                return
            self.active_at = self.loop.now
            if self._out_start < self._out_end:
                return
            self.drop_output()
        self._blocked = False
        self.unblocked()
        self.go_on()
        if not self._blocked and self._ending is not None:
            self._linger()
        self.update()

    def hold_up(self, pipe: "Pipe") -> None:
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
        if self._gone or self._ending is not None:
            return
        self._ending = reason
        if not self._blocked:
            self._linger()
        self.update()

    def _linger(self) -> None:
        if self._lingering or self._gone:
            return
        if self._eof:
            self.close(self._ending or "client_eof")
            return
        try:
            self.client.shutdown(SHUT_WR)
        except OSError:
            self.close("client_reset")
            return
        self._lingering = True
        self.until = self.loop.now + LINGER_S
        self.rearm()

    def drop_output(self) -> None:
        """Give the slab with output back."""
        if self._out is not None:
            self.loop.slabs.release(self._out)
            self._out = None

    def update(self) -> None:
        """Register for what the state calls for."""
        if self._gone:
            return
        mask = (READ if self._lingering or self.may_read() else 0) | (WRITE if self._blocked else 0)
        if mask != self._mask and (mask or self._mask != SILENCED):
            self._register(mask)

    def hung_up(self) -> None:
        """Take the fd out of epoll: it reports a hang-up every turn, and is not to be read now."""
        self._register(SILENCED)

    def _register(self, mask: int) -> None:
        old, self._mask = self._mask, mask
        fd = self.client.fileno()
        if mask == SILENCED:
            self.loop.silence(fd)
        elif old == SILENCED:
            self.loop.wake(fd, mask)
        else:
            self.loop.change(fd, mask)

    # --- for the session -----------------------------------------------------------------------

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
