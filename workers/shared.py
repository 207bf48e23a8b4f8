"""A client that shares pipes: its requests go out with others', its replies come back in order.

    client ─▶ requests (workers/asking.py) ─▶ pipe ─▶ replied ─▶ settled ─▶ go on, or end
                                               └─▶ lost: told, closed, or it goes on

Invariants:
- With replies outstanding the client stays on one pipe (its order, its own writes).
- It has a pipe alone (ALONE) while the framer says it is pinned, while a request streams, and
  from first to last with pooling `session`.
- It reads only when what it reads can go somewhere. An idle client holds nothing.
"""

from aegis.lifecycle import CloseReason
from workers.asking import Asker
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
)
from workers.dealing import Dealer
from workers.loop import READ
from workers.pipe import Pipe
from workers.refusal import vanish
from workers.session import Session
from workers.timers import WATCHED

_CANNOT_GO_ON = EOF | BLOCKED | WAITING | ENDING


class SharedSession(Asker):
    """One client of a listener with pooling `multiplex` or `session`."""

    __slots__ = ()

    def begin(self) -> None:
        """Listen to the client."""
        self.loop.add(self.client.fileno(), READ, self, self)
        self.loop.wheel.watch(self)

    # --- what pipes and the pool tell ----------------------------------------------------------

    def replied(self, pipe: Dealer, done: int) -> None:
        """So many replies have come whole."""
        self.outstanding -= done
        state, last = self.state, pipe.parser.last
        closes = last or self.requests.close_after
        if state & GONE or not (state or closes):
            return  # nothing has waited for this
        if self.outstanding:
            if self.held is not None and self.outstanding < self._limit:
                self.go_on()
            return
        self.state &= ~SWITCHING
        if closes:
            self.finish("server_eof" if last else "client_eof")
            return
        if state & SWITCHING and pipe.parser.failed:
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
            if self.note is not None:
                self.note.lost(why)
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
            self.become_tunnel(pipe, view)

    def become_tunnel(self, pipe: Dealer, up: memoryview) -> None:
        """Relay blindly from here on: a plain session takes over both connections."""
        down = pipe.take_unread()
        has_slabs = len(self.loop.slabs.spare) >= bool(up) + bool(down)
        if self.state & (GONE | BLOCKED) or not has_slabs:
            self.pipe = None
            self.state &= ~ALONE
            pipe.close()
            self.close("slow_client")
            return
        self.state |= GONE
        self._forget()
        self.loop.remove(self.client.fileno())
        self.loop.remove(pipe.sock.fileno())
        session = Session(self.listener, self.client)
        self.listener.replace(self, session)
        self.bytes[1] += len(down)  # those of `up` are counted, as all that clients send here
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

    def refuse(self, reason: CloseReason) -> None:
        """End for what the client does or does not do, and tell it as refusals are told here."""
        self.forget_input()
        refusal = self.listener.config.refusal
        if refusal == "drop":
            vanish(self.client)
            self.close(reason)
            return
        if refusal == "error" and not self.outstanding:  # else it would come before replies
            self.say(self.pool.framer.error(reason))
        self.finish(reason)

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
        if self.state & GONE:
            return
        self.update()
        if self.outstanding:
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
        if self.held is not None:
            self.forget_input()
        if self.state & WAITING:
            self.pool.stop_waiting(self)

    def close(self, reason: CloseReason) -> None:
        """Leave: replies still due will be thrown away, a pipe that is not clean is closed."""
        if self.state & GONE:
            return
        self.state |= GONE
        self._forget()
        self.loop.close(self.client)
        if self._out is not None:
            self.drop_output()
        if self.state & ALONE:
            self.part(clean=not (self.outstanding or self.state & STREAMING))
        if self._held_up is not None:
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
        if self.slot == WATCHED:  # it is asked for its deadline on the next tick
            return
        due = self.until
        idle_s = self.listener.config.idle_timeout_s
        due = min(due, self.active_at + idle_s) if idle_s else due
        self.loop.wheel.disarm(self)
        self.loop.wheel.arm(self, due)
