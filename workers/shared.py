"""A client that shares pipes: its requests go out with others', its replies come back in order.

    client ─▶ scan ─▶ run of whole requests ─▶ pipe.submit        pipe._deal ─▶ deliver ─▶ client
                └─▶ special: answered, refused, switched, pinned, tunnelled: one after all
                    replies before it have come, so that order needs no bookkeeping

Invariants:
- With replies outstanding the client stays on one pipe (its order, its own writes).
- It has a pipe alone (`_alone`) while the framer says it is pinned, while a request streams, and
  from first to last with pooling `session`.
- It reads only when what it reads can go somewhere. An idle client holds nothing.
"""

from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import ProtocolError, Setup, Special, Verdict
from aegis.lifecycle import CloseReason
from aegis.limits import MAX_PIPELINED, TICK_S
from workers.intake import Intake
from workers.loop import READ
from workers.pipe import Pipe
from workers.pool import Pool
from workers.session import Session

if TYPE_CHECKING:
    from workers.listener import Listener


class SharedSession(Intake):
    """One client of a listener with pooling `multiplex` or `session`."""

    __slots__ = (
        "_alone", "_draining", "_granted", "_limit", "_outstanding", "_pipe",
        "_pool", "_requests", "_sticky", "_streaming", "_switching", "_used",
        "_waiting", "setup", "since", "wants_alone",
    )  # fmt: skip

    def __init__(self, listener: "Listener", client: socket, pool: Pool) -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        super().__init__(listener, client)
        self.wants_alone = False
        """While it waits: whether for a pipe of its own."""
        self.since = 0.0
        """While it waits: since when."""
        self._pool = pool
        self._requests = pool.framer.requests()
        self.setup: Setup = self._requests.setup
        """What its pipes have been set up with."""
        self._limit = min(pool.framer.in_flight, MAX_PIPELINED)
        self._pipe: Pipe | None = None  # where replies are due, or that is this client's alone
        self._granted: Pipe | None = None  # what the pool gave it when its turn came
        self._alone = False
        self._used = False  # the pipe it has alone may carry its state
        self._switching = False  # the reply that is due says whether a new setup holds
        self._sticky = listener.config.pooling == "session"
        self._outstanding = 0
        self._waiting = self._streaming = self._draining = False

    def begin(self) -> None:
        """Listen to the client."""
        self.loop.add(self.client.fileno(), READ, self, self)
        self.rearm()

    # --- input ---------------------------------------------------------------------------------

    def process(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send on what can be; returns up to where."""
        while start < end and not (self._waiting or self._gone or self._ending is not None):
            if self._streaming:
                start = self._stream(buffer, view, start, end)
                continue
            if self._outstanding >= self._limit or self._switching:
                return start
            if self.pending is None:
                try:
                    stop, replies, special = self._requests.scan(buffer, start, end)
                except ProtocolError as error:
                    self._break_off(error)
                    return end
            else:
                (stop, replies, special), self.pending = self.pending, None
            if replies:
                pipe = self._pipe_for(alone=self._sticky)
                yields = self._outstanding and not self._alone and self._pool.waiting
                if pipe is None or pipe.full or yields:  # others wait for the pipe to fall idle
                    self.pending = (stop, replies, special)
                    return start
                self._submit(pipe, view[start:stop], replies)
            start = stop
            if special is None:
                if (
                    start == end
                    or self._outstanding >= self._limit  # `need` may be an earlier request's
                    or not self._stream_begins(start, end)
                ):
                    return start
            elif self._outstanding or self._blocked:
                self.pending = (start, 0, special)
                return start
            else:
                behind = self._act(special, view, start, end)
                if behind == start:
                    self.pending = (start, 0, special)
                    return start
                start = behind
        return start

    def _pipe_for(self, *, alone: bool) -> Pipe | None:
        """Return the pipe the next request goes to; None: the client waits now, or is denied."""
        if self._outstanding or self._alone:
            return self._pipe
        if self._granted is not None:
            self._pipe, self._granted = self._granted, None
            return self._pipe
        if alone:
            self._pipe = self._pool.lease(self.setup, self)
            self._alone = self._pipe is not None
        else:
            self._pipe = self._pool.pick(self.setup)
        if self._pipe is None:
            self._waiting, self.wants_alone, self.since = True, alone, self.loop.now
            self._until = self.loop.now + self.listener.backend.config.queue_timeout_s
            if self._pool.wait(self):
                self.rearm()
            else:
                self.denied("queue_full")
        return self._pipe

    def granted(self, pipe: Pipe) -> None:
        """It is this client's turn; a pipe it wanted alone is its own now."""
        self._waiting = False
        self._until = float("inf")
        self._alone = self.wants_alone
        self._pipe, self._granted = pipe, None if self._alone else pipe
        self.go_on()
        self._granted = None

    def _submit(self, pipe: Pipe, data: memoryview, replies: int) -> None:
        requests = self._requests
        self._outstanding += replies
        forward = requests.forward
        pipe.submit(self, data if forward is None else forward, replies, requests.note)

    def _act(self, special: Special, view: memoryview, start: int, end: int) -> int:
        """Handle a special request, with nothing outstanding; returns `start` if it has to wait."""
        verdict = special.verdict
        if verdict in {Verdict.ANSWER, Verdict.REFUSE}:
            if self._alone and self.setup != self._requests.setup:
                self._part(clean=True)  # it forgets what its pipe remembers
            self._part_if_clean()
            self.setup = self._requests.setup
            self.say(special.reply)
            if verdict == Verdict.REFUSE:
                self.finish("refused_request")
            return special.end
        if verdict == Verdict.SWITCH:
            self.setup = self._requests.setup
        else:
            self._pool.count_pin(special.why)
        pipe = self._pipe_for(alone=verdict != Verdict.SWITCH or self._sticky)
        if pipe is None:
            return start
        if verdict == Verdict.TUNNEL:
            self._pool.give_away(pipe)
            self._become_tunnel(pipe, view[start:end], pipe.take_unread())
            return end
        self._switching = verdict == Verdict.SWITCH
        self._used = self._used or not self._switching or self._alone
        self._submit(pipe, view[start : special.end], special.replies)
        return special.end

    def _stream_begins(self, start: int, end: int) -> bool:
        """See whether the request that has begun must stream because it cannot be held."""
        limit = len(self.loop.slabs.hot.buffer)
        requests = self._requests
        if requests.need <= limit and end - start < limit and not requests.stream_now:
            return False
        if not self._outstanding:
            self.setup = requests.setup
        pipe = None if self._outstanding else self._pipe_for(alone=True)
        if pipe is None:
            self.pending = (start, 0, None)
            return False
        self._streaming = True
        self._pool.count_pin("long_request")
        self._submit(pipe, memoryview(b""), 1)
        return True

    def _stream(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send a piece of a long request on; returns up to where."""
        assert self._pipe is not None
        try:
            stop, done = self._requests.follow(buffer, start, end)
        except ProtocolError as error:
            self._break_off(error)
            return end
        self._pipe.submit(self, view[start:stop], 0, 0)
        if self._outstanding:
            self._pipe.note(self._requests.note)
        self._streaming = not done
        if done and not self._outstanding:  # answered before it had ended
            self._part_if_clean()
        return stop

    def _break_off(self, error: ProtocolError) -> None:
        """The client does not speak the protocol: say so if that can be said now, and close."""
        if self._streaming and self._pipe is not None and not self._pipe.begun:
            self._outstanding = 0  # half a request has gone out: the pipe ends here
            self._part(clean=False)
        if self._outstanding:
            self.close("protocol_error")
        else:
            self.say(error.reply or self._pool.framer.error("protocol_error"))
            self.finish("protocol_error")

    # --- what pipes and the pool tell ----------------------------------------------------------

    def replied(self, pipe: Pipe, done: int) -> None:
        """So many replies have come whole."""
        last = pipe.parser.last
        self._outstanding -= done
        if self._gone:
            return
        if self._outstanding:
            if self.held is not None and self._outstanding < self._limit:
                self.go_on()
            return
        refused, self._switching = self._switching and pipe.parser.failed, False
        if last or self._requests.close_after:
            self.finish("server_eof" if last else "client_eof")
        elif refused:  # the pipe is not what the client's setup says, nor is the client's state
            self.finish("refused_request")
        elif not self._streaming:
            self._settled()

    def _settled(self) -> None:
        """Nothing is outstanding: give a pipe back, act on what had to wait for this."""
        self._part_if_clean()
        self.go_on()
        self.end_if_done()

    def end_if_done(self) -> None:
        """End a client that has closed its half, once it is owed nothing."""
        if self._eof and not (
            self._outstanding or self._waiting or self._streaming or self.pending
        ):
            self.finish("client_eof")
        elif self._draining:
            self.finish_when_idle()

    def _part_if_clean(self) -> None:
        if self._alone and not (self._requests.pinned or self._sticky or self.pending):
            self._part(clean=True)

    def pipe_has_room(self) -> None:
        """The pipe takes requests again."""
        self.go_on()

    def pipe_lost(self, pipe: Pipe, replies: int, *, begun: bool, why: str) -> None:
        """The pipe is gone, and with it so many replies."""
        self._outstanding -= replies
        if self._pipe is pipe:
            self._pipe = None
            self._alone = self._used = self._switching = False
        if self._gone or self._ending is not None:
            return
        error = self._pool.framer.error(why) if replies else b""
        fatal = begun or self._streaming or bool(self._requests.pinned)
        fatal = fatal or bool(replies and (not error or self._pool.framer.error_closes))
        if not begun and error:
            self.say(error if fatal else error * replies)
        if fatal:
            self.finish("server_lost")
        elif not self._outstanding:
            self._settled()

    def denied(self, why: CloseReason, reply: bytes = b"") -> None:
        """There is no pipe for this client; `reply` is what the server said to its setup."""
        self._waiting = False
        self.say(reply or self._pool.framer.error(why))
        self.finish(why)

    def tunnel(self, pipe: Pipe) -> None:
        """The reply just given has made the connection a tunnel."""
        self._outstanding = 0
        held = self.held if self.held is not None else b""
        with memoryview(held) as view:
            self._become_tunnel(pipe, view, pipe.take_unread())

    def _become_tunnel(self, pipe: Pipe, up: memoryview, down: memoryview) -> None:
        """Relay blindly from here on: a plain session takes over both connections."""
        if self._gone:
            pipe.close()
            self.listener.backend.freed(pipe.target)
            return
        slabs = self.loop.slabs
        if self._blocked or len(slabs.spare) < bool(up) + bool(down):
            self._alone = False
            pipe.close()
            self.listener.backend.freed(pipe.target)
            self.close("slow_client")
            return
        self._gone = True
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
        if self.starved:
            self.starved = False
            self.update()
        if now >= self._until:
            self._until = float("inf")
            if self._waiting:
                self._pool.stop_waiting(self)
                self.denied("queue_timeout")
            elif self._lingering:
                self.close(self._ending or "client_eof")
            elif self._held_up is not None:
                self.close("slow_client")
        limit = self.listener.config.idle_timeout_s or float("inf")
        if now >= self.active_at + limit:
            self.close("idle_timeout")
        return 0.0 if self._gone else min(self._until, self.active_at + limit)

    def client_ended(self) -> None:
        """The client has closed its half: what it asked for before is answered first."""
        self._eof = True
        if self._lingering or self._streaming:  # a request that will never end
            self.close(self._ending or "client_eof")
        else:
            self.end_if_done()
            self.update()

    def keep(self) -> None:
        """Go on: the worker no longer drains."""
        self._draining = False

    def finish_when_idle(self) -> None:
        """End at the next moment at which nothing is owed: the worker drains."""
        self._draining = True
        owed = self._outstanding or self._waiting or self._streaming or self._blocked
        if not (owed or self.held or self._requests.pinned):
            self.finish("drained")

    def _part(self, *, clean: bool) -> None:
        """Give the pipe that was ours alone back; `clean` if all replies to it have come."""
        pipe, self._pipe = self._pipe, None
        used, self._alone, self._used = self._used, False, False
        if pipe is not None:
            self._pool.give_back(pipe, clean=clean, used=used)

    def _forget(self) -> None:
        self.loop.wheel.disarm(self)
        self.forget_input()
        if self._waiting:
            self._pool.stop_waiting(self)

    def close(self, reason: CloseReason) -> None:
        """Leave: replies still due will be thrown away, a pipe that is not clean is closed."""
        if self._gone:
            return
        self._gone = True
        self._forget()
        self.drop_output()
        self.loop.close(self.client)
        if self._alone:
            self._part(clean=not (self._outstanding or self._streaming))
        self.unblocked()
        self.listener.closed(self, self._ending or reason)

    def may_read(self) -> bool:
        """Whether what the client sends could go somewhere."""
        if self._streaming and self._pipe is not None and self._pipe.full:
            return False
        return not (
            self._eof
            or self._blocked
            or self._waiting
            or self.starved
            or self.pending is not None
            or self._ending is not None
            or (self.held is not None and (self._switching or self._outstanding >= self._limit))
        )

    def rearm(self) -> None:
        """Be looked at when the next deadline comes."""
        due = self.loop.now + TICK_S if self.starved else self._until
        idle_s = self.listener.config.idle_timeout_s
        due = min(due, self.active_at + idle_s) if idle_s else due
        self.loop.wheel.disarm(self)
        self.loop.wheel.arm(self, due)
