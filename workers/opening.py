"""Opening connections ahead of need: which server next, when again after a failure, is there room.

    dial ─▶ connect under way ─▶ succeeded
     │  ▲          └─ failed ─┐
     │  └── another server ◀──┘
     └─ all have failed since one did not ─▶ exhausted, back off: 0.1 s, doubling, at most 2 s

What is opened is counted in the backend's budget (`Backend.opened`); whoever has it tells `freed`.
"""

import errno
import socket

from aegis.limits import RECONNECT_MAX_S, RECONNECT_MIN_S, TICK_S
from workers.backend import Backend, Tried
from workers.loop import Loop
from workers.target import Server
from workers.tcp import keep_alive


class Opening:
    """The part of a pool that opens connections; a claimant of the backend's budget."""

    def __init__(self, backend: Backend, loop: Loop) -> None:
        self.backend = backend
        self.loop = loop
        self.closed = False
        """Nothing is to be opened: the worker has drained, or nobody can come any more."""
        self._tried: Tried = ()  # servers that refused since one did not
        self._retry_s = 0.0
        self._retry_at = 0.0
        self.deferred = False  # `flush` comes at the end of this turn
        backend.pools.append(self)

    @property
    def may_dial(self) -> bool:
        """Whether nothing but the budget stands against a connect."""
        return not self.closed and self.loop.now >= self._retry_at

    @property
    def exhausted(self) -> bool:
        """Whether every server has failed since one did not; those that are let go do not count."""
        return not self.backend.has_untried(self._tried)

    def dial(self) -> tuple[Server, socket.socket] | None:
        """Begin a connect that has room in the budget; None when none could be begun."""
        while (target := self.backend.pick(self._tried)) is not None:
            dialled = self.dial_to(target)
            if dialled is not None or self.loop.now < self._retry_at:
                return dialled
        return None

    def dial_to(self, target: Server) -> tuple[Server, socket.socket] | None:
        """The same, to one server."""
        try:
            sock, code = self.backend.dial(target)
        except OSError as error:  # no socket could be made: that passes by itself
            target.count_error(error.errno or errno.EIO)
            self._retry_at = self.loop.now + TICK_S
            return None
        if code in {0, errno.EINPROGRESS}:
            self.backend.opened(target)
            keep_alive(sock, self.backend.config.keepalive_s)
            return target, sock
        sock.close()
        self.dial_failed(target, code)
        return None

    def dial_failed(self, target: Server, error: int | str) -> None:
        """Note a connect that failed."""
        target.connect_failed(error)
        target.shun(self.loop.now)
        if target not in self._tried:
            self._tried = (*self._tried, target)

    def dial_succeeded(self) -> None:
        """Forget the failures before."""
        self._tried, self._retry_s = (), 0.0

    def forget(self, server: Server) -> None:
        """Forget what was counted of a server to which there is no connection any more."""

    def servers_changed(self) -> None:
        """Forget the failures and the wait after them: the servers are others now."""
        self._tried, self._retry_s, self._retry_at = (), 0.0, 0.0
        self.call()

    def back_off(self) -> None:
        """Open nothing for a while, longer each time; all servers have another chance then."""
        self._tried = ()
        self._retry_s = min(max(2 * self._retry_s, RECONNECT_MIN_S), RECONNECT_MAX_S)
        self._retry_at = self.loop.now + self._retry_s

    def call(self) -> None:
        """Have `flush` called at the end of this turn."""
        if not self.deferred:
            self.deferred = True
            self.loop.defer(self)

    def drain(self) -> None:
        """Note that no new clients come; those that are here go on."""

    # --- for the pool --------------------------------------------------------------------------

    def flush(self) -> None:
        """Do what has become possible or necessary in this turn."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Let the worker die: a pool that cannot serve must be replaced."""
        raise error

    def room(self) -> None:
        """The backend's budget has room again."""
        raise NotImplementedError

    def queue(self) -> tuple[int, float]:
        """Return how many clients wait here, and since when the first of them does."""
        raise NotImplementedError

    def shrink(self, server: Server | None = None) -> bool:
        """Close a connection that nobody uses, for somebody who needs its place."""
        raise NotImplementedError

    def retire_one(self, server: Server | None = None) -> bool:
        """Let a connection that is used end with its use; False when there is none."""
        raise NotImplementedError
