"""One listening socket of a worker's slot, and the sessions that came in through it.

The socket is the controller's and is inherited; a successor on the slot inherits it as well. What
is done to it with a system call on the *socket* (listen, shutdown, filter) is done for all holders;
closing the fd is not.

    serving ──settle──▶ settling ──refuse──▶ refusing          `serve` leads back from any of them
       └──────leave: deregister and close our fd only (a successor accepts)

To refuse, a TCP listener is shut down: shutdown(SHUT_RD) on a listening socket stops it, a later
listen() starts it again on the same bound port (inet_shutdown, inet_listen in net/ipv4/af_inet.c;
HAProxy pauses so too). Shutting down resets what is queued, so first a socket filter drops new
SYNs for REFUSE_SETTLE_S, handshakes under way complete, and everything queued is accepted. A client
whose SYN was dropped sends it again a second later and is refused then.
A unix listener cannot be started again (sk_shutdown stays, net/unix/af_unix.c): while refusing it
accepts and closes.
"""

import contextlib
import ctypes
import errno
import logging
import math
import select
import socket
import struct

from aegis import config
from aegis.figures import SESSION_BOUNDS_S, Figures, ListenerFigures
from aegis.lifecycle import CloseReason
from aegis.limits import ACCEPT_PAUSE_S, ACCEPTS_PER_TURN, TICK_S
from workers.backend import Backend
from workers.dialling import Dialling
from workers.loop import READ, Loop
from workers.pool import Pool
from workers.session import Session
from workers.session_log import SessionLog
from workers.shared import SharedSession
from workers.tcp import SHORTAGES, RawSocket, tune
from workers.timers import Alarm
from workers.warm import Warm

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h; not in the socket module
# Classic BPF; a filter on a TCP socket sees the segment from its header on (tcp_filter in
# net/ipv4/tcp_ipv4.c). Flags are byte 13, SYN is 2; an ACK that completes a handshake passes.
_DROP_SYN = ctypes.create_string_buffer(
    struct.pack("HBBI", 0x30, 0, 0, 13)  # ldb [13]
    + struct.pack("HBBI", 0x45, 0, 1, 0x02)  # jset #SYN, drop, pass
    + struct.pack("HBBI", 0x06, 0, 0, 0)  # drop: ret 0
    + struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # pass: ret all
)
_FILTER = struct.pack("HP", 4, ctypes.addressof(_DROP_SYN))

log = logging.getLogger(__name__)


class Listener:
    """Accepts clients into sessions. `serving` and `refusing` exclude each other."""

    __slots__ = (
        "_accept_fd", "_accepting", "_family", "_paused", "_pool", "_refusing", "_registered",
        "_session_log", "_short", "_sock", "_told", "backend", "config", "figures", "loop",
        "sessions", "warm", "worker_figures",
    )  # fmt: skip

    def __init__(
        self,
        conf: config.Listener,
        fd: int,
        backend: Backend,
        loop: Loop,
        figures: Figures,
        *,
        pool: Pool | Warm | None = None,
        session_log: SessionLog | None = None,
    ) -> None:
        """Take over the inherited `fd`; nothing is accepted before `serve`.

        Args:
            conf: its configuration.
            fd: the bound socket.
            backend: who serves its clients.
            loop: the worker's.
            figures: the worker's.
            pool: the pipes that its clients share, or connections opened ahead for them; None if
                each dials one of its own.
            session_log: what is told of each session; None if nobody is.
        """
        self._session_log = session_log
        self._pool = pool if isinstance(pool, Pool) else None
        self.warm = pool if isinstance(pool, Warm) else None
        self.config = conf
        self.backend = backend
        self.loop = loop
        self.worker_figures = figures
        self.figures = ListenerFigures(conf.name)
        self.sessions: set[Session | SharedSession] = set()
        self._told: dict[SharedSession, None] = {}  # to end between two requests; in this order
        self._sock: socket.socket = RawSocket(fileno=fd)
        self._family, self._accept_fd = self._sock.family, self._sock._accept
        self._sock.setblocking(False)
        self._short: dict[Dialling, None] = {}  # they wait for a fd, in this order
        self._accepting = False  # what is wanted
        self._registered = False  # what epoll has been told
        self._paused = self._refusing = False
        if self._sock.family != socket.AF_UNIX:
            tune(self._sock, conf.keepalive_s)

    # --- lifecycle -----------------------------------------------------------------------------

    def serve(self) -> None:
        """Listen and accept."""
        self._filter(attach=False)
        self._refusing = False
        for session in self._told:
            session.finish_after_reply(wanted=False)
        self._told.clear()
        self._sock.listen(self.config.backlog)
        self._accepting = True
        self._sync()

    def settle(self) -> None:
        """Let no new handshake begin, go on accepting those that have begun."""
        self._filter(attach=True)

    def refuse(self) -> None:
        """Accept what is queued, then make the kernel refuse what comes."""
        if self._refusing:
            return
        while self._accepting and self._accept():
            pass
        self._refusing = True
        self._accepting = self._sock.family == socket.AF_UNIX
        self._sync()
        if self._accepting:
            return
        # A second shutdown would stay (inet_shutdown: sk_shutdown |= how unless it listens), and
        # each connection accepted after a later listen() would inherit it: an end at once.
        if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            with contextlib.suppress(OSError):  # ENOTCONN: another holder was quicker
                self._sock.shutdown(socket.SHUT_RD)

    def leave(self) -> None:
        """Stop accepting; the socket goes on living with its other holders."""
        if self._sock.fileno() < 0:
            return
        self._accepting = False
        self._sync()
        self.loop.close(self._sock)

    def turn_away(self) -> None:
        """Accept what is queued, close the socket for all who hold it, and leave it."""
        if self._sock.fileno() >= 0:
            self.refuse()
            self.leave()

    def drain(self, now: float, since: float, until: float) -> None:
        """Every tick: have some more clients end between two requests, all of them by `until`.

        In the first half of the time they are told, and end with their next reply: a client that
        has just been answered has not asked again yet, and one that has just come has its answer.
        In the second half those that have not asked since are closed.
        """
        if self.backend.limit < 1:
            until = now  # their next requests could only wait
        half = (since + until) / 2
        left = [s for s in self.sessions if isinstance(s, SharedSession) and s not in self._told]
        for session in left[: _portion(len(left), half - now)]:
            self._told[session] = None
            session.finish_after_reply()
        if now >= half:
            for session in list(self._told)[: _portion(len(self._told), until - now)]:
                session.finish_when_idle()

    def _filter(self, *, attach: bool) -> None:
        if self._sock.family == socket.AF_UNIX:
            return
        if attach:
            # Some kernels let only root do this. Then a handshake that completes in the instant of
            # the shutdown is reset instead of being refused.
            with contextlib.suppress(PermissionError):
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _FILTER)
            return
        with contextlib.suppress(FileNotFoundError):  # ENOENT: there is none
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def _sync(self) -> None:
        """Tell epoll what is wanted, as far as a pause allows."""
        wanted = self._accepting and not self._paused
        if wanted == self._registered:
            return
        self._registered = wanted
        if not wanted:
            self.loop.remove(self._sock.fileno())
            return
        # A unix listener is one socket for all workers: wake one of them, not the herd.
        shared = select.EPOLLEXCLUSIVE if self._sock.family == socket.AF_UNIX else 0
        self.loop.add(self._sock.fileno(), READ | shared, self)

    # --- accepting -----------------------------------------------------------------------------

    def on_readable(self, mask: int) -> None:  # noqa: ARG002 - accept says what the mask cannot
        """Accept a capped number of clients."""
        for _ in range(ACCEPTS_PER_TURN):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one client; False when there is none or there must be a pause."""
        try:
            fd, address = self._accept_fd()
        except BlockingIOError:
            return False
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error.errno))
            self.figures.accept_errors[name] = self.figures.accept_errors.get(name, 0) + 1
            if error.errno in SHORTAGES:
                self.shortage()
                return False
            if error.errno == errno.EINVAL:  # another holder has shut the socket down
                self._accepting = False
                self._sync()
                return False
            return True  # ECONNABORTED and the like are one client's (accept(2))
        client: socket.socket = RawSocket(self._family, socket.SOCK_STREAM, 0, fd)
        client.setblocking(False)
        session: Session | SharedSession
        if self._pool is None:
            session = Session(self, client)
        else:
            session = SharedSession(self, client, self._pool)
        self.figures.accepted += 1
        self.figures.sessions += 1
        self.sessions.add(session)
        if self._session_log is not None:
            self._session_log.opened(session, client, address)
        try:
            if self._refusing:
                session.close("refused")
            else:
                session.begin()
        except Exception as error:
            log.exception("a session of listener %s failed", self.config.name)
            session.fail(error)
        return True

    def shortage(self, session: Dialling | None = None) -> None:
        """Pause accepting: a listener that stays readable without fds to accept with would spin.

        A session that has no socket to its server yet is the first to go on after the pause.
        """
        if session is not None:
            self._short[session] = None
        if self._paused:
            return
        self._paused = True
        self.worker_figures.accept_pauses += 1
        self._sync()
        Alarm(self.loop.wheel, self.loop.now + ACCEPT_PAUSE_S, self._resume)

    def _resume(self, now: float) -> float:  # noqa: ARG002 - an alarm's signature
        self._paused = False
        short, self._short = self._short, {}
        for session in short:
            if session.server is None:
                session.retry()
        self._sync()
        return 0.0

    def replace(self, session: SharedSession, successor: Session) -> None:
        """Note that another session has taken a client over."""
        successor.accepted_at = session.accepted_at
        self.sessions.discard(session)
        self._told.pop(session, None)
        self.sessions.add(successor)
        successor.bytes, successor.note = session.bytes, session.note

    def closed(self, session: Session | SharedSession, reason: CloseReason) -> None:
        """Forget a session that has closed."""
        self.sessions.discard(session)
        if session.note is not None and self._session_log is not None:
            self._session_log.closed(session.note, self.backend, reason, self.figures.sessions)
        if self._told and isinstance(session, SharedSession):
            self._told.pop(session, None)
        if self._short and isinstance(session, Session):
            self._short.pop(session, None)
        self.figures.sessions -= 1
        self.figures.closed[reason] += 1
        lasted_s = self.loop.now - session.accepted_at
        self.figures.session_seconds.observe(lasted_s, SESSION_BOUNDS_S)

    def fail(self, error: Exception) -> None:
        """Pause after a handler raised, so that an error that stays does not spin."""
        del error  # the loop has logged it
        self.shortage()


def _portion(count: int, left_s: float) -> int:
    """How many of so many it takes each tick to be through in so many seconds."""
    return count if left_s < TICK_S else math.ceil(count * TICK_S / left_s)
