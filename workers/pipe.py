"""A pipe: a persistent connection to a server, and the queue of who is owed its replies.

    submit ─▶ out ──flush, once a turn──▶ server ──▶ slab ─▶ deal ─▶ each client its replies
                └─▶ owed: [client, replies, note, …] in the order of the requests

    connecting ─▶ setting up ─▶ ready (shared, or one client's alone) ─▶ closed, once
                  (replays what its clients' state needs)

Rules, in order of importance:
- Whatever cannot be explained (a byte nobody is owed, a reply that is none) closes the pipe.
- A client that has left stays in `owed`; exactly its replies are thrown away. So are those to
  requests that are to be discarded, while the client goes on.
- What was written is never sent again. A pipe that dies answers for every reply it owes.
- A client that does not take its replies holds up this pipe only, and not for ever.

A pipe reads into the loop's hot slab and deals it out at once. Replies that wait for a slow client
are kept at their own length: the parser has passed over the first, and need not be turned back.
"""

import logging
from bisect import bisect_left
from collections import deque
from socket import socket
from typing import TYPE_CHECKING, Any

from aegis.figures import REPLY_BOUNDS_S
from aegis.framers.contract import ProtocolError, Setup
from aegis.limits import MAX_SETUP_REPLY_BYTES
from workers.backend import Server
from workers.loop import READ, SILENCED, WRITE
from workers.server import CLOSED, CONNECTING, READY, SETTING_UP, ServerEnd
from workers.slab import Slab

if TYPE_CHECKING:
    from workers.pool import Pool
    from workers.pool_client import PoolClient

log = logging.getLogger(__name__)


class Pipe(ServerEnd):
    """One pipe of a pool; the reader and the writer of its socket."""

    __slots__ = (
        "_due", "_end", "_fresh", "_owed", "_refusal", "_setup_left", "_slab", "_start", "begun",
        "busy_since", "expires_at", "heard_at", "idle_since", "outstanding", "owner", "parser",
        "retiring", "setup", "stuck",
    )  # fmt: skip

    def __init__(self, pool: "Pool", target: Server, sock: socket, setup: Setup) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        super().__init__(pool, target, sock)
        self.setup = setup
        self.parser = pool.framer.replies()
        self.owner: PoolClient | None = None
        """Who has the pipe alone."""
        self.retiring = False
        """No more requests; closed once nothing is owed."""
        self.outstanding = 0
        """Replies owed, those of clients that have left included."""
        self.idle_since = self.busy_since = self.loop.now
        """Since when nothing was owed; since when the oldest reply is owed."""
        self.heard_at = self.loop.now
        """When the server last said something, or began to owe something."""
        self.expires_at = float("inf")
        self._owed: deque[list[Any]] = deque()  # [PoolClient, replies, note, since, discard]
        self._setup_left = setup.replies
        self._refusal = b""  # what has come of the setup's reply that is coming
        self._fresh = True  # never ready yet
        self._slab = self.loop.slabs.hot
        """What is being dealt out, from `_start` to `_end`."""
        self._start = self._end = 0
        self._due = 0  # replies that what is being dealt out may hold
        self.begun = False  # bytes of a reply that has not ended have come
        self.stuck: tuple[int, int] | None = None
        """A client does not take its replies: their end, and how many."""
        self.loop.add(sock.fileno(), WRITE, self, self)

    def __repr__(self) -> str:
        state = ("connecting", "setting up", "ready", "closed")[self.state]
        alone = ", alone" if self.owner is not None else ""
        return f"<Pipe {self.target.address.text} {state}, {self.outstanding} owed{alone}>"

    # --- setting up ----------------------------------------------------------------------------

    def connected(self) -> None:
        """Send what has to come first."""
        self._mask = WRITE
        self.wait(READ | WRITE)
        if self.setup.replies:
            self.state = SETTING_UP
            self._out += self.setup.requests
        else:
            self.state = READY
            self.pool.ready(self)

    def connect_failed(self, code: int) -> None:
        """Leave the next attempt to the pool."""
        self.pool.connect_failed(self, code)

    def begin_again(self, reset: Setup) -> None:
        """Make the pipe as if it had just been set up, whatever its client has done with it."""
        self.state = SETTING_UP
        self._fresh = False
        self.dialled_at = self.loop.now
        self._setup_left = reset.replies + self.setup.replies
        self._out += reset.requests + self.setup.requests
        self.send_later()

    def _set_up(self) -> None:
        """Pass over the replies to what was replayed; an error is the clients' answer."""
        while self._start < self._end and self._setup_left:
            try:
                stop, done = self.parser.feed(self._slab.buffer, self._start, self._end, 1, 0)
            except ProtocolError:
                self.lose("protocol_error")
                return
            self._refusal += self._slab.view[self._start : stop]
            self._start = stop
            if len(self._refusal) > MAX_SETUP_REPLY_BYTES:
                self.lose("setup_failed")
                return
            if done and self.parser.failed:
                if self._fresh:
                    self.pool.setup_failed(self, self._refusal)
                else:
                    self.lose("reset_failed")
                return
            if done:
                self._setup_left -= 1
                self._refusal = b""
        if self._start < self._end:
            self.lose("unexpected")
        elif not self._setup_left:
            self.state = READY
            self.pool.ready(self)

    # --- requests ------------------------------------------------------------------------------

    @property
    def abandoned(self) -> bool:
        """Whether all who are owed a reply have left."""
        return bool(self._owed) and all(entry[0].gone for entry in self._owed)

    def submit(
        self,
        client: "PoolClient",
        data: memoryview | bytes,
        replies: int,
        note: int = 0,
        discard: bool = False,
    ) -> None:
        """Queue whole requests, or a piece of one that streams (0 replies), for the turn's end."""
        out = self._out
        out += data
        if len(out) >= self._out_max:
            self.full = True
        if client.note is not None:
            client.note.submitted(self.target, replies)
        if replies:
            owed = self._owed
            last = owed[-1] if owed else None
            if last is None:
                self.busy_since = self.heard_at = self.loop.now
            if last and last[0] is client and last[2] == note == 0 and last[4] is discard:
                last[1] += replies
            else:
                owed.append([client, replies, note, self.loop.now, discard])
            self.outstanding += replies
            self._unsent += replies
            self.pool.figures.requests += replies
        if not self.gathering:
            self.send_later()

    def note(self, note: int, discard: bool) -> None:
        """Correct what was said of the request submitted last, which streams."""
        last = self._owed[-1]
        last[2], last[4] = note, discard

    def has_room(self) -> None:
        """Tell who may go on."""
        clients = {entry[0] for entry in self._owed}
        if self.owner is not None:  # its request may have been answered before its end
            clients.add(self.owner)
        for client in clients:
            client.pipe_has_room()
        self.pool.has_room(self)

    def retire(self) -> None:
        """Take no more requests; closed once nothing is owed."""
        self.pool.retire(self)

    # --- replies -------------------------------------------------------------------------------

    def on_readable(self, mask: int) -> None:
        """Deal out what has come."""
        if self.state == CONNECTING:
            if not mask & WRITE:
                self.on_writable(mask)
            return
        if self.stuck is not None:  # it does not read: the server has hung up, found when it does
            self.wait(SILENCED)
            return
        slab = self._slab = self.loop.slabs.hot
        try:
            count = self.sock.recv_into(slab.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.lose("server_lost")
            return
        if not count:
            self._server_ended()
            return
        self._start, self._end = 0, count
        self.heard_at = self.loop.now
        # A reply cannot come before its request has gone: more than these is nobody's.
        self._due = self.outstanding - self._unsent
        if self.state == SETTING_UP:
            self._set_up()
        else:
            self._deal()

    def _deal(self) -> None:
        """Give each client its replies, until the bytes end or a client takes no more."""
        buffer, view = self._slab
        owed, feed = self._owed, self.parser.feed
        while self._start < self._end:
            if not self._due:
                self.lose("unexpected")
                return
            entry = owed[0]
            client, limit, note, _, discard = entry
            limit = min(limit, self._due)
            start = self._start
            try:
                stop, done = feed(buffer, start, self._end, limit, note)
            except ProtocolError:
                self.lose("protocol_error")
                return
            self.begun = True
            start = stop if discard else start + client.deliver(view[start:stop])
            self._start = start
            if start < stop:
                self._keep(stop - start, done)
                self.wait(self._mask & ~READ)
                client.hold_up(self)
                return
            if done and not self._strike_off(entry, done):
                return

    def _keep(self, size: int, done: int) -> None:
        """Keep what cannot be dealt out now: the slab it lies in is the loop's."""
        rest = bytearray(self._slab.view[self._start : self._end])
        self._slab = Slab(rest, memoryview(rest))
        self._start, self._end = 0, len(rest)
        self.stuck = (size, done)

    def resume(self) -> None:
        """Go on: the client that held the pipe up takes bytes again, or has left."""
        if self.stuck is None or self.state == CLOSED:
            return
        stop, done = self.stuck
        self.heard_at = self.loop.now  # what the server has said since was not read
        entry = self._owed[0]
        self._start += entry[0].deliver(self._slab.view[self._start : stop])
        if self._start < stop:
            entry[0].hold_up(self)
            return
        self.stuck = None
        self.wait((self._mask if self._mask != SILENCED else 0) | READ)
        if not done or self._strike_off(entry, done):
            self._deal()

    def _strike_off(self, entry: list[Any], done: int) -> bool:
        """Take replies that have ended off the list; False when the pipe is no pipe any more."""
        if self.state == CLOSED:  # the client had it alone, and has gone while it was served
            return False
        client: PoolClient = entry[0]
        parser, pool = self.parser, self.pool
        if entry[1] == done:
            self._owed.popleft()
            self.begun = False
        else:
            entry[1] -= done
            self.begun = parser.begun  # what was fed may hold the beginning of the next one
        self.outstanding -= done
        self._due -= done
        now = self.busy_since = self.loop.now
        spent_s = now - entry[3]
        latency = pool.figures.reply_seconds
        latency.buckets[bisect_left(REPLY_BOUNDS_S, spent_s)] += done
        latency.sum_s += spent_s * done
        if parser.tunnel and self._out:  # half a request is no beginning of a tunnel
            self.lose("unexpected")
            client.close("server_lost")
            return False
        if parser.tunnel:
            self.pool.give_away(self)
            client.tunnel(self)
            return False
        if self._start < self._end and not self._due:
            self.lose("unexpected")  # before anybody is given this pipe
            client.replied(self, done)
            return False
        if parser.last:
            pool.retire(self)
        client.replied(self, done)
        if self.state == READY and not self.outstanding:
            self.idle_since = now
            pool.idle(self)
        elif pool.waiting and self.state == READY:
            pool.has_room(self)
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
        if owner is not None and all(entry[0] is not owner for entry in owed):
            owed.append([owner, 0, 0, 0.0, False])
        for client, replies, _, _, discard in owed:
            try:
                client.pipe_lost(self, replies, begun=begun or discard, why=why)
            except Exception as error:  # one client's; the others are told all the same
                log.exception("a client could not be told of a lost pipe")
                client.fail(error)
            begun = False

    def take_unread(self) -> memoryview:
        """Return what the server sent behind the replies; good until the next read."""
        return self._slab.view[self._start : self._end]
