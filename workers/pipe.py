"""A pipe: a persistent connection to a server, and the queue of who is owed its replies.

    submit ─▶ out ──flush, once a turn──▶ server ──▶ slab ─▶ deal ─▶ each client its replies
                └─▶ owed: [client, replies, note] in the order of the requests

    connecting ─▶ setting up ─▶ ready (shared, or one client's alone) ─▶ closed, once
                  (replays what its clients' state needs)

Rules, in order of importance:
- Whatever cannot be explained (a byte nobody is owed, a reply that is none) closes the pipe.
- A client that has left stays in `owed`; exactly its replies are thrown away.
- What was written is never sent again. A pipe that dies answers for every reply it owes.
- A client that does not take its replies holds up this pipe only, and not for ever.

A pipe reads into a slab of its own, taken when it opens: replies that wait for a slow client stay
there, and the parser, which has passed over them, need not be turned back.
"""

import contextlib
from collections import deque
from socket import SHUT_RDWR, SO_ERROR, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Any

from aegis.figures import CONNECT_BOUNDS_S
from aegis.framers.contract import ProtocolError, Setup
from workers.backend import Server
from workers.loop import READ, WRITE
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.pool import Pool
    from workers.shared import SharedSession
    from workers.slab import Slab

CONNECTING, SETTING_UP, READY, CLOSED = 0, 1, 2, 3
_SILENCED = -1  # in place of a mask: the fd is out of epoll


class Pipe:
    """One pipe of a pool; the reader and the writer of its socket."""

    __slots__ = (
        "_dirty", "_due", "_end", "_fresh", "_mask", "_out", "_owed", "_setup_left", "_slab",
        "_start", "_stuck", "_unsent", "begun", "busy_since", "dialled_at", "expires_at",
        "idle_since", "loop", "outstanding", "owner", "parser", "pool", "retiring", "setup",
        "slot", "sock", "state", "target",
    )  # fmt: skip

    def __init__(
        self, pool: "Pool", target: Server, sock: socket, setup: Setup, slab: "Slab"
    ) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        self.pool = pool
        self.loop = pool.loop
        self.target = target
        self.sock = sock
        self.setup = setup
        self.state = CONNECTING
        self.slot = UNARMED
        self.parser = pool.framer.replies()
        self.owner: SharedSession | None = None
        """Who has the pipe alone."""
        self.retiring = False
        """No more requests; closed once nothing is owed."""
        self.outstanding = 0
        """Replies owed, those of clients that have left included."""
        self.idle_since = self.busy_since = self.dialled_at = self.loop.now
        """Since when nothing was owed; since when the oldest reply is owed."""
        self.expires_at = float("inf")
        self._owed: deque[list[Any]] = deque()  # [SharedSession, replies, note]
        self._setup_left = setup.replies
        self._fresh = True  # never ready yet
        self._out = bytearray()
        self._slab = slab
        self._start = self._end = 0
        self._unsent = 0  # replies to requests of which no byte has gone yet
        self._due = 0  # replies that what is being dealt out may hold
        self.begun = False  # bytes of a reply that has not ended have come
        self._stuck: tuple[int, int] | None = None  # end and number of the replies being dealt
        self._dirty = False
        self._mask = WRITE
        self.loop.add(sock.fileno(), WRITE, self, self)

    def __repr__(self) -> str:
        state = ("connecting", "setting up", "ready", "closed")[self.state]
        alone = ", alone" if self.owner is not None else ""
        return f"<Pipe {self.target.address.text} {state}, {self.outstanding} owed{alone}>"

    def begin_again(self, reset: Setup) -> None:
        """Make the pipe as if it had just been set up, whatever its client has done with it."""
        self.state = SETTING_UP
        self._fresh = False
        self.dialled_at = self.loop.now
        self._setup_left = reset.replies + self.setup.replies
        self._out += reset.requests + self.setup.requests
        self._later()

    # --- requests ------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the server takes requests more slowly than they come."""
        return len(self._out) >= len(self._slab.buffer)

    def submit(
        self, client: "SharedSession", data: memoryview | bytes, replies: int, note: int
    ) -> None:
        """Queue whole requests, or a piece of one that streams (0 replies), for the turn's end."""
        self._out += data
        if replies:
            owed = self._owed
            if owed and owed[-1][0] is client and owed[-1][2] == note == 0:
                owed[-1][1] += replies
            else:
                owed.append([client, replies, note])
            if not self.outstanding:
                self.busy_since = self.loop.now
            self.outstanding += replies
            self._unsent += replies
        self._later()

    def _later(self) -> None:
        """Send at the end of this turn."""
        if not self._dirty:
            self._dirty = True
            self.loop.defer(self)

    def note(self, note: int) -> None:
        """Correct the note of the request submitted last, which streams."""
        self._owed[-1][2] = note

    def flush(self) -> None:
        """Send what the turn has gathered, in one call."""
        self._dirty = False
        if self.state != CLOSED and not self._mask & WRITE:
            self._send()

    def _send(self) -> None:
        out, was_full = self._out, self.full
        try:
            sent = self.sock.send(out)
        except BlockingIOError:
            sent = 0
        except OSError:  # the server is gone; what it said before is read first
            sent = len(out)
            self.pool.retire(self)  # closed when the reading ends
        del out[:sent]
        if sent:
            self._unsent = 0
        self._wait(self._mask | WRITE if out else self._mask & ~WRITE)
        if was_full and not self.full:
            clients = {entry[0] for entry in self._owed}
            if self.owner is not None:  # its request may have been answered before its end
                clients.add(self.owner)
            for client in clients:
                client.pipe_has_room()
            self.pool.has_room(self)

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - SO_ERROR says more
        """The connect has ended, or the server takes requests again."""
        if self.state == CONNECTING:
            code = self.sock.getsockopt(SOL_SOCKET, SO_ERROR)
            if code:
                self.pool.connect_failed(self, code)
                return
            self._connected()
            if self.state == CLOSED:  # a tunnel, perhaps: the fd is another's
                return
        if self._out:
            self._send()
        else:
            self._wait(self._mask & ~WRITE)

    def _connected(self) -> None:
        figures = self.target.figures
        figures.connects += 1
        figures.connect_seconds.observe(self.loop.now - self.dialled_at, CONNECT_BOUNDS_S)
        self._mask = WRITE
        self._wait(READ | WRITE)
        if self.setup.replies:
            self.state = SETTING_UP
            self._out += self.setup.requests
        else:
            self.state = READY
            self.pool.ready(self)

    # --- replies -------------------------------------------------------------------------------

    def on_readable(self, mask: int) -> None:
        """Deal out what has come."""
        if self.state == CONNECTING:
            if not mask & WRITE:
                self.on_writable(mask)
            return
        if self._stuck is not None:  # it does not read: the server has hung up, found when it does
            self._wait(_SILENCED)
            return
        try:
            count = self.sock.recv_into(self._slab.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.lose("server_lost")
            return
        if not count:
            self._server_ended()
            return
        self._start, self._end = 0, count
        # A reply cannot come before its request has gone: more than these is nobody's.
        self._due = self.outstanding - self._unsent
        if self.state == SETTING_UP:
            self._set_up()
        else:
            self._deal()

    def _set_up(self) -> None:
        """Pass over the replies to what was replayed; an error is the clients' answer."""
        while self._start < self._end and self._setup_left:
            try:
                stop, done = self.parser.feed(self._slab.buffer, self._start, self._end, 1, 0)
            except ProtocolError:
                self.lose("protocol_error")
                return
            if done and self.parser.failed:
                if self._fresh:
                    self.pool.setup_failed(self, bytes(self._slab.view[self._start : stop]))
                else:
                    self.lose("reset_failed")
                return
            self._setup_left -= done
            self._start = stop
        if self._start < self._end:
            self.lose("unexpected")
        elif not self._setup_left:
            self.state = READY
            self.pool.ready(self)

    def _deal(self) -> None:
        """Give each client its replies, until the bytes end or a client takes no more."""
        buffer, view = self._slab
        owed, feed = self._owed, self.parser.feed
        while self._start < self._end:
            if not self._due:
                self.lose("unexpected")
                return
            entry = owed[0]
            limit = min(entry[1], self._due)
            try:
                stop, done = feed(buffer, self._start, self._end, limit, entry[2])
            except ProtocolError:
                self.lose("protocol_error")
                return
            self.begun = True
            taken = entry[0].deliver(view[self._start : stop])
            self._start += taken
            if self._start < stop:
                self._stuck = (stop, done)
                self._wait(self._mask & ~READ)
                entry[0].hold_up(self)
                return
            if done and not self._strike_off(entry, done):
                return

    def resume(self) -> None:
        """Go on: the client that held the pipe up takes bytes again, or has left."""
        if self._stuck is None or self.state == CLOSED:
            return
        stop, done = self._stuck
        entry = self._owed[0]
        self._start += entry[0].deliver(self._slab.view[self._start : stop])
        if self._start < stop:
            entry[0].hold_up(self)
            return
        self._stuck = None
        self._wait((self._mask if self._mask != _SILENCED else 0) | READ)
        if not done or self._strike_off(entry, done):
            self._deal()

    def _strike_off(self, entry: list[Any], done: int) -> bool:
        """Take replies that have ended off the list; False when the pipe is no pipe any more."""
        if self.state == CLOSED:  # the client had it alone, and has gone while it was served
            return False
        client: SharedSession = entry[0]
        parser = self.parser
        entry[1] -= done
        if not entry[1]:
            self._owed.popleft()
        self.outstanding -= done
        self._due -= done
        self.busy_since = self.loop.now
        self.begun = (
            bool(entry[1]) and parser.begun
        )  # what was fed may hold the next one's beginning
        if parser.tunnel:
            self.pool.give_away(self)
            client.tunnel(self)
            return False
        if self._start < self._end and not self._due:
            self.lose("unexpected")  # before anybody is given this pipe
            client.replied(self, done)
            return False
        if parser.last:
            self.pool.retire(self)
        client.replied(self, done)
        if self.state == READY and not self.outstanding:
            self.idle_since = self.loop.now
            self.pool.idle(self)
        elif self.state == READY:
            self.pool.has_room(self)
        return self.state == READY

    def _server_ended(self) -> None:
        """The server has closed: normal when nothing is owed, or where that ends a reply."""
        if self._owed and self.begun and self.parser.end():
            self.pool.retire(self)
            self._strike_off(self._owed[0], 1)
        if self.state != CLOSED:
            self.lose("server_lost")

    # --- end -----------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """Close, and answer for every reply that is owed."""
        if self.state == CLOSED:
            return
        begun, owed, owner = self.begun, list(self._owed), self.owner
        self._owed.clear()
        self.owner = None
        self.outstanding = 0
        self.pool.lost(self, why)
        for client, replies, _ in owed:
            client.pipe_lost(self, replies, begun=begun, why=why)
            begun = False
        if owner is not None and all(entry[0] is not owner for entry in owed):
            owner.pipe_lost(self, 0, begun=False, why=why)

    def take_unread(self) -> memoryview:
        """Return what the server sent behind the replies; good until `release`."""
        return self._slab.view[self._start : self._end]

    def release(self) -> None:
        """Give the socket up without closing it: somebody relays on it now."""
        self.state = CLOSED
        self.pool.keep_slab(self._slab)

    def close(self) -> None:
        """Close the socket; for the pool, which has forgotten the pipe."""
        if self.state != CLOSED:
            self.release()
            # The fd is closed at the end of the turn; the server is told now, before another pipe
            # is dialled in this one's place: it counts connections.
            with contextlib.suppress(OSError):
                self.sock.shutdown(SHUT_RDWR)
            self.loop.close(self.sock)

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """Close after a handler raised."""
        self.lose("error")

    def _wait(self, mask: int) -> None:
        """Register for other events, where that is a change."""
        if mask == self._mask:
            return
        old, self._mask = self._mask, mask
        fd = self.sock.fileno()
        if mask == _SILENCED:
            self.loop.silence(fd)
        elif old == _SILENCED:
            self.loop.wake(fd, mask)
        else:
            self.loop.change(fd, mask)
