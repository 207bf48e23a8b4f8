"""One server as the controller knows it, and the part of its weight that is left of all that.

    configuration, discovery ─▶ conf ─┐
    aegis-ctl server … ─▶ override ───┤
    checks ─▶ up ─────────────────────┼─▶ effective_weight ─▶ wish ─▶ workers
    clients' failures ─▶ ejected ─────┤
    came back ─▶ slow start ──────────┘

Instants are CLOCK_MONOTONIC seconds. Pure: who changes a server tells it the time.
"""

import msgspec

from aegis.config_backend import Server
from aegis.figures import CheckFigures
from aegis.lifecycle import Admin, ServerHealth
from aegis.limits import WEIGHT_UNIT


class Override(msgspec.Struct, frozen=True):
    """What an operator has said about a server, in place of the configuration."""

    admin: Admin = "ready"
    weight: int | None = None
    """None: the configuration's."""
    cut_at: float = 0.0
    """While it drains: instant at which what it still has is cut; 0 = never."""


class KnownServer:
    """One server of one backend."""

    def __init__(self, backend: str, conf: Server) -> None:
        self.backend = backend
        self.conf = conf
        self.override = Override()
        self.checked = False
        """Whether a check has had a result."""
        self.up = True
        """What its checks hold it for; a server that nobody checks is up."""
        self.why = ""
        """What was wrong when it went down, or was ejected."""
        self.since = 0.0
        """Unix time of the last change of `health`; 0 before the first."""
        self.down_at = 0.0
        """Instant at which it went down, or an operator took it out; 0 otherwise."""
        self.ejected_until = 0.0
        """0 while it is not ejected."""
        self.returned_at = 0.0
        """When its last ejection ended."""
        self.ejections_lately = 0
        """How many ejections there were without a long time between two of them."""
        self.warm_from = 0.0
        """Instant at which its slow start has begun; 0: it has all its weight."""
        self.figures = CheckFigures()

    def __repr__(self) -> str:
        return f"<KnownServer {self.key} {self.override.admin} {self.health}>"

    @property
    def key(self) -> str:
        """BACKEND/ADDRESS, by which all processes know it."""
        return f"{self.backend}/{self.conf.address}"

    @property
    def name(self) -> str:
        """Its name, or for want of one its address."""
        return self.conf.name or self.conf.address

    @property
    def full_name(self) -> str:
        """BACKEND/NAME, as an operator reads it."""
        return f"{self.backend}/{self.name}"

    @property
    def health(self) -> ServerHealth:
        """What it is held for, apart from what an operator says."""
        if self.checked and not self.up:
            return "down"
        if self.ejected_until:
            return "ejected"
        return "up" if self.checked else "unchecked"

    @property
    def weight(self) -> int:
        """Its weight, by the configuration or an operator."""
        override = self.override.weight
        return self.conf.weight if override is None else override

    @property
    def wanted(self) -> bool:
        """Whether it is to have sessions, if it can."""
        return self.override.admin == "ready" and self.weight > 0

    @property
    def healthy(self) -> bool:
        """Whether it can have sessions."""
        return self.up and not self.ejected_until

    def is_down(self, *, panic: bool) -> bool:
        """Whether its sessions are lost, by its checks or by an operator's word."""
        return self.override.admin == "maint" or not (self.up or panic)

    def effective_weight(self, now: float, slow_start_s: float, *, panic: bool) -> int:
        """Return its part of new sessions, in WEIGHT_UNITs; 0: it gets none."""
        if not self.wanted or not (self.healthy or panic):
            return 0
        full = self.weight * WEIGHT_UNIT
        if not self.warm_from or now >= self.warm_from + slow_start_s:
            return full
        return max(1, int(full * (now - self.warm_from) / slow_start_s))
