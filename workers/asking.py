"""What a client asks: requests from its input, the quick way or with care, onto a pipe.

client ─▶ quick: one ordinary request, onto the pipe where requests gather
└─▶ scan ─▶ run of whole requests ─▶ pipe.submit
└─▶ special: answered, refused, switched, pinned, tunnelled: one after all
replies before it have come, so that order needs no bookkeeping
"""

from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import ProtocolError, Special, Verdict
from workers.client import ALONE, BLOCKED, ENDING, GONE, STREAMING, SWITCHING, WAITING
from workers.dealing import Dealer
from workers.pipe import Pipe
from workers.pool import Pool
from workers.pool_client import PoolClient

if TYPE_CHECKING:
    from workers.listener import Listener

_HELD_UP = WAITING | GONE | ENDING | SWITCHING
"""Nothing more goes out for now; SWITCHING and STREAMING exclude each other."""


class Asker(PoolClient):
    """A client's requests; SharedSession adds what becomes of them, and of the client."""

    __slots__ = ("_limit", "_undo")

    def __init__(self, listener: "Listener", client: socket, pool: Pool) -> None:
        """Take over an accepted, non-blocking client."""
        super().__init__(listener, client, pool)
        self._limit = min(pool.framer.in_flight, listener.config.max_pipelined)
        self._undo: Callable[[], None] | None = None  # while SWITCHING: what to do if it fails

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
        if pool.quick(buffer, 0, count):
            pipe = pool.gathering
            if pipe is None or pipe.setup is not self.setup:
                pipe = pool.pick(self.setup)
            if pipe is not None:
                self.active_at = loop.now
                self.bytes[0] += count
                self.pipe = pipe
                self.outstanding = 1
                pipe.gather(self, buffer[:count])
                return
        self.take_in(buffer, view, count)

    def process(self, buffer: bytearray, view: memoryview, start: int, end: int) -> int:
        """Send on what can be; returns up to where."""
        while start < end and not self.state & _HELD_UP:
            if self.state & STREAMING:
                start = self._stream(buffer, view, start, end)
                continue
            if self.outstanding >= self._limit:
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
                self._submit(pipe, view, start, stop, replies)
            start = stop
            if special is None:
                if start == end or self.outstanding >= self._limit:  # then `need` is nobody's
                    return start
                if self.requests.need and not self._stream_begins(start, end):
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

    def _submit(self, pipe: Pipe, view: memoryview, start: int, stop: int, replies: int) -> None:
        requests, forward = self.requests, self.requests.forward
        self.outstanding += replies
        what = view[start:stop] if forward is None else forward
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
                self.finish_refused(special.why)
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
            if self.note is not None:  # what goes through a tunnel is not submitted
                self.note.submitted(pipe.target, 1)
            self.become_tunnel(pipe, view[start:end])
            return end
        if verdict == Verdict.SWITCH:
            self.state |= SWITCHING
        self.used |= not special.clean and (self.state & (ALONE | SWITCHING)) != SWITCHING
        self._submit(pipe, view, start, special.end, special.replies)
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
        return Special(Verdict.REFUSE, end, error.kind, reply)

    def _break_off(self, refusal: Special) -> None:
        """Half a request has gone out and cannot go on: the pipe ends here, and the client."""
        answering = self.pipe is not None and self.pipe.begun
        self.outstanding = 0
        self.part(clean=False)
        if not answering:
            self.say(refusal.reply)
        self.finish_refused(refusal.why)

    # --- for the session -----------------------------------------------------------------------

    def become_tunnel(self, pipe: Dealer, up: memoryview) -> None:
        """Relay blindly from here on."""
        raise NotImplementedError
