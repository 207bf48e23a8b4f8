"""Who is owed the replies that come on a pipe, and the dealing out of them.

    recv ─▶ slab ─▶ quickly: a match, a send, the next          ordinary clients, small replies
                └─▶ carefully: parser.feed, client.deliver      everything else
                                         └─ it takes no more: the pipe is stuck, kept, resumed

A pipe reads into the loop's hot slab and deals it out at once. Replies that wait for a slow client
are kept at their own length: the parser has passed over the first, and need not be turned back.

Bytes that nobody can be owed (more replies than requests have gone) close the pipe before anybody
else is given it.
"""

from bisect import bisect_left
from collections import deque
from itertools import islice
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from aegis.figures import REPLY_BOUNDS_S
from aegis.framers.contract import ProtocolError
from aegis.limits import RUN_MAX
from workers.loop import READ, SILENCED
from workers.server import CLOSED, READY, ServerEnd
from workers.slab import Slab
from workers.target import Server

if TYPE_CHECKING:
    from workers.pipe import Pipe
    from workers.pool import Pool
    from workers.pool_client import PoolClient


class Odd(NamedTuple):
    """In the queue of who is owed, in a client's place: a reply that is not simply passed on."""

    client: "PoolClient"
    note: int
    discard: bool
    state: int = -1
    """As a client's: not an ordinary one."""


def client_of(taker: "PoolClient | Odd") -> "PoolClient":
    """Return who is owed."""
    return taker.client if isinstance(taker, Odd) else taker


class Dealer(ServerEnd):
    """A connection and who is owed what comes from it; Pipe adds who may use it."""

    __slots__ = (
        "_asked_at", "_due", "_end", "_latency", "_left", "_slab", "_start", "_submitted", "begun",
        "busy_since", "heard_at", "idle_since", "owed", "owner", "parser", "stuck",
    )  # fmt: skip

    def __init__(self, pool: "Pool", target: Server, sock: socket) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        super().__init__(pool, target, sock)
        self.parser = pool.framer.replies()
        self.owner: PoolClient | None = None
        """Who has it alone."""
        self.owed: deque[Any] = deque()
        """Who gets each reply that is to come, a PoolClient or Odd; those who have left, too."""
        self.idle_since = self.busy_since = self.loop.now
        """Since when nothing was owed; since when the server has not got on with what it owes."""
        self.heard_at = 0.0
        """When the server last said something."""
        self._due = 0  # replies to requests of which bytes have gone: no others can come
        self._latency = pool.latency_of(target)
        self._asked_at: deque[tuple[float, int]] = deque()  # since when so many of these are owed
        self._submitted = 0  # replies owed to what was submitted, and not gathered, since
        self._slab = self.loop.slabs.hot
        """What is being dealt out, from `_start` to `_end`."""
        self._start = self._end = 0
        self._left = 0  # replies that what is being dealt out may hold
        self.begun = False
        """Bytes of a reply that has not ended have come."""
        self.stuck: tuple[int, int] | None = None
        """A client does not take its replies: their end, and how many."""

    def due_for(self, now: float) -> float:
        """Return for how long the oldest reply has been due; 0 if none is."""
        return now - self._asked_at[0][0] if self._asked_at else 0.0

    def begin(self) -> None:
        """Begin to owe: from now on the server's silence counts."""
        self.busy_since = self.loop.now

    def began_to_go(self) -> None:
        """Expect replies to all that was gathered, from now on."""
        added = len(self.owed) - self._due
        if added:
            self._due += added
            self._asked_at.append((self.loop.now, added))
            figures = self.pool.figures
            figures.requests += added
            figures.hits += added - self._submitted  # of what was submitted the pool has counted it
            self._submitted = 0

    def move_unwritten(self) -> None:
        """Give requests of which nothing has gone to another pipe, if one has room for them.

        Whose earlier requests have gone here is told at once what became of them, so the replies
        keep their order.
        """
        count = len(self.owed) - self._due
        other = self.another(count) if count and self.owner is None else None
        if other is None:
            return
        takers = [self.owed.pop() for _ in range(count)][::-1]
        other.take_over(self._out[self._begun_bytes :], takers)
        del self._out[self._begun_bytes :]
        for client in {client_of(taker) for taker in takers}:
            client.moved(other)

    def take_over(self, requests: bytearray, takers: list[Any]) -> None:
        """Send what another pipe could not send, and owe the replies to its takers."""
        self._out += requests
        self.owed.extend(takers)
        self.send_later()

    def deal(self, count: int) -> None:
        """Deal out so many bytes, which the loop's hot slab holds."""
        self._slab = self.loop.slabs.hot
        self._start, self._end = 0, count
        self._left = self._due
        self._deal()

    def _deal(self) -> None:
        """Give each client its replies, until the bytes end or a client takes no more."""
        while self._start < self._end:
            if not self._left:
                self.lose("unexpected")
                return
            quick = self.pool.deals_quickly and not (self.begun or self.owed[0].state)
            if not (self._deal_quickly() if quick else self._deal_carefully()):
                return
        self._dealt()

    def _deal_quickly(self) -> bool:
        """Deal out as long as clients and replies are ordinary; returns whether to go on."""
        buffer, view = self._slab
        owed, quick, now = self.owed, self.pool.framer.quick_reply, self.loop.now
        start, end, left = self._start, self._end, self._left
        next_owed, rest = owed.popleft, 0
        while left and start < end:
            client = next_owed()
            if client.state or (reply := quick(buffer, start, end)) is None:
                owed.appendleft(client)
                break
            data: bytearray | memoryview
            if client.outstanding == 1:
                stop, done = reply.end(), 1
                data = buffer[start:stop]  # so small that a copy costs less than a view
            else:
                stop, done = self._quick_run(client, reply.end(), left)
                data = view[start:stop]
            try:
                sent = client.send(data)
            except OSError:  # `deliver` meets it again, and sees to it
                sent = 0
            client.bytes[1] += sent
            client.active_at = now
            if sent < stop - start:
                owed.extendleft([client] * done)
                start, rest = start + sent, stop
                break
            start = stop
            left -= done
            client.outstanding -= done
        self._came(self._left - left)
        if not rest and start == self._start:
            return self._deal_carefully()
        self._start = start
        if not rest:
            return True
        self.begun = True
        return self._hand(client, rest, done)

    def _quick_run(self, client: "PoolClient", stop: int, left: int) -> tuple[int, int]:
        """Find replies to the same client behind its first, which ends at `stop`; strike them off.

        Returns:
            Their end, and how many they are with the first; at most `left`.
        """
        quick, buffer, end, done = self.pool.framer.quick_reply, self._slab.buffer, self._end, 1
        owed, most = self.owed, min(left, client.outstanding)
        while done < most and owed[0] is client and (reply := quick(buffer, stop, end)):
            owed.popleft()
            stop = reply.end()
            done += 1
        return stop, done

    def _deal_carefully(self) -> bool:
        """Deal out to the next client, whatever is odd about it; returns whether to go on."""
        first = self.owed[0]
        limit = 1 if self._left == 1 else self._run_of(first)
        client, note, discard = first[:3] if isinstance(first, Odd) else (first, 0, False)
        try:
            stop, done = self.parser.feed(self._slab.buffer, self._start, self._end, limit, note)
        except ProtocolError as error:
            self.broke_protocol(error)
            return False
        self.begun = True
        if discard:
            self._start = stop
        return self._hand(client, stop, done)

    def _run_of(self, first: "PoolClient | Odd") -> int:
        """Count how many of the next replies go to the same as the first."""
        run = 1
        for each in islice(self.owed, 1, min(self._left, RUN_MAX)):
            if each is not first:
                break
            run += 1
        return run

    def broke_protocol(self, error: ProtocolError) -> None:
        """Close, because what has come is no reply."""
        self.pool.count_error("server", error.kind)
        self.lose("protocol_error")

    def _hand(self, client: "PoolClient", stop: int, done: int) -> bool:
        """Give a client what it is owed up to `stop`, `done` whole replies; False: deal no more."""
        start = self._start
        if start < stop:
            ends = done == client.outstanding and (self.parser.last or client.requests.close_after)
            data = self._slab.view[start:stop]
            self._start = start = start + client.deliver(data, ends=ends)
        if start < stop:
            self._keep(stop - start, done)
            self.wait(self._mask & ~READ)
            client.hold_up(self)
            return False
        return not done or self._strike_off(client, done)

    def _keep(self, size: int, done: int) -> None:
        """Keep what cannot be dealt out now: the slab it lies in is the loop's."""
        rest = bytearray(self._slab.view[self._start : self._end])
        self._slab = Slab(rest, memoryview(rest))
        self._start, self._end = 0, len(rest)
        self.stuck = (size, done)
        self.not_here()

    def resume(self) -> None:
        """Go on: the client that held the pipe up takes bytes again, or has left."""
        if self.stuck is None or self.state == CLOSED:
            return
        stop, done = self.stuck
        self.heard_at = self.loop.now  # what the server has said since was not read
        client = client_of(self.owed[0])
        self._start += client.deliver(self._slab.view[self._start : stop])
        if self._start < stop:
            client.hold_up(self)
            return
        self.stuck = None
        self.wait((self._mask if self._mask != SILENCED else 0) | READ)
        if not done or self._strike_off(client, done):
            self._deal()

    def _strike_off(self, client: "PoolClient", done: int) -> bool:
        """Take replies that have ended off the list; False when the pipe is no pipe any more."""
        if self.state == CLOSED:  # the client had it alone, and has gone while it was served
            return False
        parser = self.parser
        for _ in range(done):
            self.owed.popleft()
        self.begun = parser.begun  # what was fed may hold the beginning of the next one
        self._came(done)
        if parser.tunnel:
            if self._out:  # half a request is no beginning of a tunnel
                self.lose("unexpected")
                client.close("server_lost")
            else:
                self.give_away()
                client.tunnel(self)
            return False
        if self._start < self._end and not self._left:
            self.lose("unexpected")  # before anybody is given this pipe
            client.replied(self, done)
            return False
        if parser.last:
            self.retire()
        client.replied(self, done)
        return self.state == READY

    def _came(self, done: int) -> None:
        """Count so many replies, and how long they have taken."""
        self._left -= done
        self._due -= done
        now = self.busy_since = self.loop.now
        asked_at, latency = self._asked_at, self._latency
        while done:
            since, part = asked_at.popleft()
            if part > done:
                asked_at.appendleft((since, part - done))
                part = done
            waited = now - since
            latency.buckets[bisect_left(REPLY_BOUNDS_S, waited)] += part
            latency.sum_s += waited * part
            done -= part

    def _dealt(self) -> None:
        """Tell the pool what the pipe is good for now."""
        if not self.owed:
            self.idle_since = self.loop.now
            self.fell_idle()
        elif self.pool.waiting:
            self.has_room_for_others()

    def take_unread(self) -> memoryview:
        """Return what the server sent behind the replies; good until the next read."""
        return self._slab.view[self._start : self._end]

    # --- for the pipe --------------------------------------------------------------------------

    def not_here(self) -> None:
        """No more requests of this turn: it is stuck."""
        raise NotImplementedError

    def another(self, count: int) -> "Pipe | None":
        """Return another pipe that can take so many requests; it is about to owe their replies."""
        raise NotImplementedError

    def fell_idle(self) -> None:
        """Nothing is owed any more."""
        raise NotImplementedError

    def has_room_for_others(self) -> None:
        """Less is owed, and somebody waits."""
        raise NotImplementedError

    def give_away(self) -> None:
        """The connection is a tunnel now, and no pipe."""
        raise NotImplementedError
