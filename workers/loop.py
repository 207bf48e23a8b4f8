"""The blocking loop of a worker: epoll, two tables indexed by fd, one timer wheel.

    poll ─▶ each event: writers[fd].on_writable, readers[fd].on_readable
         ─▶ timers that are due ─▶ what was deferred to the turn's end ─▶ closes

Invariants:
- A fd that was closed is really closed at the end of the turn, and until then its table entries
  are `NOBODY`: the kernel hands out the same number again at once, and an event of the same turn
  must not reach whoever has it next.
- The clock is read when poll returns (`now`, good for the whole turn) and when the turn is done.
- A handler that raises loses its own session, never the worker.

epoll is used without `selectors`: EpollSelector.select() adds a dict look-up, a key and a tuple per
event (CPython 3.11, Lib/selectors.py).
"""

import contextlib
import logging
import select
import socket
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from aegis.figures import TURN_BOUNDS_S, Figures
from aegis.limits import EVENTS_PER_TURN, GATHER_S, HALVES_BYTES
from workers.halves import Halves
from workers.kernel_pipes import KernelPipes
from workers.slab import Slabs
from workers.timers import Wheel

if TYPE_CHECKING:
    from workers.flow import Flow

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
ERROR = select.EPOLLERR
HANGUP = select.EPOLLHUP
SILENCED = -1
"""In place of a mask: the fd is out of epoll, which would report a hang-up on every turn."""

log = logging.getLogger(__name__)


class Reader(Protocol):
    """Called when its fd has bytes, an end or an error; also, with HANGUP or ERROR, when paused."""

    def on_readable(self, mask: int) -> None:
        """Handle the event; `mask` is epoll's."""
        ...

    def fail(self, error: Exception) -> None:
        """Clean up after a handler that raised."""
        ...


class Writer(Protocol):
    """Called when its fd takes bytes again."""

    def on_writable(self, mask: int) -> None:
        """Handle the event; `mask` is epoll's."""
        ...

    def fail(self, error: Exception) -> None:
        """Clean up after a handler that raised."""
        ...


class Flushable(Protocol):
    """Called once at the end of a turn, when it was deferred to."""

    def flush(self) -> None:
        """Do what the turn has gathered."""
        ...

    def fail(self, error: Exception) -> None:
        """Clean up after a flush that raised."""
        ...


class _Nobody:
    """Takes the events of a fd that was closed this turn."""

    def on_readable(self, mask: int) -> None:
        pass

    def on_writable(self, mask: int) -> None:
        pass

    def fail(self, error: Exception) -> None:
        pass


NOBODY = _Nobody()


class Loop:
    """One worker's loop; everything that is called from it runs in its thread."""

    __slots__ = (
        "_after", "_doomed", "_epoll", "_figures", "_gather_until", "_gathered", "_later",
        "_readers", "_register", "_running", "_writers", "halves", "kernel_pipes", "now", "slabs",
        "wheel",
    )  # fmt: skip

    def __init__(self, slabs: Slabs, kernel_pipes: KernelPipes, figures: Figures) -> None:
        self._epoll = select.epoll()
        self._register = self._epoll.register
        self._readers: list[Reader] = []
        self._writers: list[Writer] = []
        self._doomed: list[socket.socket] = []
        self._later: list[Flushable] = []
        self._after: list[Flushable] = []
        self._gathered: list[Flushable] = []
        self._gather_until = 0.0  # they leave by then
        self._figures = figures
        self._running = True
        self.slabs = slabs
        self.kernel_pipes = kernel_pipes
        self.halves = Halves(max(HALVES_BYTES, len(slabs.hot.buffer) * (len(slabs.spare) + 1)))
        self.now = monotonic()
        """Instant of this turn."""
        self.wheel = Wheel(self.now)

    def add(self, fd: int, mask: int, reader: Reader, writer: Writer = NOBODY) -> None:
        """Register a fd; at least HANGUP and ERROR are reported, to the reader."""
        try:
            self._readers[fd] = reader
            self._writers[fd] = writer
        except IndexError:
            missing = fd + 1 - len(self._readers)
            self._readers.extend([NOBODY] * missing)
            self._writers.extend([NOBODY] * missing)
            self._readers[fd], self._writers[fd] = reader, writer
        self._register(fd, mask)

    def switch(self, fd: int, old: int, new: int) -> int:
        """Wait for other events of a registered fd, SILENCED for none at all; returns `new`."""
        if new == SILENCED:
            self._epoll.unregister(fd)
        elif old == SILENCED:
            self._epoll.register(fd, new)
        else:
            self._epoll.modify(fd, new)
        return new

    def hand_over(self, fd: int, mask: int, reader: Reader, writer: Writer) -> None:
        """Give a registered fd to other handlers."""
        self._readers[fd] = reader
        self._writers[fd] = writer
        self._epoll.modify(fd, mask)

    def succeed(self, fd: int, before: Reader, reader: Reader) -> None:
        """Let another read what `before` has read, unless the fd is nobody's any more."""
        if self._readers[fd] is before:
            self._readers[fd] = reader

    def is_read_by(self, fd: int, reader: Reader) -> bool:
        """Whether a fd is still this reader's: not closed, and not another's since."""
        return self._readers[fd] is reader

    def exchange(self, before: "Flow", after: "Flow", source: int, sink: int) -> bool:
        """Let another read the one fd and write the other, if `before` does; returns whether."""
        if self._readers[source] is not before:
            return False
        self._readers[source] = self._writers[sink] = after
        return True

    def remove(self, fd: int) -> None:
        """Deregister a fd that others hold as well, so that closing it would not."""
        self._readers[fd] = self._writers[fd] = NOBODY
        with contextlib.suppress(FileNotFoundError):  # silenced
            self._epoll.unregister(fd)

    def close(self, sock: socket.socket) -> None:
        """Close a socket at the end of the turn; closing deregisters it, nobody else holds it."""
        fd = sock.fileno()
        if fd < len(self._readers):
            self._readers[fd] = self._writers[fd] = NOBODY
        self._doomed.append(sock)

    def defer(self, item: Flushable) -> None:
        """Have `item.flush()` called once all events of this turn have been handled."""
        self._later.append(item)

    def gather(self, item: Flushable) -> None:
        """Have `item.flush()` called once no more events wait, or after GATHER_S.

        A busy loop so sends more at a time, one that is not waits for nobody: the next poll is
        without a timeout.
        """
        if not self._gathered:
            self._gather_until = self.now + GATHER_S
        self._gathered.append(item)

    def after_closing(self, item: Flushable) -> None:
        """Have `item.flush()` called once what was closed in this turn really is closed."""
        self._after.append(item)

    def stop(self) -> None:
        """Leave `run` at the end of this turn."""
        self._running = False

    def run(self) -> None:
        """Turn until `stop`."""
        poll, readers, writers = self._epoll.poll, self._readers, self._writers
        figures, wheel, doomed, clock = self._figures, self.wheel, self._doomed, monotonic
        later, after, gathered = self._later, self._after, self._gathered
        histogram, quick = figures.turn_seconds, TURN_BOUNDS_S[0]
        turns = histogram.buckets
        ended = clock()
        while self._running:
            wait = 0.0 if gathered else wheel.due - ended
            events = poll(max(0.0, wait), EVENTS_PER_TURN)
            self.now = started = clock()
            for fd, mask in events:
                try:
                    if mask == READ:
                        readers[fd].on_readable(mask)
                        continue
                    if mask & WRITE:
                        writers[fd].on_writable(mask)
                    if mask != WRITE:
                        readers[fd].on_readable(mask)
                except Exception as error:
                    log.exception("handler of fd %d failed", fd)
                    readers[fd].fail(error)
                    writers[fd].fail(error)
            if started >= wheel.due:
                # Timers are as late as the turn before was long, or the core was somebody else's.
                figures.longest_turn_s = max(figures.longest_turn_s, started - wheel.due)
                wheel.advance(started)
            if gathered and (not events or clock() >= self._gather_until):
                later += gathered
                gathered.clear()
            if later or doomed or after:
                self._end_turn()
            ended = clock()
            spent = ended - started
            if spent <= quick:  # nearly always: spares the bisection
                turns[0] += 1
                histogram.sum_s += spent
            else:
                histogram.observe(spent, TURN_BOUNDS_S)
            figures.longest_turn_s = max(figures.longest_turn_s, spent)
        for sock in doomed:
            sock.close()

    def _end_turn(self) -> None:
        """Flush what was deferred, close what is to be closed, until nothing is left of either.

        First deferred, first flushed: requests of two clients leave in the order they came in.
        """
        later, doomed, after = self._later, self._doomed, self._after
        while later or doomed or after:  # what is flushed may defer and close
            for item in later:  # one may defer another, which comes behind
                try:
                    item.flush()
                except Exception as error:
                    log.exception("a flush failed")
                    item.fail(error)
            later.clear()
            for sock in doomed:
                sock.close()
            doomed.clear()
            later += after
            after.clear()
