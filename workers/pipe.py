"""A pipe: a persistent connection to a server that clients share, or one has alone for a while.

    submit, gather ─▶ out ──flush, once a turn──▶ server ──▶ slab ─▶ deal ─▶ each client its replies
                        └─▶ owed: who gets each reply, in the order of the requests

    connecting ─▶ setting up ─▶ ready (shared, or one client's alone) ─▶ closed, once
                  (replays what its clients' state needs)

Rules, in order of importance:
- Whatever cannot be explained (a byte nobody is owed, a reply that is none) closes the pipe.
- A client that has left stays in `owed`; exactly its replies are thrown away. So are those to
  requests that are to be discarded, while the client goes on.
- What was written is never sent again. A pipe that dies answers for every reply it owes, but for
  requests that were not written: another pipe has these.
- A client that does not take its replies holds up this pipe only, and not for ever.

workers/server.py is the connection under it, workers/dealing.py what is done with replies.
"""

import logging
from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import ProtocolError, Setup
from aegis.limits import MAX_SETUP_REPLY_BYTES
from workers.client import GONE
from workers.dealing import Dealer, Odd, client_of
from workers.loop import READ, SILENCED, WRITE
from workers.server import CLOSED, CONNECTING, READY, SETTING_UP
from workers.spread import another
from workers.target import Server

if TYPE_CHECKING:
    from workers.pool import Pool
    from workers.pool_client import PoolClient

log = logging.getLogger(__name__)


class Pipe(Dealer):
    """One pipe of a pool; the reader and the writer of its socket."""

    __slots__ = ("_fresh", "_refusal", "_setup_left", "expires_at", "retiring", "setup")

    def __init__(self, pool: "Pool", target: Server, sock: socket, setup: Setup) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        super().__init__(pool, target, sock)
        self.setup = setup
        self.retiring = False
        """No more requests; closed once nothing is owed."""
        self.expires_at = float("inf")
        self._setup_left = setup.replies
        self._refusal = b""  # what has come of the setup's reply that is coming
        self._fresh = True  # never ready yet
        self.loop.add(sock.fileno(), WRITE, self, self)

    def __repr__(self) -> str:
        state = ("connecting", "setting up", "ready", "closed")[self.state]
        alone = ", alone" if self.owner is not None else ""
        return f"<Pipe {self.target.address.text} {state}, {len(self.owed)} owed{alone}>"

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

    def connect_failed(self, error: int | str) -> None:
        """Leave the next attempt to the pool."""
        self.pool.connect_failed(self, error)

    def begin_again(self, reset: Setup) -> None:
        """Make the pipe as if it had just been set up, whatever its client has done with it."""
        self.state = SETTING_UP
        self._fresh = False
        self.dialled_at = self.loop.now
        self._setup_left = reset.replies + self.setup.replies
        self._out += reset.requests + self.setup.requests
        self.send_later()

    def _set_up(self, count: int) -> None:
        """Pass over the replies to what was replayed; an error is the clients' answer."""
        buffer, view = self.loop.slabs.hot
        start = 0
        while start < count and self._setup_left:
            try:
                stop, done = self.parser.feed(buffer, start, count, 1, 0)
            except ProtocolError as error:
                self.broke_protocol(error)
                return
            self._refusal += view[start:stop]
            start = stop
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
        if start < count:
            self.lose("unexpected")
        elif not self._setup_left:
            self.state = READY
            self.pool.ready(self)

    # --- requests ------------------------------------------------------------------------------

    @property
    def abandoned(self) -> bool:
        """Whether all who are owed a reply have left."""
        return bool(self.owed) and all(client_of(each).state & GONE for each in self.owed)

    def gather(self, client: "PoolClient", request: bytearray) -> None:
        """Take one more small request of this turn; only for the pipe its pool gathers on."""
        self._out += request
        owed = self.owed
        owed.append(client)
        if not self.gathering:
            self.gathering = True
            self.loop.gather(self)
        if len(owed) >= self.pool.gather_most:
            self.pool.gathering = None
            self.send_later()

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
            self.pool.not_on(self)
        if client.note is not None:
            client.note.submitted(self.target, replies)
        if replies:
            self._submitted += replies
            self.owed.extend([Odd(client, note, discard) if note or discard else client] * replies)
            if len(self.owed) >= self.pool.gather_most:
                self.pool.not_on(self)
        self.send_later()

    def note(self, note: int, discard: bool) -> None:
        """Correct what was said of the request submitted last, which streams."""
        client = client_of(self.owed[-1])
        self.owed[-1] = Odd(client, note, discard) if note or discard else client

    def has_room(self) -> None:
        """Tell who may go on."""
        clients = {client_of(each) for each in self.owed}
        if self.owner is not None:  # its request may have been answered before its end
            clients.add(self.owner)
        for client in clients:
            client.pipe_has_room()
        self.pool.has_room(self)

    # --- what the pool is told -----------------------------------------------------------------

    def flush(self) -> None:
        """Send what the turn has gathered, in one call."""
        self.pool.not_on(self)
        super().flush()

    def not_here(self) -> None:
        """No more requests of this turn: it is stuck."""
        self.pool.not_on(self)

    def another(self, count: int) -> "Pipe | None":
        """Return another pipe that can take so many requests."""
        return another(self.pool, self, count)

    def fell_idle(self) -> None:
        """Nothing is owed any more."""
        self.pool.idle(self)

    def has_room_for_others(self) -> None:
        """Less is owed, and somebody waits."""
        self.pool.has_room(self)

    def give_away(self) -> None:
        """The connection is a tunnel now, and no pipe."""
        self.pool.give_away(self)

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
        try:
            count = self.sock.recv_into(self.loop.slabs.hot.buffer)
        except BlockingIOError:
            return
        except OSError:
            self.lose("server_lost")
            return
        if not count:
            self._server_ended()
            return
        self.heard_at = self.loop.now
        if self.state == SETTING_UP:
            self._set_up(count)
        else:
            self.deal(count)

    def _server_ended(self) -> None:
        """The server has closed: normal when nothing is owed, or where that ends a reply."""
        if self.owed and self.begun and self.parser.end():
            self.retire()
            if self._strike_off(client_of(self.owed[0]), 1):
                self._dealt()
        if self.state != CLOSED:
            self.lose("server_lost")

    # --- end -----------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """Close, and answer for every reply that is owed."""
        if self.state == CLOSED:
            return
        if self.owed or self.state != READY:
            self.pool.blame(self, why)
        self.move_unwritten()
        lost: dict[PoolClient, int] = {}
        for each in self.owed:
            client = client_of(each)
            lost[client] = lost.get(client, 0) + 1
        # Who has half a reply, or expects none, cannot be told an error in its place.
        silent = {each.client for each in self.owed if isinstance(each, Odd) and each.discard}
        if self.begun and self.owed:
            silent.add(client_of(self.owed[0]))
        if self.owner is not None:
            lost.setdefault(self.owner, 0)
        self.owed.clear()
        self._asked_at.clear()
        self._due = self._left = 0
        self.owner = None
        self.pool.lost(self, why)
        for client, replies in lost.items():
            try:
                client.pipe_lost(self, replies, begun=client in silent, why=why)
            except Exception as error:  # one client's; the others are told all the same
                log.exception("a client could not be told of a lost pipe")
                client.fail(error)
