"""A worker's counters: mutable structs that the data path adds to and that travel as they are.

They are cumulative from the worker's start, so a lost message loses nothing. The worker owns them
and is the only writer; what arrives at the controller or the exporter is a copy.
"""

from bisect import bisect_left
from typing import Literal

import msgspec

from aegis.lifecycle import CLOSE_REASONS, Phase

# Upper bounds in seconds. Connects: from loopback (50 µs) to a lost SYN's first retransmissions
# (1 s, 3 s). Turns: from what an idle turn takes to what a client would notice.
CONNECT_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 3, 10)
# Replies: from what a database in memory takes over loopback to what times out. As fine as 1, 2, 5
# and steps between, because percentiles are read off them.
REPLY_BOUNDS_S = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01,
    0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10,
)  # fmt: skip
WAIT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Handshakes: from one with a resumed session over loopback to a lost segment's retransmissions.
HANDSHAKE_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SESSION_BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 86_400)
TURN_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Histogram(msgspec.Struct):
    """Counts of observed durations by upper bound; the last bucket is +Inf. Not cumulative."""

    buckets: list[int]
    sum_s: float = 0.0

    def observe(self, seconds: float, bounds: tuple[float, ...]) -> None:
        """Count one duration; `bounds` has one entry less than `buckets`."""
        self.buckets[bisect_left(bounds, seconds)] += 1
        self.sum_s += seconds


def empty(bounds: tuple[float, ...]) -> Histogram:
    """Return a histogram with these bounds that has observed nothing."""
    return Histogram([0] * (len(bounds) + 1))


class ListenerFigures(msgspec.Struct):
    """One listener in one worker."""

    name: str
    sessions: int = 0
    """Now open, connecting ones included."""
    accepted: int = 0
    bytes: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    """Read from [clients, servers]."""
    closed: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(CLOSE_REASONS, 0))
    accept_errors: dict[str, int] = {}
    """Errno name → count."""
    session_seconds: Histogram = msgspec.field(default_factory=lambda: empty(SESSION_BOUNDS_S))
    """From accept to close."""


class ServerFigures(msgspec.Struct):
    """One server of one backend in one worker."""

    backend: str
    address: str
    connections: int = 0
    """Now open or being opened."""
    connects: int = 0
    """Connections that were established."""
    connect_errors: dict[str, int] = {}
    """Errno name → count; ETIMEDOUT is our own deadline too."""
    connect_seconds: Histogram = msgspec.field(default_factory=lambda: empty(CONNECT_BOUNDS_S))
    first_byte_seconds: Histogram = msgspec.field(default_factory=lambda: empty(REPLY_BOUNDS_S))
    """Of sessions without pipes: from what the client said last to the server's first byte; where
    the server speaks first, from the connect."""
    busy: int = 0
    """Connections that serve somebody; kept where the server has a limit of its own."""
    failures: dict[str, int] = {}
    """Kind → what spoke against it: connects that failed, resets, replies that were lost."""
    failures_in_a_row: int = 0
    """Of those, since the server said something last."""


class CheckFigures(msgspec.Struct):
    """What the controller counts of one server, from when it has known it."""

    checks: dict[str, int] = msgspec.field(default_factory=lambda: {"ok": 0, "failed": 0})
    """Result → checks."""
    seconds: Histogram = msgspec.field(default_factory=lambda: empty(CONNECT_BOUNDS_S))
    """How long checks took."""
    downs: int = 0
    """Times its checks have found it down."""
    ejections: int = 0
    """Times it was ejected for what befell its clients."""


class BackendFigures(msgspec.Struct):
    """One backend in one worker: its budget of connections, and who waits for one."""

    backend: str
    open: int = 0
    """Connections, idle pipes included."""
    busy: int = 0
    """Connections that serve somebody."""
    waiting: int = 0
    """Clients that wait for a connection."""
    longest_wait_s: float = 0.0
    """Of those that wait now."""
    wait_seconds: Histogram = msgspec.field(default_factory=lambda: empty(WAIT_BOUNDS_S))
    """How long those waited who got a connection in the end."""


class TlsFigures(msgspec.Struct):
    """Handshakes of one listener's clients, or with one backend's servers, in one worker."""

    name: str
    """Of the listener or the backend."""
    handshakes: int = 0
    seconds: Histogram = msgspec.field(
        default_factory=lambda: Histogram([0] * (len(HANDSHAKE_BOUNDS_S) + 1))
    )
    """How long those took that were completed."""
    errors: dict[str, int] = {}
    """OpenSSL's reason → handshakes that failed for it."""

    def completed(self, seconds: float) -> None:
        """Count a handshake that took so long."""
        self.handshakes += 1
        self.seconds.observe(seconds, HANDSHAKE_BOUNDS_S)

    def failed(self, reason: str) -> None:
        """Count one that failed."""
        self.errors[reason] = self.errors.get(reason, 0) + 1


class LimitFigures(msgspec.Struct):
    """One worker's use of a number of sessions that is stated for the whole proxy."""

    name: str
    """As in Boot.shares."""
    open: int = 0
    waiting: int = 0
    """Clients that came when the worker's share was used up, and may get one yet."""


class PoolFigures(msgspec.Struct):
    """The pipes of one backend and protocol in one worker; PgBouncer's figures and ours."""

    backend: str
    protocol: str
    pipes: dict[str, int] = {}
    """State → now: connecting, idle, active, alone."""
    opened: int = 0
    requests: int = 0
    """Replies that requests were owed, or that they have got by now."""
    reply_seconds: dict[str, Histogram] = {}
    """Server → from a request's arrival to the end of its reply; not the wait for a pipe."""
    in_flight: int = 0
    """Replies that are owed now."""
    oldest_s: dict[str, float] = {}
    """Server → for how long the oldest reply has been due that it owes on shared pipes; 0: none."""
    errors: dict[Literal["client", "server"], dict[str, int]] = msgspec.field(
        default_factory=lambda: {"client": {}, "server": {}}
    )
    """Who broke the protocol → the framer's word for how → count."""
    hits: int = 0
    """Times a client found a connection ready."""
    misses: int = 0
    """Times it had to wait for one, or to dial."""
    pins: dict[str, int] = {}
    """Reason → clients that needed a pipe of their own."""
    losses: dict[str, int] = {}
    """Reason → pipes that ended otherwise than by us, or broke the protocol."""


class Figures(msgspec.Struct, tag="figures"):
    """All that one worker counts."""

    slot: int
    pid: int
    phase: Phase
    listeners: list[ListenerFigures]
    servers: list[ServerFigures]
    slabs: int
    """Preallocated, the loop's hot slab included."""
    cpu: int = -1
    """The core it is pinned to."""
    started: float = 0.0
    """Instant at which the process began, by which one is told from another with its pid."""
    slabs_used: int = 0
    """Parked with a flow whose sink is full."""
    slab_shortages: int = 0
    """Reads that found no spare slab and left the bytes in the kernel instead."""
    kernel_pipes_used: int = 0
    """Parked with a bulk flow whose sink is full."""
    spliced_bytes: int = 0
    turn_seconds: Histogram = msgspec.field(default_factory=lambda: empty(TURN_BOUNDS_S))
    longest_turn_s: float = 0.0
    """Since the previous telemetry; or the lateness of a timer, where that was more."""
    accept_pauses: int = 0
    cut: int = 0
    """Sessions that a drain's deadline ended."""
    bus_drops: int = 0
    """Reports and telemetry that found no room or no peer."""
    bus_errors: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(("malformed", "old", "foreign"), 0)
    )
    """Why → commands that were ignored."""
    cpu_seconds: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    """Spent in [user, system] mode."""
    memory_bytes: int = 0
    """Resident set size."""
    session_log_drops: int = 0
    """Closed sessions for whose record there was no room on the way to the session log."""
    backends: list[BackendFigures] = []
    pools: list[PoolFigures] = []
    limits: list[LimitFigures] = []
    client_tls: list[TlsFigures] = []
    server_tls: list[TlsFigures] = []

    @property
    def turns(self) -> int:
        """How often the loop has turned."""
        return sum(self.turn_seconds.buckets)

    @property
    def sessions(self) -> int:
        """Sessions now open on all listeners."""
        return sum(listener.sessions for listener in self.listeners)
