"""What `aegis-ctl status` is told: the proxy as its controller sees it, one of Reply."""

import msgspec

from aegis.lifecycle import Admin, Phase, ProxyPhase, SeatState, ServerHealth
from aegis.session_messages import LimitStatus


class Cut(msgspec.Struct, frozen=True):
    """A session that a deadline ended."""

    listener: str
    client: str
    server: str
    """Empty when it had none at that moment."""


class ControllerStatus(msgspec.Struct, frozen=True):
    """The controller in a Status."""

    pid: int
    started: str
    """UTC, ISO 8601."""
    config: str
    """Path of the configuration file."""
    digest: str
    upgrades: int = 0
    """How often it has re-executed itself."""


class ExporterStatus(msgspec.Struct, frozen=True):
    """The exporter that the controller supervises."""

    pid: int | None
    bind: str
    state: SeatState
    restarts: int


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker process in a Status, or a slot that has none at the moment (pid null)."""

    slot: int
    pid: int | None
    cpu: int
    phase: Phase
    state: SeatState
    epoch: int
    """Applied last, of the controller with the pid `controller`."""
    controller: int
    restarts: int
    sessions: int
    slabs_used: int
    cut: int
    """Sessions that deadlines of drains have ended since this worker started."""
    retired: bool = False
    """True: a successor has the slot, this one finishes its sessions."""
    last_exit: str = ""
    outdated: bool = False
    """True: started with another configuration, or before the last upgrade; it will be replaced."""
    cuts: list[Cut] = []
    """The last sessions that a deadline ended."""
    """How the slot's previous process ended, where that was not asked for."""


class ListenerStatus(msgspec.Struct, frozen=True):
    """One listener in a Status, summed over the workers."""

    name: str
    bind: str
    backend: str
    protocol: str
    pooling: str
    sessions: int
    sessions_total: int
    drained: bool = False
    """Refuses new clients, by `drain --listener`."""


class ServerStatus(msgspec.Struct, frozen=True):
    """One server in a Status, summed over the workers."""

    address: str
    connections: int
    connects_total: int
    connect_errors_total: int
    drained: bool = False
    """Gets no new sessions, by an operator's word."""
    name: str = ""
    admin: Admin = "ready"
    health: ServerHealth = "unchecked"
    since: float = 0.0
    """Unix time of the last change of health; 0: there was none."""
    why: str = ""
    """What was wrong when it changed for the worse."""
    weight: int = 1
    """By the configuration, or by an operator."""
    effective_weight: float = 1.0
    """What is left of it; 0 when it gets no sessions."""
    backup: bool = False
    max_connections: int = 0
    overridden: list[str] = []
    """Of `admin` and `weight`, what an operator has said in place of the configuration."""
    failures_total: dict[str, int] = {}
    """Kind → what spoke against it: connects, resets, lost replies."""
    checks_total: dict[str, int] = {}
    """Result → checks."""
    ejected_for_s: float = 0.0
    """Time until its ejection ends."""


class BackendStatus(msgspec.Struct, frozen=True):
    """One backend in a Status."""

    name: str
    balance: str
    servers: list[ServerStatus]
    panic: bool = False
    """So few servers are healthy that health is ignored."""
    discovery: str = ""
    """What was wrong with the last look for servers; empty when nothing was."""


class Status(msgspec.Struct, frozen=True, tag="status"):
    """What `aegis-ctl status --json` prints."""

    phase: ProxyPhase
    epoch: int
    controller: ControllerStatus
    exporter: ExporterStatus | None
    workers: list[WorkerStatus]
    listeners: list[ListenerStatus]
    backends: list[BackendStatus]
    cut_in_s: float | None = None
    """Time until a drain cuts the sessions that are left; None when none is under way."""
    limits: list[LimitStatus] = []
    departed_cut: int = 0
    """Sessions that deadlines had ended in workers that have left; 0 again once Aegis serves."""
    departed_cuts: list[Cut] = []
    """The last of these."""
