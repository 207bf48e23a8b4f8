"""Servers' health: what the controller knows, else concluded from what workers meet.

    unknown ──connected──▶ up ◀──no failure for a while── failing
                           │ ▲                               ▲
              every attempt│ │connected                      │some attempts fail,
                     fails ▼ │                               │from whichever state
                         refused ──nobody tries──▶ unknown   any

A server that is up and that nobody tries keeps its state: that a quiet database is up is not known,
only that it was. That one is down cannot be known from attempts that nobody makes, so only the
controller says it; a refusal is told with its age, and not for long. Where the controller checks a
server, or has ejected it, or an operator has taken it out, that is what counts. Pure; used by one
thread.
"""

from dataclasses import dataclass

from aegis.limits import QUANTILE_WINDOW_S
from aegis.messages import ServerState
from control.exporter.picture import Health

_FORGIVEN_S = 2 * QUANTILE_WINDOW_S
_TOLD_S = 60.0
"""How long the refusal of a server that nobody has tried since is worth a word."""


@dataclass
class ServerHealth:
    """One server of one backend."""

    health: Health = "unknown"
    since: float = 0.0
    """Unix time of the last change."""
    error: str = ""
    failed_at: float = 0.0
    """Unix time of the last attempt that failed."""

    def look(self, wall: float, connects: float, errors: dict[str, float], open_now: int) -> None:
        """Take in one second: attempts that succeeded and failed, connections there are."""
        if any(errors.values()):
            self.error = max(errors, key=lambda name: errors[name])
            self.failed_at = wall
            self._become("failing" if connects else "refused", wall)
        elif self.health == "failing":
            if wall - self.failed_at > _FORGIVEN_S:
                self._become("up", wall)
        elif self.health == "refused" and not connects:
            if wall - self.failed_at > _TOLD_S:
                self._become("unknown", wall)
        elif connects or (self.health == "unknown" and open_now):
            self._become("up", wall)

    def told(self, state: ServerState | None) -> tuple[Health, float, str]:
        """Return health, since when, and what was wrong, by all that is known."""
        if state is not None and state.admin != "ready":
            return state.admin, 0.0, ""
        if state is not None and state.health in {"down", "ejected"}:
            return state.health, state.since, state.why
        if state is not None and state.health == "up" and self.health in {"unknown", "refused"}:
            return "up", state.since, self.error
        return self.health, self.since, self.error

    def _become(self, health: Health, wall: float) -> None:
        if health != self.health:
            self.health, self.since = health, wall
