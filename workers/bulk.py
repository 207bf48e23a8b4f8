"""Flows that carry a lot: source ─▶ kernel pipe ─▶ sink. Pages change hands, no byte is copied.

    Flow ── a slab was filled ─────────────────────────────────▶ BulkFlow
      ▲                                                             │
      └── less than BULK_BYTES came at once, or no pipe to spare ◀──┘

splice(2) says of sockets what recv(2) and send(2) do: 0 at the end, EAGAIN, ECONNRESET; what is
left in a pipe is known by counting. For small pieces it does not pay: they go through slabs.
"""

import os
from typing import TYPE_CHECKING

from aegis.limits import BULK_BYTES, KERNEL_PIPE_BYTES
from workers.flow import BLOCKED, Flow
from workers.kernel_pipes import KernelPipe

if TYPE_CHECKING:
    from workers.session import Session

_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class BulkFlow(Flow):
    """A direction as long as it carries a lot. BLOCKED, it holds a kernel pipe."""

    __slots__ = ("_held", "_left")

    def __init__(self, session: "Session", plain: Flow) -> None:
        """Go on for a flow that is OPEN, between two sockets."""
        super().__init__(session, plain.source, plain.sink, plain.way)
        self._held: KernelPipe | None = None
        self._left = 0  # bytes in it

    def on_readable(self, mask: int) -> None:
        """Move what has come, at most as much as a kernel pipe holds."""
        session = self.session
        if self.state:
            session.paused_event(self.way, mask)
            return
        pipes = session.loop.kernel_pipes
        if not pipes.spare:
            self._go_back()
            return
        outlet, inlet = pipes.hot
        try:
            count = os.splice(self.source.fileno(), inlet, KERNEL_PIPE_BYTES, flags=_SPLICE)
        except BlockingIOError:
            return
        except OSError as error:
            session.source_broke(self.way, error)
            return
        if not count:
            session.source_ended(self)
            return
        session.active_at = session.loop.now
        session.bytes[self.way] += count
        session.listener.worker_figures.spliced_bytes += count
        self._left = count
        try:
            self._left -= os.splice(outlet, self.sink.fileno(), count, flags=_SPLICE)
        except BlockingIOError:
            pass
        except OSError as error:
            self._held = pipes.park()
            session.sink_broke(self, error)
            return
        if self._left:
            self._held = pipes.park()
            self.state = BLOCKED
            session.wait()
        elif count < BULK_BYTES:
            self._go_back()

    def _write(self) -> int:
        assert self._held is not None
        outlet, left = self._held.outlet, self._left
        self._left -= os.splice(outlet, self.sink.fileno(), left, flags=_SPLICE)
        self.session.active_at = self.session.loop.now
        if not self._left:
            self.drop()
        return self._left

    def drop(self) -> None:
        """Give a parked pipe back, empty: what is left in it is read into the hot slab."""
        if self._held is None:
            return
        loop = self.session.loop
        while self._left:
            self._left -= os.readv(self._held.outlet, [loop.slabs.hot.buffer])
        loop.kernel_pipes.release(self._held)
        self._held = None

    def _go_back(self) -> None:
        session = self.session
        session.exchange(self, Flow(session, self.source, self.sink, self.way))
