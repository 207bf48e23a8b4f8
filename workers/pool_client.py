"""Which pipe a client has: none, a share of one while replies are due, or one of its own.

    pipe_for ─▶ pick / lease ─▶ the pipe
                  └─ none ─▶ waiting, in the pool's queue ─▶ granted ─▶ it goes on with its input
                                                          ├▶ denied ─▶ told why, closed
                                                          └▶ refused ─▶ the server's answer to its
                                                             setup is the answer to what waited

With replies outstanding the client stays on its pipe. One that it has alone goes back (`part`) when
the framer says that nothing of the client's is left on it, or is closed.
"""

from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING

from aegis.framers.contract import QUIT, Setup, Special, Verdict
from aegis.lifecycle import CloseReason
from workers.client import ALONE, WAITING
from workers.intake import Intake
from workers.tcp import RawSocket, has_unread

if TYPE_CHECKING:
    from workers.dealing import Dealer
    from workers.listener import Listener
    from workers.pipe import Pipe
    from workers.pool import Pool

_REFUSALS: dict[str, CloseReason] = {QUIT: "refused_request", "frame_too_large": "frame_too_large"}


class PoolClient(Intake):
    """The part of a client that a pool and its pipes deal with."""

    __slots__ = (
        "_granted", "outstanding", "pipe", "pool", "refusal", "requests", "setup", "since",
        "sticky", "used", "wants_alone",
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
        self.used = False
        """The pipe it has alone may carry its state."""
        self.outstanding = 0
        """Replies due."""
        self.wants_alone = False
        """While it waits: whether for a pipe of its own."""
        self.since = 0.0
        """While it waits: since when."""
        self.refusal = b""
        """What the server said to the setup that the switch which is pending needs."""
        self._granted: Pipe | None = None  # what the pool gave it when its turn came

    def pipe_for(self, *, alone: bool) -> "Pipe | None":
        """Return the pipe the next request goes to; None: the client waits now, or is denied."""
        if self.outstanding or self.state & ALONE:
            return self.pipe
        if self._granted is not None:
            self.pipe, self._granted = self._granted, None
            return self.pipe
        if alone:
            self.pipe = self.pool.lease(self.setup, self)
            if self.pipe is not None:
                self.state |= ALONE
        else:
            self.pipe = self.pool.pick(self.setup)
        if self.pipe is None:
            self.state |= WAITING
            self.wants_alone, self.since = alone, self.loop.now
            self.until = self.loop.now + self.listener.backend.config.queue_timeout_s
            if self.pool.wait(self):
                self.rearm()
            else:
                self.denied("queue_full")
        else:
            self.setup = self.pipe.setup  # equal; the same from now on, as the quick way asks
            self.pool.figures.hits += 1
        return self.pipe

    def moved(self, pipe: "Pipe") -> None:
        """Requests of ours that were not written go by another pipe."""
        self.pipe = pipe
        if self.note is not None:
            self.note.submitted(pipe.target, 0)

    def granted(self, pipe: "Pipe") -> None:
        """It is this client's turn; a pipe it wanted alone is its own now."""
        self._stop_waiting()
        if self.wants_alone:
            self.state |= ALONE
            self.pipe = pipe
        else:
            self.pipe = self._granted = pipe
        self.go_on()
        self._granted = None

    def _stop_waiting(self) -> None:
        self.state &= ~WAITING
        self.until = float("inf")

    def denied(self, why: CloseReason) -> None:
        """There is no pipe for this client: tell it, and close."""
        self.state &= ~WAITING
        self.say(self.pool.framer.error(why))
        self.finish(why)

    def refused(self, reply: bytes) -> None:
        """The server has refused the client's setup: that is the answer to what waited for it."""
        self._stop_waiting()
        stop, replies, special = self.pending or (0, 0, None)
        if not replies and special is not None and special.verdict == Verdict.SWITCH:
            self.refusal = reply
            self.go_on()
        elif replies and special is None and not self.pool.framer.error_closes:
            self.pending = (0, 0, Special(Verdict.ANSWER, stop, "", reply * replies))
            self.go_on()
        else:
            self.say(reply)
            self.finish("refused_request")

    def has_said_all(self) -> bool:
        """Whether the client has asked to be closed, and nothing has come after that."""
        plain = type(self.client) is RawSocket  # TLS has a goodbye of its own
        return self.requests.close_after and plain and not has_unread(self.client)

    def finish_refused(self, kind: str) -> None:
        """Close for what is refused: an error, unless there is another reason for that word."""
        reason = _REFUSALS.get(kind, "protocol_error")
        if reason == "protocol_error":
            self.pool.count_error("client", kind)
        self.finish(reason)

    def switch_back(self, undo: Callable[[], None] | None) -> None:
        """The server has refused a switch: be what we were, if the framer can tell."""
        if undo is None:
            self.finish("refused_request")
        else:
            undo()
            self.setup = self.requests.setup

    def part(self, *, clean: bool) -> None:
        """Give the pipe that was ours alone back; `clean` if all replies to it have come."""
        assert self.state & ALONE
        pipe, self.pipe = self.pipe, None
        used, self.used = self.used, False
        self.state &= ~ALONE
        if pipe is not None:
            self.pool.give_back(pipe, clean=clean, used=used)

    def part_if_clean(self) -> None:
        """Give the pipe back unless the client goes on needing one of its own."""
        if self.state & ALONE and not (self.requests.pinned or self.sticky or self.pending):
            self.part(clean=True)

    # --- what pipes tell; for the session ------------------------------------------------------

    def pipe_has_room(self) -> None:
        """The pipe takes requests again."""
        self.go_on()

    def replied(self, pipe: "Dealer", done: int) -> None:
        """So many replies have come whole."""
        raise NotImplementedError

    def pipe_lost(self, pipe: "Pipe", replies: int, *, begun: bool, why: str) -> None:
        """The pipe is gone, and with it so many replies."""
        raise NotImplementedError

    def tunnel(self, pipe: "Dealer") -> None:
        """The reply just given has made the connection a tunnel."""
        raise NotImplementedError
