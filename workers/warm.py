"""Connections opened ahead, each used once: a client is paired at accept, without a handshake.

    open ahead ─▶ connecting ─▶ spare ──take──▶ a plain session's, counted as ever
                                  └─ ended by the server, too long idle, place needed ─▶ closed

Any protocol, since nothing is read: what a server says first (a greeting) stays in the kernel until
a client is there to read it. A spare is watched for its end only (EPOLLRDHUP, epoll_ctl(2)), and
looked at once more when it is taken; one whose end is still under way then ends its session, as a
connection of its own would.
"""

import errno
import select
import socket

from aegis.figures import PoolFigures
from aegis.limits import MAX_OPENING, TICK_S
from workers.backend import Backend
from workers.loop import WRITE, Loop
from workers.opening import Opening
from workers.target import Server
from workers.timers import Alarm

_ENDS = select.EPOLLRDHUP


class Spare:
    """One connection that nobody has yet; the reader and the writer of its socket."""

    __slots__ = ("_warm", "connected", "since", "sock", "target")

    def __init__(self, warm: "Warm", target: Server, sock: socket.socket) -> None:
        """Take over a socket whose non-blocking connect has begun."""
        self._warm = warm
        self.target = target
        self.sock = sock
        self.connected = False
        self.since = warm.loop.now
        """When the connect began; when it succeeded."""
        warm.loop.add(sock.fileno(), WRITE, self, self)

    @property
    def lives(self) -> bool:
        """Whether the server has not ended it, as far as the kernel knows by now."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - SO_ERROR says what the mask cannot
        """The connect has ended, one way or the other."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._warm.refused(self, code)
            return
        loop = self._warm.loop
        self.target.connected(loop.now - self.since)
        self.connected = True
        self.since = loop.now
        loop.switch(self.sock.fileno(), WRITE, _ENDS)
        self._warm.dial_succeeded()

    def on_readable(self, mask: int) -> None:
        """The server has ended the connection, or a connect failed without WRITE."""
        if self.connected:
            self._warm.ended(self)
        elif not mask & WRITE:
            self.on_writable(mask)

    def fail(self, error: Exception) -> None:  # noqa: ARG002 - the loop has logged it
        """Close after a handler raised."""
        self._warm.ended(self)


class Warm(Opening):
    """The spare connections to one backend in one worker; `pool_min` of them, if there is room."""

    def __init__(self, backend: Backend, loop: Loop) -> None:
        super().__init__(backend, loop)
        self.figures = PoolFigures(backend.config.name, "raw")
        self._spares: dict[Spare, None] = {}  # the oldest first
        Alarm(loop.wheel, loop.now, self._tend)

    def take(self) -> tuple[socket.socket, Server] | None:
        """Return a connection, registered for its end only; None when none is ready."""
        self.call()
        for spare in [spare for spare in self._spares if spare.connected]:
            if spare.lives:
                del self._spares[spare]
                self.figures.hits += 1
                return spare.sock, spare.target
            self.ended(spare)
        self.figures.misses += 1
        return None

    def flush(self) -> None:
        """Open what is missing. Sessions that wait for room come first: they are the budget's."""
        self.deferred = False
        backend = self.backend
        opening = sum(1 for spare in self._spares if not spare.connected)
        while (
            opening < MAX_OPENING
            and len(self._spares) < backend.pool_min
            and backend.open < backend.limit
            and self.may_dial
        ):
            dialled = self.dial()
            if dialled is None:
                if self.exhausted:
                    self.back_off()
                return
            self._spares[Spare(self, *dialled)] = None
            self.figures.opened += 1
            opening += 1

    def refused(self, spare: Spare, code: int) -> None:
        """Note that a connect has failed."""
        self.dial_failed(spare.target, code)
        if self.exhausted:
            self.back_off()
        self._close(spare)

    def ended(self, spare: Spare) -> None:
        """Note that a server has closed a connection nobody had used."""
        self.figures.losses["server_lost"] = self.figures.losses.get("server_lost", 0) + 1
        self._close(spare)

    def _close(self, spare: Spare) -> None:
        if spare in self._spares:
            del self._spares[spare]
            self.loop.close(spare.sock)
            self.backend.freed(spare.target, self.loop)
            self.call()

    def sample(self) -> int:
        """Bring the figures up to date; returns how many connections nobody uses."""
        idle = sum(1 for spare in self._spares if spare.connected)
        self.figures.pipes = {"connecting": len(self._spares) - idle, "idle": idle}
        return idle

    def idle_on(self, server: Server) -> int:
        """Return how many connections to a server nobody uses."""
        return sum(1 for spare in self._spares if spare.connected and spare.target is server)

    def queue(self) -> tuple[int, float]:
        """Return that nobody waits here: a client that finds no spare dials."""
        return 0, self.loop.now

    def room(self) -> None:
        """Nothing: it never waits for room."""

    def shrink(self, server: Server | None = None) -> bool:
        """Close a spare, for somebody who needs its place."""
        for spare in self._spares:
            if server in {None, spare.target}:
                self._close(spare)
                return True
        return False

    def let_go(self) -> None:
        """Close the spares to servers that are not live, and have others in their place."""
        for spare in [spare for spare in self._spares if not spare.target.live]:
            self._close(spare)

    def retire_one(self, server: Server | None = None) -> bool:  # noqa: ARG002 - Opening's
        """Tell that none is in use here."""
        return False

    def drain(self) -> None:
        """Close all spares: nobody comes for them any more."""
        self.close()

    def close(self) -> None:
        """Close all spares, and open none until the worker serves again."""
        self.closed = True
        while self.shrink():
            pass

    def _tend(self, now: float) -> float:
        """Every tick: close what is old, give up connects that take too long, open what misses."""
        conf = self.backend.config
        for spare in list(self._spares):
            if not spare.connected and now - spare.since > conf.connect_timeout_s:
                self.refused(spare, errno.ETIMEDOUT)
            elif spare.connected and 0 < conf.max_idle_s < now - spare.since:
                self._close(spare)
        self.call()
        return now + TICK_S
