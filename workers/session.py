"""A client's connection and what serves it, from accept to close; here without sharing.

    accepted ─▶ dialling ──connected──▶ relaying: up (client ─▶ server), down (server ─▶ client)
                  │  ▲ refused: next server         │
                  └──┘                              ▼
                  └─ none left ───────────────▶ closed, once, with a reason

How it comes to a server is in dialling.py. Each fd's registration is derived from the states of the
two flows (`wait`) and changes only when they do.

A reset travels on as a reset: SO_LINGER with zero seconds makes close(2) send RST (socket(7)). One
that is met while *writing* first lets the other direction finish, because a server that answers
early and closes with unread bytes resets the connection behind its answer (RFC 9112, 9.6).
"""

import logging
import socket

from aegis.lifecycle import CloseReason
from aegis.limits import TICK_S
from workers.bulk import BulkFlow
from workers.dialling import DOWN, UP, Dialling
from workers.first_word import FirstWord
from workers.flow import BLOCKED, ENDED, OPEN, Flow
from workers.loop import ERROR, HANGUP, READ, SILENCED, WRITE
from workers.refusal import vanish
from workers.target import Server
from workers.tcp import LOST, RawSocket, keep_alive, reset_on_close, unsent
from workers.timers import WATCHED

_RESETS: tuple[CloseReason, ...] = ("client_reset", "server_reset")
log = logging.getLogger(__name__)


class Session(Dialling):
    """One session; made by its listener, which it tells when it has closed."""

    __slots__ = ("_client_mask", "_down", "_first_end", "_resetting", "_server_mask")

    @property
    def relays(self) -> bool:
        """Whether it has come to a server."""
        return self._up is not None

    @property
    def has_ended_half(self) -> bool:
        """Whether one direction of a session that relays is over."""
        return self._first_end is not None

    # --- relaying ------------------------------------------------------------------------------

    def _relay(self, server: socket.socket, *, registered: bool) -> None:
        self._up = up = Flow(self, self.client, server, UP)
        self._down = down = Flow(self, server, self.client, DOWN)
        self._first_end: CloseReason | None = None
        self._resetting: CloseReason | None = None  # until the client has taken what it was sent
        self._client_mask = self._server_mask = READ
        loop = self.loop
        self.active_at = loop.now
        if self._said is not None:
            up.park(*self._said)
            self._said = None
            self._client_mask, self._server_mask = 0, READ | WRITE
        assert self.target is not None
        reader = FirstWord(self, self.target, down)
        (loop.hand_over if registered else loop.add)(server.fileno(), self._server_mask, reader, up)
        loop.add(self.client.fileno(), self._client_mask, up, down)
        if self.slot != WATCHED:
            self._rearm(self.active_at + self._limit()[0])

    def take_over(
        self, server: socket.socket, target: Server, up: memoryview, down: memoryview
    ) -> None:
        """Relay between connections that others have used; `up` and `down` go out first.

        Both fds are in no epoll set, and two slabs are to spare.
        """
        self.server, self.target = server, target
        self._dialled_at = self._give_up_at = self.loop.now
        self._relay(server, registered=False)
        assert self._up is not None
        # Without a FirstWord: what the server said first is long past.
        self.loop.hand_over(server.fileno(), self._server_mask, self._down, self._up)
        self._up.preload(up)
        self._down.preload(down)
        self.wait()

    def wait(self) -> None:
        """Register each fd for what the flows' states call for, where that has changed."""
        assert self._up is not None
        assert self.server is not None
        up, down = self._up.state, self._down.state
        mask = (READ if up == OPEN else 0) | (WRITE if down == BLOCKED else 0)
        if mask != self._client_mask:
            self._client_mask = self.loop.switch(self.client.fileno(), self._client_mask, mask)
        mask = (READ if down == OPEN else 0) | (WRITE if up == BLOCKED else 0)
        if mask != self._server_mask:
            self._server_mask = self.loop.switch(self.server.fileno(), self._server_mask, mask)

    def paused_event(self, way: int, mask: int) -> None:
        """Handle what epoll reports of a flow's source while the flow does not read.

        A client that was reset hears nothing any more, so the session goes now. Of a server there
        may be bytes to pass on before its reset (as long as the client takes them), and of either
        before a hang-up: they are found when the flow reads again, and until then the fd is
        silenced, for epoll would report it every turn.
        """
        if mask & ERROR and way == UP:
            self._reset("client_reset")
        elif mask & ERROR:
            self._first_end = "server_reset"
            self._silence(way)
            self._rearm(self.active_at + self._limit()[0])
        elif mask & HANGUP:
            self._silence(way)

    def _silence(self, way: int) -> None:
        assert self.server is not None
        if way == UP and self._client_mask != SILENCED:
            self._client_mask = self.loop.switch(self.client.fileno(), READ, SILENCED)
        elif way == DOWN and self._server_mask != SILENCED:
            self._server_mask = self.loop.switch(self.server.fileno(), READ, SILENCED)

    def source_broke(self, way: int, error: OSError) -> None:
        """A read failed: reset the other side."""
        self._note(error)
        self._reset("client_reset" if way == UP else "server_reset")

    def sink_broke(self, flow: Flow, error: OSError) -> None:
        """A write failed: nothing more goes there, but what it still says is passed on first."""
        self._note(error)
        flow.end()
        broken: CloseReason = "server_reset" if flow.way == UP else "client_reset"
        assert self._up is not None
        if (self._down if flow.way == UP else self._up).state == ENDED:
            self._reset(broken)
            return
        self._first_end = broken
        self.wait()
        self._rearm(self.active_at + self._limit()[0])

    def source_ended(self, flow: Flow) -> None:
        """Pass an end on, after all that came before it; after the second the session is over."""
        assert self._up is not None
        flow.state = ENDED  # it was OPEN, so there is nothing to drop
        if self._first_end in _RESETS:
            self._reset(self._first_end)  # not a clean end, however it looks from here
            return
        if self._first_end is None:
            self._first_end = "client_eof" if flow.way == UP else "server_eof"
        if self._up.state == ENDED and self._down.state == ENDED:
            self.close(self._first_end)  # says to the sink what a shutdown would
            return
        try:
            flow.sink.shutdown(socket.SHUT_WR)
        except OSError as error:  # ENOTCONN: it was reset meanwhile
            self.sink_broke(flow, error)
            return
        self.wait()
        self.active_at = self.loop.now
        if self.slot != WATCHED:
            self._rearm(self.active_at + self._limit()[0])

    def promote(self, flow: Flow) -> bool:
        """Have a flow that carries a lot do so without copying, if it is between plain sockets."""
        plain = type(flow.source) is RawSocket and type(flow.sink) is RawSocket
        return plain and self.exchange(flow, BulkFlow(self, flow))

    def exchange(self, before: Flow, after: Flow) -> bool:
        """Let another flow go on, OPEN, for one that holds nothing; not while a third reads."""
        done = self.loop.exchange(before, after, before.source.fileno(), before.sink.fileno())
        if done and before.way == UP:
            self._up = after
        elif done:
            self._down = after
        return done

    def _note(self, error: OSError) -> None:
        if not isinstance(error, ConnectionError) and error.errno not in LOST:
            log.warning("session of listener %s: %s", self.listener.config.name, error)

    # --- time and end --------------------------------------------------------------------------

    def expire(self, now: float) -> float:
        """Give up a connect, end an idle session; tell when to look again."""
        if self.server is not None and self._look_at == float("inf"):
            # The first look, so it is none of those that have gone within a tick.
            keep_alive(self.server, self.backend.config.keepalive_s)
        self._look_at = float("inf")  # the wheel has let go of it
        due = self._end_if_overdue(now)
        if due:
            self._look_at = due
        return due

    def _end_if_overdue(self, now: float) -> float:
        if self._up is None:
            return self.expire_dialling(now)
        if self._resetting is not None:
            if now < self._give_up_at and unsent(self.client):
                return now + TICK_S
            self.abort(self._resetting)
        else:
            limit, reason = self._limit()
            due = self.active_at + limit
            if now < due:
                return due
            (self.abort if reason in _RESETS else self.close)(reason)
        return 0.0

    def _limit(self) -> tuple[float, CloseReason]:
        """Seconds of silence that this state allows, and the reason it ends for."""
        assert self._up is not None
        limit: float
        reason: CloseReason
        if self._first_end in _RESETS:
            limit, reason = self.listener.config.client_fin_timeout_s, self._first_end
        elif self._up.state == ENDED:
            limit, reason = self.backend.config.server_fin_timeout_s, "server_fin_timeout"
        elif self._down.state == ENDED:
            limit, reason = self.listener.config.client_fin_timeout_s, "client_fin_timeout"
        else:
            limit, reason = self.listener.config.idle_timeout_s, "idle_timeout"
        return limit or float("inf"), reason

    def _reset(self, reason: CloseReason) -> None:
        """Pass a reset on; a server's, once the client has taken what was written before it.

        A reset throws away what is still in the send queue (tcp(7)), and with it the end of an
        answer that the server gave before it reset. A client's means that nobody wants an answer.
        """
        if reason == "client_reset" or not unsent(self.client):
            self.abort(reason)
            return
        assert self._up is not None
        self._up.end()
        self._down.end()
        self._silence(UP)
        self._silence(DOWN)
        self._resetting = reason
        patience_s = self.listener.config.client_fin_timeout_s
        self._give_up_at = self.loop.now + (patience_s or float("inf"))
        self._rearm(self.loop.now + TICK_S)

    def refuse(self, reason: CloseReason) -> None:
        """End for what the client does not do; whoever is to be dropped hears nothing of it."""
        if self.listener.config.refusal == "drop":
            vanish(self.client)
        self.close(reason)

    def abort(self, reason: CloseReason) -> None:
        """Reset both sides."""
        for sock in (self.client, self.server):
            if sock is not None:
                reset_on_close(sock)
        self.close(reason)

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """End after a handler raised."""
        self.abort("error")

    def close(self, reason: CloseReason) -> None:
        """Close both sides, give everything back, count the reason."""
        loop = self.loop
        loop.wheel.disarm(self)
        loop.close(self.client)
        if self.server is not None:
            assert self.target is not None
            self.backend.close(self.target, self.server, loop)
            if reason == "server_reset":
                self.target.failed(reason)
        elif self._queued:
            self.backend.give_up(self)
        if self._up is not None:
            self._up.drop()
            self._down.drop()
            self._up = None  # the flows know the session: leave no cycle
            del self._down
        elif self._said is not None:
            loop.slabs.release(self._said[0])
        self.listener.closed(self, reason)
