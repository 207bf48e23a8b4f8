"""What /status.json and the HUD show of one moment: the proxy as an operator sees it.

Rates are per second, times in seconds, sizes in bytes. None means that it is not known.
"""

from typing import Literal

import msgspec

from aegis.lifecycle import SeatState

Health = Literal["unknown", "up", "failing", "refused", "down", "ejected", "drain", "maint"]
"""Of a server: what an operator or the controller says, else what the workers met; then `failing`
is one to which some attempts to connect fail, `refused` one to which the last failed and no other
has been made since."""

Severity = Literal["info", "good", "warn", "bad"]


class Quantiles(msgspec.Struct):
    """One histogram over the last seconds."""

    name: str
    """The metric's name, without `aegis_` and `_seconds`."""
    per_s: float = 0.0
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None


class Traffic(msgspec.Struct):
    """The whole proxy, or one listener."""

    name: str
    sessions: int = 0
    sessions_per_s: float = 0.0
    requests_per_s: float | None = None
    from_clients_bytes_per_s: float = 0.0
    from_servers_bytes_per_s: float = 0.0
    closed_per_s: dict[str, float] = {}
    """Reason → sessions that ended otherwise than by either side's plain end."""
    accept_errors_per_s: float = 0.0


class Lane(msgspec.Struct):
    """One worker process, which is one core."""

    slot: int
    pid: int
    cpu: int
    """The core, -1 when it is not known."""
    phase: str
    state: SeatState | None
    retired: bool
    """Another process of the slot came later."""
    restarts: int | None
    """None: the controller is not heard."""
    epoch: int | None
    """The last change that the slot's worker has applied."""
    heard_s: float
    """Time since it was heard."""
    load: float
    """CPU seconds per second: the share of its core, 0 to 1."""
    lag_s: float
    """Longest turn of its loop within the last second: how long a ready socket may have waited."""
    sessions: int
    sessions_per_s: float
    memory_bytes: int
    slabs: int
    slabs_used: int
    slab_shortages_per_s: float


class Server(msgspec.Struct):
    """One server."""

    address: str
    health: Health
    since: float
    """Unix time of the last change of health."""
    error: str
    """What was wrong last: of a check, of its clients, or the errno that connecting met."""
    connections: int
    connects_per_s: float
    errors_per_s: float
    connect: Quantiles
    answer: Quantiles
    """To the end of a reply on pipes, to the first byte for sessions without."""
    name: str = ""
    weight: float | None = None
    """What is left of it; None: the controller is not heard."""
    backup: bool = False
    failed_at: float = 0.0
    """Unix time at which connecting to it failed last; 0: it did not."""
    due_s: float = 0.0
    """For how long the oldest reply has been due that it owes on shared pipes."""


class Pool(msgspec.Struct):
    """The pipes of one backend and protocol."""

    protocol: str
    pipes: dict[str, int]
    opened_per_s: float
    requests_per_s: float | None
    in_flight: int
    """Replies that are owed."""
    pins: dict[str, int]
    """Reason → clients so far that needed a pipe of their own."""
    pins_per_s: float
    losses: dict[str, int]
    """Reason → pipes so far that were lost."""
    losses_per_s: float
    errors: dict[str, int]
    """Who broke the protocol, and how → so often so far."""


class Backend(msgspec.Struct):
    """One backend."""

    name: str
    open: int
    busy: int
    waiting: int
    longest_wait_s: float
    servers: list[Server]
    pools: list[Pool]
    panic: bool = False
    """So few servers are healthy that health is ignored."""
    max_connections: int | None = None
    """None: there is no limit, or the controller is not heard."""


class Finding(msgspec.Struct):
    """Something an operator should look at, in one line."""

    key: str
    """What it is about, while it lasts."""
    severity: Severity
    text: str


class Event(msgspec.Struct):
    """Something that changed."""

    at: float
    """Unix time."""
    kind: str
    """exporter, controller, phase, restart, reload, worker, server or sessions."""
    severity: Severity
    text: str


class Picture(msgspec.Struct):
    """One moment."""

    at: float
    """Unix time."""
    version: str
    phase: str
    """The proxy's phase; `unknown` without a controller."""
    epoch: int | None
    unhealthy: str
    """Why /healthz says no; empty when it says ok."""
    not_ready: str
    """Why /readyz says no."""
    findings: list[Finding]
    total: Traffic
    latency: list[Quantiles]
    workers: list[Lane]
    listeners: list[Traffic]
    backends: list[Backend]


def name_of(backend: Backend, server: Server) -> str:
    """Return what a server is called everywhere, with its address where that says more."""
    if server.name in {"", server.address}:
        return f"{backend.name}/{server.address}"
    return f"{backend.name}/{server.name} ({server.address})"
