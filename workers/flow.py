"""One direction of a session: source ─▶ slab ─▶ sink.

              ┌────────────── sink took all ──────────────┐
              ▼                                           │
    OPEN ── readable: recv into the hot slab, send ───────┤
              │                                           │
              ├─ sink took less ─▶ BLOCKED: slab parked ──┘ writable: send the rest
              │                    (or bytes left in the kernel)
              └─ end of source ──▶ ENDED: shutdown(SHUT_WR) on the sink

Invariants: a flow holds a slab only while BLOCKED; it reads only while OPEN, so at the end of its
source nothing is pending and the half-close may go out at once. An idle flow owns no buffer.

With no spare slab a flow peeks, sends, and then consumes just what the sink took: recv(2) with
MSG_TRUNC throws bytes of a TCP stream away without copying them (tcp(7)); on a unix stream the flag
does nothing and the bytes land in the hot slab, where nobody looks (unix(7)). Either way the rest
stays in the kernel's buffer, whose limit holds the source back.
"""

from socket import MSG_PEEK, MSG_TRUNC, socket
from typing import TYPE_CHECKING

from aegis.limits import ROUNDS_PER_EVENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.session import Session
    from workers.slab import Slab

OPEN, BLOCKED, ENDED = 0, 1, 2
HELD = 3
"""It may not read at the moment, although its sink would take more (workers/rates.py)."""


class Flow:
    """A direction; the reader of its source's fd and the writer of its sink's."""

    __slots__ = (
        "_bytes", "_end", "_recv_into", "_send", "_session", "_slab", "_start", "sink", "state",
        "way",
    )  # fmt: skip

    def __init__(self, session: "Session", source: socket, sink: socket, way: int) -> None:
        """`way` is 0 from client to server, 1 back: the index into the listener's byte counts."""
        self.state = OPEN
        self.sink = sink
        self.way = way
        self._session = session
        self._bytes = session.bytes
        self._recv_into: Callable[..., int] = source.recv_into
        self._send = sink.send
        self._slab: Slab | None = None
        self._start = self._end = 0

    def read_with(self, receive: "Callable[..., int]") -> None:
        """Read with this instead of the source's recv_into, as which it may be called."""
        self._recv_into = receive

    def on_readable(self, mask: int) -> None:
        """Move what has come, a capped number of slabs at a time."""
        session = self._session
        if self.state != OPEN:
            session.paused_event(self.way, mask)
            return
        loop = session.loop
        slabs = loop.slabs
        rounds = ROUNDS_PER_EVENT
        while True:
            if not slabs.spare:
                self._peek()
                return
            buffer, view = slabs.hot
            try:
                count = self._recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                session.source_broke(self.way, error)
                return
            if not count:
                session.source_ended(self)
                return
            session.active_at = loop.now
            self._bytes[self.way] += count
            try:
                sent = self._send(view[:count])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                session.sink_broke(self, error)
                return
            if sent < count:
                self._slab = slabs.park()
                self._start, self._end = sent, count
                self.state = BLOCKED
                session.wait()
                return
            rounds -= 1
            if count < len(buffer) or not rounds:
                return

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - the mask says nothing more
        """Write what is parked; once it is gone, or was never ours, read on."""
        if self.state != BLOCKED:
            return  # the turn in which it was unblocked or ended
        session = self._session
        if self._slab is not None:
            try:
                self._start += self._send(self._slab.view[self._start : self._end])
            except BlockingIOError:
                return
            except OSError as error:
                session.sink_broke(self, error)
                return
            session.active_at = session.loop.now
            if self._start < self._end:
                return
            self.drop()
        self.state = OPEN
        session.wait()

    def preload(self, data: memoryview) -> None:
        """Have bytes go out before what is read: they are parked as if the sink had been full."""
        if data:
            self._slab = self._session.loop.slabs.borrow()
            self._slab.view[: len(data)] = data
            self._start, self._end = 0, len(data)
            self.state = BLOCKED

    def fail(self, error: Exception) -> None:
        """End the session after a handler raised."""
        self._session.fail(error)

    def end(self) -> None:
        """Stop for good; what was parked is lost."""
        self.state = ENDED
        self.drop()

    def drop(self) -> None:
        """Give a parked slab back."""
        if self._slab is not None:
            self._session.loop.slabs.release(self._slab)
            self._slab = None

    def _peek(self) -> None:
        """Move what the sink takes without ever owning it: there is no slab to park the rest in."""
        session = self._session
        hot = session.loop.slabs.hot
        session.worker_figures.slab_shortages += 1
        try:
            count = self._recv_into(hot.buffer, 0, MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            session.source_broke(self.way, error)
            return
        if not count:
            session.source_ended(self)
            return
        try:
            sent = self._send(hot.view[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            session.sink_broke(self, error)
            return
        if sent:
            self._recv_into(hot.buffer, sent, MSG_TRUNC)  # there they are: no wait, no error
            self._bytes[self.way] += sent
            session.active_at = session.loop.now
        if sent < count:
            self.state = BLOCKED
            session.wait()
