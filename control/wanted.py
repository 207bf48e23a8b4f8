"""What is wanted of all workers, apart from who they are: the goal, the drains, the epoch.

aegis-ctl ─▶ drain, resume, stop ─▶ Wanted ─▶ Desired, at every change and once a second
"""

import logging
import os
from collections.abc import Callable
from time import monotonic

from aegis.config import Config
from aegis.lifecycle import Goal
from aegis.messages import Desired
from control.handover import Handover
from control.sessions import Sessions
from control.supervisor import Supervisor

log = logging.getLogger(__name__)


class Wanted:
    """Level-triggered: what is here is published whole. `changed` makes a new epoch of it."""

    def __init__(
        self, supervisor: Supervisor, sessions: Sessions, changed: Callable[[], int]
    ) -> None:
        self.since = monotonic()
        """Instant at which this controller began."""
        self.deadline = 0.0
        self.doors_close_at = 0.0
        self.listeners: dict[str, float] = {}
        """Drained listener → instant at which its sessions are cut."""
        self._supervisor = supervisor
        self._sessions = sessions
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
            servers=supervisor.servers.wishes,
            shares=supervisor.shares.of(p.pid for p in supervisor.processes),
            tls=supervisor.tls,
            workers=len(supervisor.seats),
            retired=supervisor.retired,
            closing=supervisor.closing,
            doors_close_at=self.doors_close_at,
            drained_listeners=self.listeners,
            look=self._sessions.look,
            kills=self._sessions.kills,
        )

    def take(self, handover: Handover) -> None:
        """Go on with what was wanted before an upgrade."""
        self.deadline, self.doors_close_at = handover.deadline, handover.doors_close_at
        self.listeners = handover.listeners
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

    def drain_listener(self, name: str, timeout_s: float | None) -> str:
        """Drain a listener; returns why not, empty when it is done."""
        config = self._supervisor.config
        why = unknown_listener(config, name)
        if why:
            return why
        seconds = config.drain_timeout_s if timeout_s is None else timeout_s
        if name not in self.listeners or timeout_s is not None:
            log.info("draining %s", name)
            self.listeners[name] = monotonic() + seconds
            self._supervisor.closed = set(self.listeners)
            self._changed()
        return ""

    def resume_listener(self, name: str) -> str:
        """Serve a drained listener again; returns why not."""
        why = unknown_listener(self._supervisor.config, name)
        if not why:
            self.listeners.pop(name, None)
            self._resumed()
        return why

    def resume_all_listeners(self) -> None:
        """Serve all drained listeners again."""
        self.listeners.clear()
        self._resumed()

    def _resumed(self) -> None:
        self._supervisor.closed = set(self.listeners)
        self._changed()

    def reconfigured(self) -> None:
        """Forget the drains of what is not there any more."""
        config = self._supervisor.config
        for name in [n for n in self.listeners if unknown_listener(config, n)]:
            del self.listeners[name]


def unknown_listener(config: Config, name: str) -> str:
    """Say that there is no such listener; empty when there is."""
    names = [each.name for each in config.listeners]
    return "" if name in names else f'no listener "{name}"; known listeners: {", ".join(names)}'
