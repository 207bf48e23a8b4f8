"""Sessions and limits as operators see them at run time: what is asked, and what is answered.

aegis-ctl ─ListSessions▶ controller ─Desired.look▶ workers ─Report.found▶ controller
└──────FetchSessions─────────────────────────────────────────────────▶ SessionList
aegis-ctl ─KillSession─▶ controller ─Desired.kills▶ the worker whose session it is
"""

from typing import Literal

import msgspec

SessionState = Literal["asked", "dialling", "relaying", "closing", "idle", "busy"]
"""asked: at its listener's door. relaying: without sharing. idle, busy: shares pipes."""


class LimitStatus(msgspec.Struct, frozen=True):
    """One limit of the configuration in a Status, summed over the workers now alive."""

    key: str
    """Where it is set: `max_sessions`, or LISTENER.KEY, or BACKEND.max_connections."""
    limit: float
    used: int | None
    """None: each client has its own use of it."""
    waiting: int
    """Clients that wait for a place."""
    refused: int


class Look(msgspec.Struct, frozen=True):
    """Which sessions are asked for."""

    number: int
    """An epoch: greater than any that this controller has asked with before."""
    most: int
    """Each worker tells of so many, the oldest."""
    listener: str = ""
    """Only of this one; empty: of all."""
    session: str = ""
    """Only this one; empty: all."""
    at: float = 0.0
    """Instant from which ages are counted, the same for all workers."""


class SessionRow(msgspec.Struct, frozen=True):
    """One session."""

    id: str
    """Unique while its worker lives."""
    worker: int
    """Slot."""
    listener: str
    client: str
    server: str
    """Empty if it has none at the moment."""
    age_s: float
    state: SessionState
    bytes: tuple[int, int] | None
    """[from client, from server]; None where nobody counts them for each session."""


class Found(msgspec.Struct, frozen=True):
    """What a worker tells for a Look."""

    number: int
    total: int
    """How many there are; `rows` may be fewer."""
    rows: list[SessionRow]


class ListSessions(msgspec.Struct, frozen=True, tag="list_sessions"):
    """Have all workers tell of their sessions; accepted with the number to fetch it by."""

    most: int
    listener: str = ""
    session: str = ""


class FetchSessions(msgspec.Struct, frozen=True, tag="fetch_sessions"):
    """Ask for what has been told so far."""

    number: int


class KillSession(msgspec.Struct, frozen=True, tag="kill_session"):
    """End a session; whoever it serves is reset."""

    session: str


class SessionList(msgspec.Struct, frozen=True, tag="session_list"):
    """Sessions of all workers, the oldest first."""

    total: int
    rows: list[SessionRow]
    silent: list[int] = []
    """Pids of workers that have not told yet."""


SessionRequest = ListSessions | FetchSessions | KillSession
