"""Drains of single listeners of a worker, and the list of what deadlines have cut.

The drain of the whole worker is its phase (workers/worker.py). These come and go while it serves:

    Desired.drained_listeners ──apply──▶ Parts ──step, every tick──▶ cut
"""

import logging
import socket
from collections import deque
from collections.abc import Iterable

from aegis.figures import Figures
from aegis.limits import CUTS_LISTED, REFUSE_SETTLE_S
from aegis.status_messages import Cut
from workers.listener import AnySession, Listener
from workers.session import Session
from workers.session_log import text_of

log = logging.getLogger(__name__)


class Cuts:
    """Ends sessions at a deadline, counts them and remembers the last."""

    def __init__(self, figures: Figures) -> None:
        self.last: deque[Cut] = deque(maxlen=CUTS_LISTED)
        self._figures = figures

    def end(self, listener: Listener, sessions: Iterable[AnySession]) -> None:
        """End these sessions of a listener."""
        for session in list(sessions):
            cut = Cut(listener.config.name, client_of(session), server_of(session))
            session.close("drain_deadline")
            self._figures.cut += 1
            if cut not in self.last:  # the first of many is enough of a unix socket's clients
                log.info(
                    "cut at the deadline: %s -> %s -> %s", cut.client, cut.listener, cut.server
                )
            self.last.append(cut)


def client_of(session: AnySession) -> str:
    """Write who a session's client is; empty if it has left."""
    ends = session.listener.ends_of(session)
    if ends is not None:
        return text_of(ends.source)
    return "unix" if session.client.family == socket.AF_UNIX else ""


def server_of(session: AnySession) -> str:
    """Write which server a session has; empty if it has none."""
    if isinstance(session, Session) and session.target is not None:
        return session.target.address.text
    return ""


class Parts:
    """The drained listeners of a worker that serves."""

    def __init__(self, listeners: list[Listener], cuts: Cuts) -> None:
        self._listeners = {listener.config.name: listener for listener in listeners}
        self._cuts = cuts
        self._refuse_at: dict[str, float] = {}  # listeners whose doors are about to close
        self._since: dict[str, float] = {}
        self.listeners: dict[str, float] = {}
        """Drained listener → deadline."""

    def apply(self, listeners: dict[str, float], now: float) -> None:
        """Want these drained and the others not."""
        for name in self.listeners.keys() - listeners.keys():
            self._refuse_at.pop(name, None)
            self._listeners[name].serve()
        for name in listeners.keys() - self.listeners.keys():
            if name in self._listeners:
                self._listeners[name].settle()
                self._refuse_at[name] = now + REFUSE_SETTLE_S
                self._since[name] = now
        self.listeners = {name: at for name, at in listeners.items() if name in self._listeners}

    def start_drained(self, names: Iterable[str]) -> None:
        """Be born with these listeners drained; somebody before may have left them open."""
        for name in names:
            self._listeners[name].refuse()
            self.listeners[name] = self._since[name] = 0.0

    def step(self, now: float, spread_s: float) -> None:
        """Close doors whose time has come, let clients go, cut at the deadlines."""
        for name, at in list(self._refuse_at.items()):
            if now >= at:
                del self._refuse_at[name]
                self._listeners[name].refuse()
        for name, deadline in self.listeners.items():
            listener = self._listeners[name]
            since = self._since[name]
            listener.drain(now, since, min(since + spread_s, (since + deadline) / 2))
            if deadline and now >= deadline and name not in self._refuse_at:
                self._cuts.end(listener, listener.sessions)
