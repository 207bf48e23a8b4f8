"""A client's connection and what serves it, from accept to close; here without sharing.

    accepted ─▶ dialling ──connected──▶ relaying: up (client ─▶ server), down (server ─▶ client)
                  │  ▲ refused: next server         │
                  └──┘                              ▼
                  └─ none left ───────────────▶ closed, once, with a reason

While it dials the client's fd is in no epoll set: its bytes wait in the kernel, and the connect
deadline bounds how long its death goes unnoticed. Each fd's registration is derived from the states
of the two flows (`wait`) and changes only when they do.

A reset travels on as a reset: SO_LINGER with zero seconds makes close(2) send RST (socket(7)). One
that is met while *writing* first lets the other direction finish, because a server that answers
early and closes with unread bytes resets the connection behind its answer (RFC 9112, 9.6).
"""

import errno
import logging
import socket
import struct
from typing import TYPE_CHECKING

from aegis.figures import WAIT_BOUNDS_S, Figures
from aegis.lifecycle import CloseReason
from aegis.limits import TICK_S
from workers.backend import Server
from workers.first_bytes import FirstBytes
from workers.flow import BLOCKED, ENDED, OPEN, Flow
from workers.loop import ERROR, HANGUP, READ, SILENCED, WRITE, Loop
from workers.tcp import LOST, SHORTAGES, unsent
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.listener import Listener
    from workers.session_log import Note

UP, DOWN = 0, 1
_RESETS: tuple[CloseReason, ...] = ("client_reset", "server_reset")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
log = logging.getLogger(__name__)


class Session:
    """One session; made by its listener, which it tells when it has closed."""

    __slots__ = (
        "_client_mask", "_dialled_at", "_down", "_first_end", "_give_up_at", "_look_at",
        "_queued", "_resetting", "_server_mask", "_tried", "_up", "accepted_at", "active_at",
        "bytes", "client", "listener", "loop", "note", "server", "slot", "target",
        "worker_figures",
    )  # fmt: skip

    def __init__(self, listener: "Listener", client: socket.socket) -> None:
        """Take over an accepted, non-blocking client; `dial` comes next."""
        self.listener = listener
        self.loop: Loop = listener.loop
        self.worker_figures: Figures = listener.worker_figures
        self.client = client
        self.bytes = listener.figures.bytes
        """Read from [client, server], by this session alone if it is logged."""
        self.note: Note | None = None
        """What the session log will say, if it is logged."""
        self.server: socket.socket | None = None
        self.target: Server | None = None
        self.slot = UNARMED
        self.active_at = self.accepted_at = self.loop.now
        self._tried = 0
        self._up: Flow | None = None
        self._down: Flow | None = None
        self._first_end: CloseReason | None = None
        self._queued = False  # waiting for room in the backend's budget
        self._look_at = float("inf")  # when the wheel looks at it, at the latest
        self._resetting: CloseReason | None = None  # until the client has taken what it was sent

    # --- dialling ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take a connection that was opened ahead, or dial as soon as the budget has room."""
        warm = self.listener.warm
        spare = warm.take() if warm is not None else None
        if spare is not None:
            self.server, self.target = spare
            if self.note is not None:
                self.note.submitted(self.target, 0)
            self._relay(self.server)
            return
        backend = self.listener.backend
        if backend.claim(self):
            self.dial()
            return
        self._queued = True
        if self.note is not None:
            self.note.queued(backend.claims - 1, self.loop.now)
        self._give_up_at = self.loop.now + backend.config.queue_timeout_s
        self._rearm(self._give_up_at)

    def room(self) -> None:
        """There is room in the budget."""
        self._queued = False
        waited_s = self.loop.now - self.queue()[1]
        self.listener.backend.figures.wait_seconds.observe(waited_s, WAIT_BOUNDS_S)
        self.dial()

    def queue(self) -> tuple[int, float]:
        """Tell, while this session waits for room, since when it does."""
        return 1, self._give_up_at - self.listener.backend.config.queue_timeout_s

    def dial(self, failure: CloseReason = "connect_failed") -> None:
        """Connect to the next server; with none left to try, close for how the last one failed."""
        conf = self.listener.backend.config
        while self._tried.bit_count() < conf.connect_attempts:
            target = self.listener.backend.pick(self._tried)
            if target is None:
                break
            self._tried |= target.bit
            self._give_up_at = self.loop.now + conf.connect_timeout_s
            if self._connect(target):
                return
        self.close(failure)

    def _connect(self, target: Server) -> bool:
        """Start one attempt; False when it has failed already."""
        self._dialled_at = self.loop.now
        if self.note is not None:
            self.note.dialling(target, self.loop.now)
        try:
            sock, code = self.listener.backend.dial(target)
        except OSError as error:
            code = error.errno or errno.EIO
            self.listener.shortage()
        else:
            if code in {0, errno.EINPROGRESS}:
                self.listener.backend.opened(target)
                self.target, self.server = target, sock
                self._rearm(self._give_up_at)
                self.loop.add(sock.fileno(), WRITE, self, self)
                return True
            sock.close()
        if code in SHORTAGES:
            self.target = target  # without a socket: `expire` tries it again
            self._rearm(self.loop.now + TICK_S)
            return True
        target.count_error(code)
        return False

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - SO_ERROR says what the mask cannot
        """The connect has ended, one way or the other."""
        assert self.server is not None
        assert self.target is not None
        code = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._attempt_failed(code)
            self.dial()
            return
        self.target.count_connect(self.loop.now - self._dialled_at)
        if self.note is not None:
            self.note.connected(self.loop.now)
        self._relay(self.server)

    def on_readable(self, mask: int) -> None:
        """A failed connect may come as HANGUP and ERROR without WRITE; nothing else can be read."""
        if not mask & WRITE:
            self.on_writable(mask)

    def _relay(self, server: socket.socket) -> tuple[Flow, Flow]:
        self._up = up = Flow(self, self.client, server, UP)
        self._down = down = Flow(self, server, self.client, DOWN)
        self._client_mask = self._server_mask = READ
        self.active_at = self.loop.now
        self.loop.hand_over(server.fileno(), READ, FirstBytes(self, down), up)
        self.loop.add(self.client.fileno(), READ, up, down)
        self._rearm(self.active_at + self._limit()[0])
        return up, down

    def take_over(
        self, server: socket.socket, target: Server, up: memoryview, down: memoryview
    ) -> None:
        """Relay between connections that others have used; `up` and `down` go out first.

        Both fds are in no epoll set, and two slabs are to spare.
        """
        self.server, self.target = server, target
        self._dialled_at = self._give_up_at = self.loop.now
        self.loop.add(server.fileno(), READ, self, self)
        up_flow, down_flow = self._relay(server)
        self.loop.read_by(server.fileno(), down_flow)  # what the server said first is long past
        up_flow.preload(up)
        down_flow.preload(down)
        self.wait()

    def _attempt_failed(self, code: int) -> None:
        assert self.target is not None
        assert self.server is not None
        target = self.target
        target.count_error(code)
        self.loop.close(self.server)
        self.server = self.target = None
        self.listener.backend.freed(target, self.loop)

    # --- relaying ------------------------------------------------------------------------------

    def wait(self) -> None:
        """Register each fd for what the flows' states call for, where that has changed."""
        assert self._up is not None
        assert self._down is not None
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
        assert self._down is not None
        if (self._down if flow.way == UP else self._up).state == ENDED:
            self._reset(broken)
            return
        self._first_end = broken
        self.wait()
        self._rearm(self.active_at + self._limit()[0])

    def source_ended(self, flow: Flow) -> None:
        """Pass an end on, after all that came before it; after the second the session is over."""
        assert self._up is not None
        assert self._down is not None
        flow.end()
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
        self._rearm(self.active_at + self._limit()[0])

    def _note(self, error: OSError) -> None:
        if not isinstance(error, ConnectionError) and error.errno not in LOST:
            log.warning("session of listener %s: %s", self.listener.config.name, error)

    # --- time and end --------------------------------------------------------------------------

    def expire(self, now: float) -> float:
        """Give up a connect, end an idle session; tell when to look again."""
        self._look_at = float("inf")  # the wheel has let go of it
        due = self._end_if_overdue(now)
        if due:
            self._look_at = due
        return due

    def _end_if_overdue(self, now: float) -> float:
        if self._resetting is not None:
            if now < self._give_up_at and unsent(self.client):
                return now + TICK_S
            self._abort(self._resetting)
        elif self._up is not None:
            limit, reason = self._limit()
            due = self.active_at + limit
            if now < due:
                return due
            (self._abort if reason in _RESETS else self.close)(reason)
        elif self._queued:
            if now < self._give_up_at:
                return self._give_up_at
            self.close("queue_timeout")
        elif now < self._give_up_at:
            if self.server is not None:
                return self._give_up_at
            assert self.target is not None
            if not self._connect(self.target):  # after a shortage
                self.dial()
        else:
            if self.server is not None:
                self._attempt_failed(errno.ETIMEDOUT)
            elif self.target is not None:  # there was no room for as long as a connect may take
                self.target.count_error(errno.ETIMEDOUT)
            self.dial("connect_timeout")
        return 0.0

    def _limit(self) -> tuple[float, CloseReason]:
        """Seconds of silence that this state allows, and the reason it ends for."""
        assert self._up is not None
        assert self._down is not None
        limit: float
        reason: CloseReason
        if self._first_end in _RESETS:
            limit, reason = self.listener.config.client_fin_timeout_s, self._first_end
        elif self._up.state == ENDED:
            limit, reason = self.listener.backend.config.server_fin_timeout_s, "server_fin_timeout"
        elif self._down.state == ENDED:
            limit, reason = self.listener.config.client_fin_timeout_s, "client_fin_timeout"
        else:
            limit, reason = self.listener.config.idle_timeout_s, "idle_timeout"
        return limit or float("inf"), reason

    def _rearm(self, due: float) -> None:
        """Be looked at by then; being looked at too early costs less than moving each time."""
        if due < self._look_at:
            self._look_at = due
            self.loop.wheel.disarm(self)
            self.loop.wheel.arm(self, due)

    def _reset(self, reason: CloseReason) -> None:
        """Pass a reset on; a server's, once the client has taken what was written before it.

        A reset throws away what is still in the send queue (tcp(7)), and with it the end of an
        answer that the server gave before it reset. A client's means that nobody wants an answer.
        """
        if reason == "client_reset" or not unsent(self.client):
            self._abort(reason)
            return
        for flow in (self._up, self._down):
            assert flow is not None
            flow.end()
            self._silence(flow.way)
        self._resetting = reason
        patience_s = self.listener.config.client_fin_timeout_s
        self._give_up_at = self.loop.now + (patience_s or float("inf"))
        self._rearm(self.loop.now + TICK_S)

    def _abort(self, reason: CloseReason) -> None:
        for sock in (self.client, self.server):
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close(reason)

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """End after a handler raised."""
        self._abort("error")

    def close(self, reason: CloseReason) -> None:
        """Close both sides, give everything back, count the reason."""
        loop = self.loop
        loop.wheel.disarm(self)
        loop.close(self.client)
        if self.server is not None:
            assert self.target is not None
            loop.close(self.server)
            self.listener.backend.freed(self.target, self.loop)
        elif self._queued:
            self.listener.backend.give_up(self)
        if self._up is not None and self._down is not None:
            self._up.drop()
            self._down.drop()
            self._up = self._down = None  # the flows know the session: leave no cycle
        self.listener.closed(self, reason)
