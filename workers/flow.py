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

A flow that fills its slab becomes a BulkFlow (workers/bulk.py).
"""

from socket import MSG_PEEK, MSG_TRUNC, socket
from typing import TYPE_CHECKING

from aegis.limits import ROUNDS_PER_EVENT

if TYPE_CHECKING:
    from workers.session import Session
    from workers.slab import Slab

OPEN, BLOCKED, ENDED = 0, 1, 2
HELD = 3
"""It may not read at the moment, although its sink would take more (workers/rates.py)."""


class Flow:
    """A direction; the reader of its source's fd and the writer of its sink's."""

    __slots__ = ("_end", "_slab", "_start", "session", "sink", "source", "state", "way")

    def __init__(self, session: "Session", source: socket, sink: socket, way: int) -> None:
        """`way` is 0 from client to server, 1 back: the index into the listener's byte counts."""
        self.state = OPEN
        self.session = session
        self.source = source
        self.sink = sink
        self.way = way
        self._slab: Slab | None = None  # what is parked: from _start to _end, unset without one

    def on_readable(self, mask: int) -> None:
        """Move what has come, a capped number of slabs at a time."""
        session = self.session
        if self.state:
            session.paused_event(self.way, mask)
            return
        loop, rounds = session.loop, ROUNDS_PER_EVENT
        slabs = loop.slabs
        while slabs.spare:
            buffer, view = slabs.hot
            try:
                count = self.source.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                session.source_broke(self.way, error)
                return
            if not count:
                session.source_ended(self)
                return
            session.active_at = loop.now
            session.bytes[self.way] += count
            try:
                sent = self.sink.send(view[:count])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                session.sink_broke(self, error)
                return
            if sent < count:
                self.park(slabs.park(), sent, count)
                session.wait()
                return
            if count < len(buffer):
                return
            rounds -= 1
            if not rounds or (loop.kernel_pipes.spare and session.promote(self)):
                return
        self._peek()

    def park(self, slab: "Slab", start: int, end: int) -> None:
        """Keep what the sink has not taken, in a slab that is ours from now on."""
        self._slab = slab
        self._start, self._end = start, end
        self.state = BLOCKED

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - the mask says nothing more
        """Write what is parked; once it is gone, or was never ours, read on."""
        if self.state != BLOCKED:
            return  # the turn in which it was unblocked or ended
        session = self.session
        try:
            left = self._write()
        except BlockingIOError:
            return
        except OSError as error:
            session.sink_broke(self, error)
            return
        if not left:
            self.state = OPEN
            session.wait()

    def _write(self) -> int:
        """Write what is parked, and let go of it once it is gone; returns how much is left."""
        slab, session = self._slab, self.session
        if slab is None:
            return 0
        self._start += self.sink.send(slab.view[self._start : self._end])
        session.active_at = session.loop.now
        left = self._end - self._start
        if not left:
            self.drop()
            if self._end == len(slab.buffer) and session.loop.kernel_pipes.spare:
                session.promote(self)
        return left

    def preload(self, data: memoryview) -> None:
        """Have bytes go out before what is read: they are parked as if the sink had been full."""
        if data:
            slab = self.session.loop.slabs.borrow()
            slab.view[: len(data)] = data
            self.park(slab, 0, len(data))

    def fail(self, error: Exception) -> None:
        """End the session after a handler raised."""
        self.session.fail(error)

    def end(self) -> None:
        """Stop for good; what was parked is lost."""
        self.state = ENDED
        self.drop()

    def drop(self) -> None:
        """Give a parked slab back."""
        if self._slab is not None:
            self.session.loop.slabs.release(self._slab)
            self._slab = None

    def _peek(self) -> None:
        """Move what the sink takes without ever owning it: there is no slab to park the rest in."""
        session = self.session
        hot = session.loop.slabs.hot
        session.listener.worker_figures.slab_shortages += 1
        try:
            count = self.source.recv_into(hot.buffer, 0, MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            session.source_broke(self.way, error)
            return
        if not count:
            session.source_ended(self)
            return
        try:
            sent = self.sink.send(hot.view[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            session.sink_broke(self, error)
            return
        if sent:
            self.source.recv_into(hot.buffer, sent, MSG_TRUNC)  # there they are: no wait, no error
            session.bytes[self.way] += sent
            session.active_at = session.loop.now
        if sent < count:
            self.state = BLOCKED
            session.wait()
