"""Clients whose requests may only be so large: a request is refused before it is held, or sent on.

    input ─▶ window of at most max_frame_bytes ─▶ as ever ─ whole requests: the next window
                                                     └─ half a one that fills it: too large
    known at once (`need`), or found out while it streams

A request that is whole within the window is not too large, and one that is not whole in a full
window is, so the limit is exact, whatever comes in one read. Only listeners with a limit have such
sessions.
"""

from typing import TYPE_CHECKING

from aegis.framers.contract import Special, Verdict
from workers.client import BLOCKED, ENDING, GONE, STREAMING, SWITCHING, WAITING
from workers.shared import SharedSession

if TYPE_CHECKING:
    from socket import socket

    from workers.listener import Listener
    from workers.pool import Pool

_HAS_TO_WAIT = WAITING | GONE | ENDING | SWITCHING | BLOCKED | STREAMING


class LimitedSession(SharedSession):
    """One such client."""

    __slots__ = ("_most", "_streamed", "_too_large")

    def __init__(self, listener: "Listener", client: "socket", pool: "Pool") -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        super().__init__(listener, client, pool)
        self._most = listener.config.max_frame_bytes
        self._streamed = 0
        self._too_large = False

    def on_readable(self, mask: int) -> None:
        """Take in what the client sends; nothing goes the quick way, which looks at no size."""
        self.read_on(mask)

    def process(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send on what can be, window by window; returns up to where."""
        while start < end:
            stop = end if self.state & STREAMING else min(end, start + self._most)
            behind = super().process(buffer, view, start, stop)
            if self._too_large or self._fills(behind, stop):
                self._too_large = False
                self.pending = (behind, 0, self._refused(end))
                return super().process(buffer, view, behind, end)
            if behind == start:
                break
            start = behind
        return start

    def _fills(self, start: int, stop: int) -> bool:
        """Whether half a request is at `start` that does not fit into a window."""
        waits = self.pending is not None or self.state & _HAS_TO_WAIT
        if start == stop or waits or self.outstanding >= self._limit:
            return False
        return stop - start >= self._most or self.requests.need > self._most

    def _refused(self, end: int) -> Special:
        """Make of a request that is too large one that is refused in its turn."""
        tells = self.listener.config.refusal == "error"
        reply = self.pool.framer.error("frame_too_large") if tells else b""
        return Special(Verdict.REFUSE, end, "frame_too_large", reply)

    def _stream_begins(self, start: int, end: int) -> bool:
        if self.requests.need > self._most:
            self._too_large = True
            return False
        self._streamed = 0
        return super()._stream_begins(start, end)

    def _stream(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        left = self._most - self._streamed
        if not left:
            self._break_off(self._refused(end))
            return end
        stop = super()._stream(buffer, view, start, min(end, start + left))
        self._streamed += stop - start
        return stop
