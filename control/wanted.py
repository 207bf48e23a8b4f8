"""What is wanted of all workers, apart from who they are: the goal, the drains, the epoch.

aegis-ctl ─▶ drain, resume, stop ─▶ Wanted ─▶ Desired, at every change and once a second
"""

import logging
import os
from collections.abc import Callable
from time import monotonic

from aegis.addresses import parse_address
from aegis.config import Config
from aegis.lifecycle import Goal
from aegis.messages import Desired, Drain
from control.handover import Handover
from control.supervisor import Supervisor

log = logging.getLogger(__name__)


class Wanted:
    """Level-triggered: what is here is published whole. `changed` makes a new epoch of it."""

    def __init__(self, supervisor: Supervisor, changed: Callable[[], int]) -> None:
        self.since = monotonic()
        """Instant at which this controller began."""
        self.deadline = 0.0
        self.doors_close_at = 0.0
        self.listeners: dict[str, float] = {}
        """Drained listener → instant at which its sessions are cut."""
        self.servers: dict[str, float] = {}
        """Drained BACKEND/ADDRESS → instant at which its sessions are cut."""
        self._supervisor = supervisor
        self._changed = changed

    def desired(self, epoch: int) -> Desired:
        """Return the whole of it."""
        supervisor = self._supervisor
        return Desired(
            controller=os.getpid(),
            epoch=epoch,
            since=self.since,
            goal=supervisor.goal,
            deadline=self.deadline,
            shares=supervisor.shares.of(p.pid for p in supervisor.processes),
            workers=len(supervisor.seats),
            retired=supervisor.retired,
            closing=supervisor.closing,
            doors_close_at=self.doors_close_at,
            drained_listeners=self.listeners,
            drained_servers=self.servers,
        )

    def take(self, handover: Handover) -> None:
        """Go on with what was wanted before an upgrade."""
        self.deadline, self.doors_close_at = handover.deadline, handover.doors_close_at
        self.listeners, self.servers = handover.listeners, handover.servers
        self._supervisor.closed = set(self.listeners)

    def move_to(self, goal: Goal, timeout_s: float | None) -> None:
        """Move to a goal; the one that is set already keeps its deadline unless told another.

        Args:
            goal: where to.
            timeout_s: None is the configuration's; 0 cuts at once and is no lame duck either.
        """
        supervisor = self._supervisor
        if goal == supervisor.goal and timeout_s is None:
            return
        log.info("goal: %s", goal, extra={"event": "goal", "goal": goal})
        now = monotonic()
        if supervisor.goal == "serving" or goal == "serving":
            self.doors_close_at = now + supervisor.config.lame_duck_s
        if timeout_s == 0:
            self.doors_close_at = now
        timeout_s = supervisor.config.drain_timeout_s if timeout_s is None else timeout_s
        supervisor.goal = goal
        self.deadline = 0.0 if goal == "serving" else max(self.doors_close_at, now) + timeout_s
        self._changed()

    def drain_part(self, request: Drain) -> str:
        """Drain a listener or a server; returns why not, empty when it is done."""
        config = self._supervisor.config
        why = unknown_part(config, request.listener, request.server)
        if why:
            return why
        timeout_s = config.drain_timeout_s if request.timeout_s is None else request.timeout_s
        part = self.listeners if request.listener is not None else self.servers
        name = request.listener or server_key(request.server or "")
        if name not in part or request.timeout_s is not None:
            log.info("draining %s", name)
            part[name] = monotonic() + timeout_s
            self._supervisor.closed = set(self.listeners)
            self._changed()
        return ""

    def resume_part(self, listener: str | None, server: str | None) -> str:
        """Serve a drained listener or server again; returns why not."""
        why = unknown_part(self._supervisor.config, listener, server)
        if why:
            return why
        if listener is not None:
            self.listeners.pop(listener, None)
        elif server is not None:
            self.servers.pop(server_key(server), None)
        else:
            self.listeners.clear()
            self.servers.clear()
        self._supervisor.closed = set(self.listeners)
        self._changed()
        return ""

    def reconfigured(self) -> None:
        """Forget the drains of what is not there any more."""
        config = self._supervisor.config
        for name in [n for n in self.listeners if unknown_part(config, n, None)]:
            del self.listeners[name]
        for name in [n for n in self.servers if unknown_part(config, None, n)]:
            del self.servers[name]


def unknown_part(config: Config, listener: str | None, server: str | None) -> str:
    """Say that there is no such listener or server; empty when there is."""
    if listener is not None:
        names = [each.name for each in config.listeners]
        if listener not in names:
            return f'no listener "{listener}"; known listeners: {", ".join(names)}'
    elif server is not None:
        known = [f"{b.name}/{parse_address(s).text}" for b in config.backends for s in b.servers]
        if server_key(server) not in known:
            return f'no server "{server}"; known servers: {", ".join(known)}'
    return ""


def server_key(text: str) -> str:
    """Return BACKEND/ADDRESS with the address as all processes write it."""
    backend, _, address = text.partition("/")
    try:
        return f"{backend}/{parse_address(address).text}"
    except ValueError:
        return text
