"""Which pipe a client has: none, a share of one while replies are due, or one of its own.

    pipe_for ─▶ pick / lease ─▶ the pipe
                  └─ none ─▶ waiting, in the pool's queue ─▶ granted ─▶ it goes on with its input
                                                          └▶ denied ─▶ told why, closed, unless
                                                             it asked for a switch: not switched

With replies outstanding the client stays on its pipe. One that it has alone goes back (`part`) when
the framer says that nothing of the client's is left on it, or is closed.
"""

from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import Setup, Special, Verdict
from aegis.lifecycle import CloseReason
from workers.intake import Intake

if TYPE_CHECKING:
    from workers.listener import Listener
    from workers.pipe import Pipe
    from workers.pool import Pool


class PoolClient(Intake):
    """The part of a client that a pool and its pipes deal with."""

    __slots__ = (
        "_granted", "alone", "outstanding", "pipe", "pool", "refusal", "requests", "setup", "since",
        "sticky", "used", "waiting", "wants_alone",
    )  # fmt: skip

    def __init__(self, listener: "Listener", client: socket, pool: "Pool") -> None:
        """Take over an accepted, non-blocking client."""
        super().__init__(listener, client)
        self.pool = pool
        self.requests = pool.framer.requests()
        self.setup: Setup = self.requests.setup
        """What its pipes have been set up with."""
        self.sticky = listener.config.pooling == "session"
        """It has one pipe alone from first to last."""
        self.pipe: Pipe | None = None
        """Where replies are due, or what is this client's alone."""
        self.alone = False
        self.used = False
        """The pipe it has alone may carry its state."""
        self.outstanding = 0
        """Replies due."""
        self.waiting = False
        self.wants_alone = False
        """While it waits: whether for a pipe of its own."""
        self.since = 0.0
        """While it waits: since when."""
        self.refusal = b""
        """What the server said to the setup that the switch which is pending needs."""
        self._granted: Pipe | None = None  # what the pool gave it when its turn came

    def pipe_for(self, *, alone: bool) -> "Pipe | None":
        """Return the pipe the next request goes to; None: the client waits now, or is denied."""
        if self.outstanding or self.alone:
            return self.pipe
        if self._granted is not None:
            self.pipe, self._granted = self._granted, None
            return self.pipe
        if alone:
            self.pipe = self.pool.lease(self.setup, self)
            self.alone = self.pipe is not None
        else:
            self.pipe = self.pool.pick(self.setup)
        if self.pipe is None:
            self.waiting, self.wants_alone, self.since = True, alone, self.loop.now
            self.until = self.loop.now + self.listener.backend.config.queue_timeout_s
            if self.pool.wait(self):
                self.rearm()
            else:
                self.denied("queue_full")
        else:
            self.pool.figures.hits += 1
        return self.pipe

    def granted(self, pipe: "Pipe") -> None:
        """It is this client's turn; a pipe it wanted alone is its own now."""
        self.waiting = False
        self.until = float("inf")
        self.alone = self.wants_alone
        self.pipe, self._granted = pipe, None if self.alone else pipe
        self.go_on()
        self._granted = None

    def denied(self, why: CloseReason, reply: bytes = b"") -> None:
        """There is no pipe for this client: tell it, by default in Aegis' words, and close."""
        self.waiting = False
        if reply and self._switch_is_next():
            self.until = float("inf")
            self.refusal = reply
            self.go_on()
            return
        self.say(reply or self.pool.framer.error(why))
        self.finish(why)

    def _switch_is_next(self) -> bool:
        """Whether the client waits for a pipe for a switch, and for nothing before it."""
        if self.pending is None or self.pending[1] or self.pending[2] is None:
            return False
        return self.pending[2].verdict == Verdict.SWITCH

    def switch_back(self, undo: Callable[[], None] | None) -> None:
        """The server has refused a switch: be what we were, if the framer can tell."""
        if undo is None:
            self.finish("refused_request")
        else:
            undo()
            self.setup = self.requests.setup

    def refused(self, reply: bytes) -> None:
        """The server has refused the client's setup: that is the answer to what waited for it."""
        self.waiting = False
        self.until = float("inf")
        if self.pending is not None and not self.pool.framer.error_closes:
            stop, replies, special = self.pending
            if replies and special is None:
                answer = Special(Verdict.ANSWER, stop, "", reply * replies)
                self.pending = (0, 0, answer)
                self.go_on()
                return
        self.denied("refused_request", reply)

    def part(self, *, clean: bool) -> None:
        """Give the pipe that was ours alone back; `clean` if all replies to it have come."""
        assert self.alone
        pipe, self.pipe = self.pipe, None
        used, self.alone, self.used = self.used, False, False
        if pipe is not None:
            self.pool.give_back(pipe, clean=clean, used=used)

    def part_if_clean(self) -> None:
        """Give the pipe back unless the client goes on needing one of its own."""
        if self.alone and not (self.requests.pinned or self.sticky or self.pending):
            self.part(clean=True)

    # --- what pipes tell; for the session ------------------------------------------------------

    def pipe_has_room(self) -> None:
        """The pipe takes requests again."""
        self.go_on()

    def replied(self, pipe: "Pipe", done: int) -> None:
        """So many replies have come whole."""
        raise NotImplementedError

    def pipe_lost(self, pipe: "Pipe", replies: int, *, begun: bool, why: str) -> None:
        """The pipe is gone, and with it so many replies."""
        raise NotImplementedError

    def tunnel(self, pipe: "Pipe") -> None:
        """The reply just given has made the connection a tunnel."""
        raise NotImplementedError
