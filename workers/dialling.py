"""A session that has no server yet: it waits for room, then dials servers in turn.

    begin ─▶ a connection that was opened ahead ───────────────────────────▶ relay
      └─ room ─▶ dial ─▶ connecting ─▶ connected ──────────────────────────▶ relay
          ▲        ▲          └─ refused, silent: the next server ─┐
          └ queued └───────────────────────────────────────────────┴ none left ─▶ closed

While it dials the client's fd is in no epoll set: its bytes wait in the kernel, and the connect
deadline bounds how long its death goes unnoticed.
"""

import errno
import socket
from typing import TYPE_CHECKING

from aegis.lifecycle import CloseReason
from aegis.limits import TICK_S
from workers.backend import Backend, Tried
from workers.balance import client_key
from workers.greeting import Greeting
from workers.loop import WRITE, Loop
from workers.target import Server
from workers.tcp import SHORTAGES
from workers.timers import UNARMED

if TYPE_CHECKING:
    from workers.listener import Listener
    from workers.session_log import Note
    from workers.warm import Warm


class Dialling:
    """The part of a session that finds a server; Session relays once it has one."""

    __slots__ = (
        "_dialled_at", "_give_up_at", "_look_at", "_queued", "_tried", "accepted_at", "active_at",
        "backend", "bytes", "client", "listener", "loop", "note", "server", "slot", "target",
    )  # fmt: skip

    def __init__(self, listener: "Listener", client: socket.socket) -> None:
        """Take over an accepted, non-blocking client; `begin` comes next."""
        self.listener = listener
        self.backend: Backend = listener.backend
        self.loop: Loop = listener.loop
        self.client = client
        self.bytes = listener.figures.bytes
        """Read from [client, server], by this session alone if it is logged."""
        self.note: Note | None = None
        """What the session log will say, if it is logged."""
        self.server: socket.socket | None = None
        self.target: Server | None = None
        self.slot = UNARMED
        self.active_at = self.accepted_at = self.loop.now
        self._tried: Tried = ()
        self._queued = False  # waiting for room in the backend's budget
        self._look_at = float("inf")  # when the wheel looks at it, at the latest

    def begin(self) -> None:
        """Find a server of the listener's backend."""
        self.begin_on(self.backend, self.listener.warm)

    def begin_on(self, backend: Backend, warm: "Warm | None") -> None:
        """Take a connection that was opened ahead, or dial as soon as the budget has room."""
        self.backend = backend
        spare = warm.take() if warm is not None else None
        if spare is not None:
            self.server, self.target = spare
            if self.note is not None:
                self.note.submitted(self.target, 0)
            self._relay(self.server)
            return
        if backend.claim(self):
            self.dial()
        else:
            self._queue()

    def _queue(self) -> None:
        """Wait for room in the budget."""
        backend = self.backend
        self._queued = True
        backend.wait(self)
        if self.note is not None:
            self.note.queued(backend.claims - 1, self.loop.now)
        self._give_up_at = self.loop.now + backend.config.queue_timeout_s
        self._rearm(self._give_up_at)

    def room(self) -> None:
        """There is room in the budget."""
        self._queued = False
        self.dial()

    def dial(self, failure: CloseReason = "connect_failed") -> None:
        """Connect to the next server; with none left to try, close for how the last one failed."""
        backend = self.backend
        conf = backend.config
        while len(self._tried) < conf.connect_attempts:
            target = backend.pick(self._tried, self._key())
            if target is None:
                if backend.has_untried(self._tried):  # but none with room
                    self._queue()
                    return
                break
            self._tried = (*self._tried, target)
            self._give_up_at = self.loop.now + conf.connect_timeout_s
            if self._connect(target):
                return
        self.close(failure)

    def _key(self) -> int:
        """Return what the balance has to know of the client."""
        return client_key(self.listener.ends_of(self)) if self.backend.by_source else 0

    def _connect(self, target: Server) -> bool:
        """Start one attempt; False when it has failed already."""
        self._dialled_at = self.loop.now
        if self.note is not None:
            self.note.dialling(target, self.loop.now)
        try:
            sock, code = self.backend.dial(target)
        except OSError as error:
            code = error.errno or errno.EIO
            self.listener.shortage()
        else:
            if code in {0, errno.EINPROGRESS}:
                self.backend.opened(target)
                self.target, self.server = target, sock
                self._rearm(self._give_up_at)
                self.loop.add(sock.fileno(), WRITE, self, self)
                return True
            sock.close()
        if code in SHORTAGES:
            self.target = target  # without a socket: `expire` tries it again
            self._rearm(self.loop.now + TICK_S)
            return True
        target.connect_failed(code)
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
        # The loop's clock, so as good as a turn is long; the histogram's first bound is above that.
        self.target.connected(self.loop.now - self._dialled_at)
        if self.note is not None:
            self.note.connected(self.loop.now)
        if self.backend.greets:
            greeting = Greeting(self, self.backend, self.server, self.loop)
            greeting.begin(self.target, self.server, self.listener.ends_of(self))
        else:
            self._relay(self.server)

    def speaks(self, sock: socket.socket) -> None:
        """The server is spoken to in TLS from now on."""
        self.server = sock

    def greeted(self) -> None:
        """The server may be given what the client says."""
        assert self.server is not None
        self._relay(self.server)

    def not_greeted(self, error: int | str) -> None:
        """It may not: try the next."""
        self._attempt_failed(error)
        self.dial()

    def on_readable(self, mask: int) -> None:
        """A failed connect may come as HANGUP and ERROR without WRITE; nothing else can be read."""
        if not mask & WRITE:
            self.on_writable(mask)

    def _attempt_failed(self, error: int | str) -> None:
        assert self.target is not None
        assert self.server is not None
        target = self.target
        target.connect_failed(error)
        self.loop.close(self.server)
        self.server = self.target = None
        self.backend.freed(target, self.loop)

    # --- time ----------------------------------------------------------------------------------

    def expire_dialling(self, now: float) -> float:
        """Give up a wait or a connect that has taken too long; tell when to look again."""
        if now < self._give_up_at:
            if self._queued or self.server is not None:
                return self._give_up_at
            assert self.target is not None
            if not self._connect(self.target):  # after a shortage
                self.dial()
        elif self._queued:
            self.close("queue_timeout")
        else:
            if self.server is not None:
                self._attempt_failed(errno.ETIMEDOUT)
            elif self.target is not None:  # there was no room for as long as a connect may take
                self.target.count_error(errno.ETIMEDOUT)
            self.dial("connect_timeout")
        return 0.0

    def _rearm(self, due: float) -> None:
        """Be looked at by then; being looked at too early costs less than moving each time."""
        if due < self._look_at:
            self._look_at = due
            self.loop.wheel.disarm(self)
            self.loop.wheel.arm(self, due)

    # --- for the session -----------------------------------------------------------------------

    def _relay(self, server: socket.socket) -> None:
        """Go on with this server."""
        raise NotImplementedError

    def expire(self, now: float) -> float:
        """Act if it is time; return the next instant to be looked at."""
        raise NotImplementedError

    def close(self, reason: CloseReason) -> None:
        """Close both sides."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End after a handler raised."""
        raise NotImplementedError
