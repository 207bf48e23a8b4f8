"""A client that shares pipes: its requests go out with others', its replies come back in order.

    client ─▶ quick: one ordinary request, on the pipe where this turn's requests gather
         └─▶ scan ─▶ run of whole requests ─▶ pipe.submit        pipe._deal ─▶ deliver ─▶ client
                └─▶ special: answered, refused, switched, pinned, tunnelled: one after all
                    replies before it have come, so that order needs no bookkeeping

Invariants:
- With replies outstanding the client stays on one pipe (its order, its own writes).
- It has a pipe alone (ALONE) while the framer says it is pinned, while a request streams, and
  from first to last with pooling `session`.
- It reads only when what it reads can go somewhere. An idle client holds nothing.
"""

from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import ProtocolError, Special, Verdict
from aegis.lifecycle import CloseReason
from aegis.limits import MAX_PIPELINED
from workers.client import (
    ALONE,
    BLOCKED,
    DRAINING,
    ENDING,
    EOF,
    GONE,
    LINGERING,
    STREAMING,
    SWITCHING,
    WAITING,
)  # fmt: skip
from workers.dealing import Dealer
from workers.loop import READ
from workers.pipe import Pipe
from workers.pool import Pool
from workers.pool_client import PoolClient
from workers.session import Session

if TYPE_CHECKING:
    from workers.listener import Listener

_CANNOT_GO_ON = EOF | BLOCKED | WAITING | ENDING


class SharedSession(PoolClient):
    """One client of a listener with pooling `multiplex` or `session`."""

    __slots__ = ("_limit", "_undo")

    def __init__(self, listener: "Listener", client: socket, pool: Pool) -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        super().__init__(listener, client, pool)
        self._limit = min(pool.framer.in_flight, MAX_PIPELINED)
        self._undo: Callable[[], None] | None = None  # while SWITCHING: what to do if it fails

    def begin(self) -> None:
        """Listen to the client."""
        self.loop.add(self.client.fileno(), READ, self, self)
        self.rearm()

    # --- input ---------------------------------------------------------------------------------

    def on_readable(self, mask: int) -> None:
        """Take in what the client sends; one request of an ordinary client goes the quick way."""
        if self.state or self.outstanding:
            self.read_on(mask)
            return
        loop, pool = self.loop, self.pool
        buffer, view = loop.slabs.hot
        try:
            count = self._recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            self.close("client_reset")
            return
        pipe = pool.gathering
        if pipe is None or pipe.setup is not self.setup or not pool.quick(buffer, 0, count):
            self.take_in(buffer, view, count)
            return
        self.active_at = loop.now
        self.bytes[0] += count
        self.pipe = pipe
        self.outstanding = 1
        pipe.gather(self, view[:count])

    def process(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send on what can be; returns up to where."""
        while start < end and not self.state & (WAITING | GONE | ENDING):
            if self.state & STREAMING:
                start = self._stream(buffer, view, start, end)
                continue
            if self.outstanding >= self._limit or self.state & SWITCHING:
                return start
            if self.pending is None:
                try:
                    stop, replies, special = self.requests.scan(buffer, start, end)
                except ProtocolError as error:
                    stop, replies, special = start, 0, self._refusal(error, end)
            else:
                (stop, replies, special), self.pending = self.pending, None
            if replies:
                outstanding = self.outstanding
                pipe = self.pipe_for(alone=self.sticky)
                # Others may wait for the pipe to fall idle.
                yields = outstanding and not self.state & ALONE and self.pool.waiting
                if pipe is None or pipe.full or yields:
                    self.pending = (stop, replies, special)
                    return start
                self._submit(pipe, view[start:stop], replies)
            start = stop
            if special is None:
                whole = start == end or self.outstanding >= self._limit  # then `need` is nobody's
                if whole or (self.requests.need and not self._stream_begins(start, end)):
                    return start
            elif self.outstanding or self.state & BLOCKED:
                self.pending = (start, 0, special)
                return start
            else:
                behind = self._act(special, view, start, end)
                if behind == start:
                    self.pending = (start, 0, special)
                    return start
                start = behind
        return start

    def _submit(self, pipe: Pipe, data: memoryview, replies: int) -> None:
        requests = self.requests
        self.outstanding += replies
        what = data if requests.forward is None else requests.forward
        pipe.submit(self, what, replies, requests.note, requests.discard)

    def _act(self, special: Special, view: memoryview, start: int, end: int) -> int:
        """Handle a special request, with nothing outstanding; returns `start` if it has to wait."""
        verdict = special.verdict
        if verdict in {Verdict.ANSWER, Verdict.REFUSE}:
            if self.state & ALONE and self.setup != self.requests.setup:
                self.part(clean=True)  # it forgets what its pipe remembers
            self.part_if_clean()
            self.setup = self.requests.setup
            self.say(special.reply)
            if verdict == Verdict.REFUSE:
                broken = special.why == "protocol_error"
                self.finish("protocol_error" if broken else "refused_request")
            return special.end
        if verdict == Verdict.SWITCH:
            if self.refusal:
                reply, self.refusal = self.refusal, b""
                self.say(reply)
                self.switch_back(special.undo)
                return special.end
            self.setup, self._undo = self.requests.setup, special.undo
        elif verdict == Verdict.TUNNEL and self.state & ALONE and self.pipe and self.pipe.unsent:
            self.part(clean=False)  # what waits there could not be handed over
        pipe = self.pipe_for(alone=verdict != Verdict.SWITCH or self.sticky)
        if pipe is None:
            return start
        if verdict != Verdict.SWITCH:
            self.pool.count_pin(special.why)
        if verdict == Verdict.TUNNEL:
            self.pool.give_away(pipe)
            self._become_tunnel(pipe, view[start:end])
            return end
        if verdict == Verdict.SWITCH:
            self.state |= SWITCHING
        self.used |= not special.clean and (self.state & (ALONE | SWITCHING)) != SWITCHING
        self._submit(pipe, view[start : special.end], special.replies)
        return special.end

    def _stream_begins(self, start: int, end: int) -> bool:
        """See whether the request that has begun must stream because it cannot be held."""
        limit = len(self.loop.slabs.hot.buffer)
        requests = self.requests
        if requests.need <= limit and end - start < limit and not requests.stream_now:
            return False
        if not self.outstanding:
            self.setup = requests.setup
        pipe = None if self.outstanding else self.pipe_for(alone=True)
        if pipe is None:
            self.pending = (start, 0, None)
            return False
        self.state |= STREAMING
        self.outstanding = 1
        self.pool.count_pin("long_request")
        pipe.submit(self, b"", 1)
        return True

    def _stream(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send a piece of a long request on; returns up to where."""
        requests, pipe = self.requests, self.pipe
        assert pipe is not None
        try:
            stop, done = requests.follow(buffer, start, end)
        except ProtocolError as error:
            self._break_off(self._refusal(error, end))
            return end
        pipe.submit(self, view[start:stop] if requests.forward is None else requests.forward, 0)
        if self.outstanding:
            pipe.note(requests.note, requests.discard)
        if done:
            self.state &= ~STREAMING
            self.used |= not (requests.clean and self.outstanding)
            if not self.outstanding:  # answered early: the rest may be read as a request
                pipe.flush()
                self.part_if_clean()
        return stop

    def _refusal(self, error: ProtocolError, end: int) -> Special:
        """Make of bytes that are not the protocol a request that is refused in its turn."""
        reply = error.reply or self.pool.framer.error("protocol_error")
        return Special(Verdict.REFUSE, end, "protocol_error", reply)

    def _break_off(self, refusal: Special) -> None:
        """Half a request has gone out and cannot go on: the pipe ends here, and the client."""
        answering = self.pipe is not None and self.pipe.begun
        self.outstanding = 0
        self.part(clean=False)
        if not answering:
            self.say(refusal.reply)
        self.finish("protocol_error")

    # --- what pipes and the pool tell ----------------------------------------------------------

    def replied(self, pipe: Dealer, done: int) -> None:
        """So many replies have come whole."""
        self.outstanding -= done
        last = pipe.parser.last
        if self.state & GONE or not (self.state or last or self.requests.close_after):
            return  # nothing has waited for this
        if self.outstanding:
            if self.held is not None and self.outstanding < self._limit:
                self.go_on()
            return
        refused = self.state & SWITCHING and pipe.parser.failed
        self.state &= ~SWITCHING
        if last or self.requests.close_after:
            self.finish("server_eof" if last else "client_eof")
            return
        if refused:
            self.switch_back(self._undo)
        if not self.state & STREAMING:
            self._settled()

    def _settled(self) -> None:
        """Nothing is outstanding: give a pipe back, act on what had to wait for this."""
        self.part_if_clean()
        self.go_on()
        self.end_if_done()

    def end_if_done(self) -> None:
        """End a client that has closed its half, once it is owed nothing."""
        busy = self.outstanding or self.state & (WAITING | STREAMING) or self.pending
        if self.state & EOF and not busy:
            self.finish("client_eof")
        elif self.state & DRAINING:
            self.finish_when_idle()

    def pipe_lost(self, pipe: Pipe, replies: int, *, begun: bool, why: str) -> None:
        """The pipe is gone, and with it so many replies."""
        self.outstanding -= replies
        switching = self.state & SWITCHING
        self.state &= ~SWITCHING
        if self.pipe is pipe:
            self.pipe = None
            self.used = False
            self.state &= ~ALONE
        if self.state & (GONE | ENDING):
            return
        error = self.pool.framer.error(why) if replies else b""
        fatal = begun or bool(self.state & STREAMING or self.requests.pinned)
        fatal = fatal or bool(replies and (not error or self.pool.framer.error_closes))
        if not begun and error:
            self.say(error if fatal else error * replies)
        if fatal:
            self.finish("server_lost")
            return
        if switching:  # the server has not said that it holds
            self.switch_back(self._undo)
        if not self.outstanding:
            self._settled()

    def tunnel(self, pipe: Dealer) -> None:
        """The reply just given has made the connection a tunnel."""
        self.outstanding = 0
        held = self.held if self.held is not None else b""
        with memoryview(held) as view:
            self._become_tunnel(pipe, view)

    def _become_tunnel(self, pipe: Dealer, up: memoryview) -> None:
        """Relay blindly from here on: a plain session takes over both connections."""
        down = pipe.take_unread()
        has_slabs = len(self.loop.slabs.spare) >= bool(up) + bool(down)
        if self.state & (GONE | BLOCKED) or not has_slabs:
            self.pipe = None
            self.state &= ~ALONE
            pipe.close()
            self.listener.backend.freed(pipe.target, self.loop)
            self.close("slow_client")
            return
        self.state |= GONE
        self._forget()
        self.loop.remove(self.client.fileno())
        self.loop.remove(pipe.sock.fileno())
        session = Session(self.listener, self.client)
        self.listener.replace(self, session)
        session.take_over(pipe.sock, pipe.target, up, down)
        pipe.release()

    # --- time and end --------------------------------------------------------------------------

    def expire(self, now: float) -> float:
        """End what has waited too long; tell when to look again."""
        if now >= self.until:
            self.until = float("inf")
            if self.state & WAITING:
                self.pool.stop_waiting(self)
                self.denied("queue_timeout")
            elif self.state & LINGERING:
                self.close(self._ending or "client_eof")
            elif self._held_up is not None:
                self.close("slow_client")
            elif self.state & EOF and self.outstanding:
                self.close("server_fin_timeout")
        limit = self.listener.config.idle_timeout_s or float("inf")
        if now >= self.active_at + limit:
            self.close("idle_timeout")
        return 0.0 if self.state & GONE else min(self.until, self.active_at + limit)

    def too_slow(self) -> None:
        """Half a request has taken longer than anybody's, and others need the memory."""
        self.forget_input()
        if not self.outstanding:  # else the error would come before the replies that are due
            self.say(self.pool.framer.error("client_timeout"))
        self.finish("slow_request")

    def client_ended(self) -> None:
        """The client has closed its half: what it asked for before is answered first."""
        self.state |= EOF
        if self.state & (LINGERING | STREAMING):  # a request that will never end
            self.close(self._ending or "client_eof")
            return
        alone = self.state & ALONE and (self.requests.pinned or not self.sticky)
        if alone and self.outstanding and self.held is None:
            assert self.pipe is not None
            self.pipe.end_writing()
        self.end_if_done()
        self.update()
        if self.outstanding and not self.state & GONE:
            patience_s = self.listener.backend.config.server_fin_timeout_s
            self.until = self.loop.now + (patience_s or float("inf"))
            self.rearm()

    def finish_after_reply(self, *, wanted: bool = True) -> None:
        """End when the next reply has been given; not `wanted`: go on, there is no drain now."""
        self.state = self.state | DRAINING if wanted else self.state & ~DRAINING

    def finish_when_idle(self) -> None:
        """End at the next moment at which nothing is owed: the worker drains."""
        self.state |= DRAINING
        owed = self.outstanding or self.state & (WAITING | STREAMING | BLOCKED)
        if not (owed or self.held or self.requests.pinned):
            self.finish("drained")

    def _forget(self) -> None:
        self.loop.wheel.disarm(self)
        self.forget_input()
        if self.state & WAITING:
            self.pool.stop_waiting(self)

    def close(self, reason: CloseReason) -> None:
        """Leave: replies still due will be thrown away, a pipe that is not clean is closed."""
        if self.state & GONE:
            return
        self.state |= GONE
        self._forget()
        self.drop_output()
        self.loop.close(self.client)
        if self.state & ALONE:
            self.part(clean=not (self.outstanding or self.state & STREAMING))
        self.unblocked()
        self.listener.closed(self, self._ending or reason)

    def may_read(self) -> bool:
        """Whether what the client sends could go somewhere."""
        if self.state & _CANNOT_GO_ON or self.pending is not None:
            return False
        if self.held is not None and (self.state & SWITCHING or self.outstanding >= self._limit):
            return False
        return not (self.state & STREAMING and self.pipe is not None and self.pipe.full)

    def rearm(self) -> None:
        """Be looked at when the next deadline comes."""
        due = self.until
        idle_s = self.listener.config.idle_timeout_s
        due = min(due, self.active_at + idle_s) if idle_s else due
        self.loop.wheel.disarm(self)
        self.loop.wheel.arm(self, due)
