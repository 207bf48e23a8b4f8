"""What a client has sent and cannot go on yet, kept at the price of its own length.

    recv ─▶ process ─▶ used: nothing is kept
               └─ the rest: half a request, or whole ones that wait ─▶ held ─▶ go_on

Invariants:
- What was scanned is never scanned again: the parser's state has moved on. What was scanned and
  cannot be sent is `pending`: indexes into what is held, which `_shift` keeps right.
- Held input is a bytearray of its own length, at most a slab: half a request costs what it has.
  What waits for a server or a pipe is not read on; what waits for the client itself, halves of
  requests, is bounded over all clients (workers/halves.py).
"""

from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import Special
from workers.client import ENDING, GONE, HELD, LINGERING, STREAMING, ClientEnd
from workers.loop import ERROR, HANGUP, READ, SILENCED

if TYPE_CHECKING:
    from workers.listener import Listener


class Intake(ClientEnd):
    """The input side of a client; SharedSession says what `process` does with it."""

    __slots__ = ("_going_on", "_recv_into", "held", "pending")

    def __init__(self, listener: "Listener", client: socket) -> None:
        """Take over an accepted, non-blocking client."""
        super().__init__(listener, client)
        self._recv_into = client.recv_into
        self.held: bytearray | None = None
        """Not None: the state is HELD."""
        self.pending: tuple[int, int, Special | None] | None = None
        """Of what is held: index behind a run that was scanned, the run's replies, what follows."""
        self._going_on = False

    def read_on(self, mask: int) -> None:
        """Take in what a client sends whose state is not the ordinary, or what waits for it."""
        if not self._mask & READ:
            if mask & ERROR:
                self.close("client_reset")
            elif mask & HANGUP and self._mask != SILENCED:
                # Not to be read now, and epoll would report it every turn. (Neither bit: an event
                # from before this turn's last update.)
                self._mask = self.loop.switch(self.client.fileno(), self._mask, SILENCED)
            return
        if not (self.state & LINGERING or self.may_read()):
            self._mask = self.loop.switch(self.client.fileno(), self._mask, self._mask & ~READ)
            return
        buffer, view = self.loop.slabs.hot
        held = self.held
        room = 0 if held is None else max(1, len(buffer) - len(held))  # never more than a slab
        try:
            count = self._recv_into(buffer, room)
        except BlockingIOError:
            return
        except OSError:
            self.close("client_reset")
            return
        if count and held is not None and not self.state & LINGERING:
            self.active_at = self.loop.now
            self.bytes[0] += count
            held += view[:count]
            self.go_on()
        else:
            self.take_in(buffer, view, count)

    def take_in(self, buffer: bytearray, view: memoryview, count: int) -> None:
        """Send on what is whole of what was read, keep the rest; nothing is held yet."""
        if not count or self.state & LINGERING:
            if not count:
                self.client_ended()
            return
        self.active_at = self.loop.now
        self.bytes[0] += count
        used = self.process(buffer, view, 0, count)
        if used < count:
            self._hold(view, used, count)
            self.update()
        elif self.state & STREAMING:
            self.update()  # its pipe may be full; else nothing waits, so what is read stays so

    def _hold(self, view: memoryview, start: int, end: int) -> None:
        if self.state & (GONE | ENDING):
            return
        self.held = bytearray(view[start:end])
        self.state |= HELD
        self._shift(start)
        self._note_half()

    def _shift(self, by: int) -> None:
        """Count what is pending from where the held input now starts."""
        if self.pending is not None:
            stop, replies, special = self.pending
            if special is not None:
                special = special._replace(end=special.end - by)
            self.pending = (stop - by, replies, special)

    def go_on(self) -> None:
        """Continue with the input that was held; nothing happens if that is being done already."""
        held = self.held
        if held is None or self._going_on or self.state & GONE:
            self.update()
            return
        self._going_on = True
        try:
            with memoryview(held) as view:
                used = self.process(held, view, 0, len(held))
        finally:
            self._going_on = False
        if self.state & GONE:
            return
        if used == len(held):
            self._drop_held()
        elif used:
            del held[:used]
            self._shift(used)
        self._note_half()
        self.update()
        self.end_if_done()

    def _note_half(self) -> None:
        """Have what is held counted if it is the client that everything waits for."""
        if self.held is not None and self.may_read():
            self.loop.halves.keep(self, len(self.held))
        else:
            self.loop.halves.forget(self)

    def _drop_held(self) -> None:
        self.held = None
        self.state &= ~HELD

    def forget_input(self) -> None:
        """Drop what is held."""
        self._drop_held()
        self.loop.halves.forget(self)

    # --- for the session -----------------------------------------------------------------------

    def process(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send on what can be of buffer[start:end]; returns up to where."""
        raise NotImplementedError

    def too_slow(self) -> None:
        """End a client whose half request must make room."""
        raise NotImplementedError

    def end_if_done(self) -> None:
        """End a client that has closed its half, once it is owed nothing."""
        raise NotImplementedError

    def client_ended(self) -> None:
        """The client has closed its half."""
        raise NotImplementedError
