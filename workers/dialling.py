"""A session that has no server yet: it waits for room, then dials servers in turn.

    begin ─▶ a connection that was opened ahead ───────────────────────────▶ relay
      └─ room ─▶ dial ─▶ connecting ─▶ connected ──────────────────────────▶ relay
          ▲        ▲          └─ refused, silent: the next server ─┐
          └ queued └───────────────────────────────────────────────┴ none left ─▶ closed

While it dials the client's fd is in no epoll set: its bytes wait in the kernel, and the connect
deadline bounds how long its death goes unnoticed. Only what it has said by the time of the connect
is read at once and sent behind it. Over loopback that succeeds, for the handshake is over when
connect(2) returns EINPROGRESS (its answers wait for the socket's lock: release_sock in
net/core/sock.c), and the connect need not be waited for. Else it is kept until that has come about.
"""

import errno
import socket
from typing import TYPE_CHECKING

from aegis.figures import WAIT_BOUNDS_S
from aegis.lifecycle import CloseReason
from aegis.limits import TICK_S
from workers.backend import Backend, Tried
from workers.balance import client_key
from workers.loop import WRITE, Loop
from workers.target import Server
from workers.tcp import SHORTAGES, keep_alive
from workers.timers import UNARMED, WATCHED

if TYPE_CHECKING:
    from workers.flow import Flow
    from workers.listener import Listener
    from workers.session_log import Note
    from workers.slab import Slab
    from workers.warm import Warm

UP, DOWN = 0, 1
"""Ways: from client to server, and back."""
_UNDER_WAY = (0, errno.EINPROGRESS)
_CLIENT_GONE = -1


class Dialling:
    """The part of a session that finds a server; Session relays once it has one."""

    __slots__ = (
        "_dialled_at", "_give_up_at", "_look_at", "_queued", "_said", "_tried", "_up",
        "accepted_at", "active_at", "backend", "bytes", "client", "listener", "loop", "note",
        "server", "slot", "target",
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
        self._said: tuple[Slab, int, int] | None = None  # by the client, not yet by us: a range
        self._up: Flow | None = None  # once it relays

    def begin(self) -> None:
        """Take a connection that was opened ahead, or dial as soon as the budget has room."""
        warm = self.listener.warm
        spare = warm.take() if warm is not None else None
        if spare is not None:
            self._go_on_with(*spare)
            return
        self.loop.wheel.watch(self)
        if self.backend.claim(self):
            self.dial()
        else:
            self._queue()

    def begin_on(self, backend: Backend, warm: "Warm | None") -> None:
        """Begin with servers of a backend that is not the listener's."""
        self.backend = backend
        spare = warm.take() if warm is not None else None
        if spare is not None:
            self._go_on_with(*spare)
            return
        self.loop.wheel.watch(self)
        if backend.claim(self):
            self.dial()
        else:
            self._queue()

    def _go_on_with(self, server: socket.socket, target: Server) -> None:
        """Relay with a connection that was opened ahead."""
        self.server, self.target = server, target
        if self.note is not None:
            self.note.submitted(target, 0)
        self._relay(server, registered=True)

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
        waited_s = self.loop.now - self.queue()[1]
        self.listener.backend.figures.wait_seconds.observe(waited_s, WAIT_BOUNDS_S)
        self.dial()

    def queue(self) -> tuple[int, float]:
        """Tell, while this session waits for room, since when it does."""
        return 1, self._give_up_at - self.listener.backend.config.queue_timeout_s

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
            if code in SHORTAGES:
                self.target = target
                self.listener.shortage(self)
                self._rearm(self._give_up_at)
                return True
        else:
            if code in _UNDER_WAY:
                self.backend.opened(target)
                self.target, self.server = target, sock
                return self._go_on(sock, self._speak(sock))
            sock.close()
        if code in SHORTAGES:
            self.target = target  # without a socket: `expire_dialling` tries it again
            self._rearm(self.loop.now + TICK_S)
            return True
        target.connect_failed(code)
        return False

    def _go_on(self, server: socket.socket, code: int) -> bool:
        """Act on what `_speak` has found; False when the attempt has failed."""
        if not code:
            self._connected(0.0, registered=False)
        elif code == errno.EAGAIN:
            if self.slot != WATCHED:  # else it is seen to when that look comes
                keep_alive(server, self.backend.config.keepalive_s)
            self._rearm(self._give_up_at)
            self.loop.add(server.fileno(), WRITE, self, self)
        elif code == _CLIENT_GONE:
            self.abort("client_reset")
        else:
            self._attempt_failed(code)
            return False
        return True

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
        self._connected(self.loop.now - self._dialled_at, registered=True)

    def on_readable(self, mask: int) -> None:
        """A failed connect may come as HANGUP and ERROR without WRITE; nothing else can be read."""
        if not mask & WRITE:
            self.on_writable(mask)

    def _connected(self, seconds: float, *, registered: bool) -> None:
        assert self.server is not None
        assert self.target is not None
        self.target.connected(seconds)
        if self.note is not None:
            self.note.connected(self.loop.now)
        self._relay(self.server, registered=registered)

    def _speak(self, server: socket.socket) -> int:
        """Send what the client has said already; returns the errno of what that came to.

        0: it went, so the server is connected. EAGAIN: it is not, or the client is silent.
        _CLIENT_GONE: the client has reset its connection.
        """
        slabs = self.loop.slabs
        if self._said is not None:
            slab, start, end = self._said
        elif slabs.ample:
            slab, start = slabs.hot, 0
            try:
                end = self.client.recv_into(slab.buffer)
            except BlockingIOError:
                return errno.EAGAIN
            except OSError:
                return _CLIENT_GONE
            if not end:  # the flow finds that again
                return errno.EAGAIN
            self.bytes[UP] += end
        else:
            return errno.EAGAIN
        code = 0
        try:
            start += server.send(slab.view[start:end])
        except OSError as error:
            code = error.errno or errno.EIO
        if start < end:
            self._said = (slabs.park() if self._said is None else slab), start, end
        elif self._said is not None:
            self._said = None
            slabs.release(slab)
        return code

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
            self.retry()
        elif self._queued:
            self.close("queue_timeout")
        else:
            if self.server is not None:
                self._attempt_failed(errno.ETIMEDOUT)
            elif self.target is not None:  # there was no room for as long as a connect may take
                self.target.count_error(errno.ETIMEDOUT)
            self.dial("connect_timeout")
        return 0.0

    def retry(self) -> None:
        """Try the server again for which there was no socket, or no port."""
        assert self.target is not None
        if not self._connect(self.target):
            self.dial()

    def _rearm(self, due: float) -> None:
        """Be looked at by then; being looked at too early costs less than moving each time."""
        if due < self._look_at and self.slot != WATCHED:
            self._look_at = due
            self.loop.wheel.disarm(self)
            self.loop.wheel.arm(self, due)

    # --- for the session -----------------------------------------------------------------------

    def _relay(self, server: socket.socket, *, registered: bool) -> None:
        """Go on with this server, whose fd the loop knows if it is `registered`."""
        raise NotImplementedError

    def abort(self, reason: CloseReason) -> None:
        """Reset both sides."""
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
