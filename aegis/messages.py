"""Every message on the bus: msgspec tagged structs in msgpack, and who sends which to whom.

    controller ──PUB  commands──▶ workers      Desired
    workers    ──PUSH reports───▶ controller   Report
    workers    ──PUSH telemetry─▶ exporter     Figures
    workers    ──PUSH sessions──▶ exporter     SessionBatch (aegis/session_records.py)
    controller ──PUSH telemetry─▶ exporter     Supervision
    aegis-ctl  ──REQ  requests──▶ controller   Request → Reply

Instants are CLOCK_MONOTONIC seconds, which all processes of one machine share (clock_gettime(2)),
so a command that arrives late or twice still means the same moment.
"""

from typing import Literal

import msgspec

from aegis.config import Config
from aegis.figures import CheckFigures, Figures
from aegis.lifecycle import Admin, Goal, ProxyPhase, SeatState, ServerHealth
from aegis.limits import WEIGHT_UNIT
from aegis.session_messages import Found, Look, SessionList, SessionRequest
from aegis.status_messages import Cut, Status


class ServerWish(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server of a backend as a worker is to treat it."""

    address: str
    """As `Address.text` has it: who has the same is the same server."""
    weight: int = WEIGHT_UNIT
    """Its part of new sessions beside the other servers'; 0: it gets nobody new."""
    backup: bool = False
    """It gets sessions only while no other server of the backend may."""
    cut_at: float = 0.0
    """Instant at which what it still has is cut; 0 = never."""
    observed: bool = False
    """Whether its first word in each session is noted: for outlier detection."""
    reset: bool = False
    """It is down: what is cut is reset, so that nobody takes it for a clean end."""


ServerWishes = dict[str, list[ServerWish]]
"""Backend → its servers, in the configuration's order. A backend that is missing has servers that
are not known yet: its clients wait."""


def listener_limit(name: str = "") -> str:
    """Return the name of a limit of sessions: of a listener, or of all together.

    No backend's and no server's limit is called so: names have no colon, servers have a slash.
    """
    return f"listener:{name}"


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """What a worker is told once, on its standard input, when it starts."""

    slot: int
    cpu: int
    runtime_dir: str
    config: Config
    goal: Goal
    """What to be at first: who replaces a drained worker must not open the doors."""
    listeners: dict[str, int]
    """Listener name → inherited fd of this slot's listening socket."""
    servers: ServerWishes = {}
    shares: dict[str, int] = {}
    """Backend, or BACKEND/ADDRESS → how many connections this worker may have, where there is a
    limit; `listener_limit` → how many sessions."""
    tls: str = ""
    """Fingerprint of the files with certificates and keys (aegis/tls.py)."""
    elsewhere: list[str] = []
    """Listeners from which only the worker of slot 0 accepts, which is another."""
    drained_listeners: list[str] = []
    """Listeners that refuse clients although the goal is to serve."""
    generation: int = 0
    """Raised by what replaces workers of the same configuration: upgrade, reload --force."""
    controller: int = 0
    """Pid of the parent: a worker that has another one by then is an orphan nobody knows of."""
    workers: int = 1
    """How many workers there are: what is stated for the whole proxy is divided by it."""


class Desired(msgspec.Struct, frozen=True, tag="desired"):
    """The whole desired state; published on every change and once a second."""

    controller: int
    """Pid of the controller that publishes: epochs of different controllers do not compare."""
    epoch: int
    goal: Goal
    deadline: float
    """Instant at which sessions that still drain are cut; 0 while the goal is `serving`."""
    since: float = 0.0
    """Instant at which the controller began; with the epoch it says which of two states is older.
    0 of a controller that does not tell."""
    servers: ServerWishes = {}
    shares: dict[int, dict[str, int]] = {}
    """Pid → backend, or BACKEND/ADDRESS → how many connections the worker may have, where there is
    a limit; `listener_limit` → how many sessions."""
    tls: str = ""
    """Fingerprint of the files with certificates and keys; a worker that goes by another reads them
    again. Empty: nobody has looked."""
    workers: int = 0
    """How many workers there are, which may have changed since a worker's Boot; 0: as it was."""
    retired: dict[int, float] = {}
    """Pid of each worker that is to leave its slot → instant at which it cuts the rest."""
    closing: dict[int, list[str]] = {}
    """Pid of a retired worker → listeners whose sockets nobody else accepts from: it turns new
    clients away, accepts all that wait, and shuts them down."""
    doors_close_at: float = 0.0
    """Instant at which a drain stops accepting; until then it is a lame duck."""
    drained_listeners: dict[str, float] = {}
    """Listener that refuses new clients → instant at which its sessions are cut."""
    look: Look | None = None
    """Sessions that each worker tells of, once."""
    kills: dict[int, list[str]] = {}
    """Pid → ids of sessions that the worker is to end."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """What a worker says of itself once a second and at every change of phase."""

    controller: int
    """Pid of the controller whose epoch was applied last; 0 before the first."""
    epoch: int
    config: str
    """Digest of the configuration the worker was started with."""
    fds: dict[str, int]
    """Listener name → fd of its socket in the worker, for a new controller to take over."""
    figures: Figures
    generation: int = 0
    """As it was told in its Boot."""
    leaves_by: float = 0.0
    """Once it has left its slot: instant at which it cuts what is left."""
    cuts: list[Cut] = []
    """The last CUTS_LISTED sessions that a deadline ended here."""
    found: Found | None = None
    """The answer to Desired.look, in one report."""


class SeatFigures(msgspec.Struct, frozen=True):
    """One slot, or the exporter (slot -1), as its supervisor sees it."""

    slot: int
    state: SeatState
    restarts: int
    epoch: int | None = None
    """The last that its worker has reported as applied; None when there is no such report."""


class ServerState(msgspec.Struct, frozen=True):
    """One server as the controller sees it."""

    backend: str
    address: str
    name: str
    admin: Admin
    health: ServerHealth
    since: float
    """Unix time of the last change of health; 0: there was none."""
    why: str
    """What was wrong when it changed for the worse."""
    healthy: bool
    """Whether it may have sessions, as far as health and ejection go."""
    weight: float
    """What is left of its weight: 0 when it gets no sessions."""
    backup: bool
    figures: CheckFigures


class BackendState(msgspec.Struct, frozen=True):
    """One backend as the controller sees it."""

    name: str
    panic: bool
    """So few servers are healthy that health is ignored."""
    panics: int
    """How often that has begun."""
    servers: list[ServerState]
    max_connections: int = 0
    """Of all workers together; 0: no limit."""


class Supervision(msgspec.Struct, frozen=True, tag="supervision"):
    """What the controller tells the exporter once a second."""

    phase: ProxyPhase
    epoch: int
    seats: list[SeatFigures]
    backends: list[BackendState] = []
    since: float = 0.0
    """Instant at which the controller began."""
    workers: list[int] = []
    """Pids of all workers that live, those that are retired included."""
    ignored: dict[str, dict[str, int]] = {}
    """Socket of the controller → why → how many messages it has ignored, or peers turned away."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Read the configuration file again and replace what it has changed."""

    force: bool = False
    """Replace every worker although nothing has changed."""


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """Have so many workers."""

    workers: int


class Upgrade(msgspec.Struct, frozen=True, tag="upgrade"):
    """Let the controller re-execute itself and replace every worker."""

    executable: str
    """Python of the new code."""


class StatusRequest(msgspec.Struct, frozen=True, tag="status"):
    """Ask for a Status."""


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """Serve again after a drain; nothing changes when Aegis serves already."""

    listener: str | None = None
    """Only this listener."""
    server: str | None = None
    """Only this server, as BACKEND/SERVER."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Refuse new sessions, let the others finish; the processes stay."""

    timeout_s: float | None = None
    """None: the configuration's drain_timeout_s."""
    listener: str | None = None
    """Only this listener."""
    server: str | None = None
    """Only this server, as BACKEND/SERVER."""


class SetServer(msgspec.Struct, frozen=True, tag="set_server"):
    """Override what the configuration says of a server."""

    server: str
    """BACKEND/SERVER, a name or an address."""
    admin: Admin | None = None
    """None: as it is."""
    weight: int | None = None
    """None: as it is; -1: the configuration's again."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Drain, then exit."""

    now: bool = False
    timeout_s: float | None = None


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The request is the desired state from this epoch on."""

    epoch: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request was not understood or not possible; nothing has changed."""

    why: str


Request = (
    StatusRequest | Resume | Drain | SetServer | Stop | Reload | Scale | Upgrade | SessionRequest
)
Reply = Status | Accepted | Refused | SessionList
Telemetry = Figures | Supervision
SocketName = Literal["commands", "reports", "requests", "telemetry", "sessions"]
