"""What is written of a session that has closed, on its way from a worker to the session log.

    worker ──SessionBatch, PUSH──▶ exporter's log thread ──line──▶ file

Values are HAProxy's, so that who reads its tcplog reads this one: durations in milliseconds, -1 for
what never happened, and a termination code of two characters (HAProxy configuration manual, 8.2.2
and 8.5). Counts are those of one worker: workers share nothing.
"""

import msgspec

from aegis.lifecycle import CLOSE_REASONS, CloseReason

# Who or what ended it (C client, S server, P proxy, R resource, K killed by the operator, D the
# proxy because the server is down, I internal, c client's time-out, s server's), and what was going
# on (R request, Q queue, C connect, D data).
TERMINATIONS: dict[CloseReason, str] = {
    "client_eof": "--",
    "server_eof": "--",
    "client_reset": "CD",
    "server_reset": "SD",
    "connect_failed": "SC",
    "connect_timeout": "sC",
    "idle_timeout": "cD",
    "client_fin_timeout": "cD",
    "server_fin_timeout": "sD",
    "queue_full": "RQ",
    "queue_timeout": "sQ",
    "server_lost": "SD",
    "slow_client": "cD",
    "slow_request": "cR",
    "protocol_error": "PR",
    "refused_request": "PR",
    "drained": "K-",
    "drain_deadline": "KD",
    "server_down": "DD",
    "access_denied": "PR",
    "untrusted_proxy": "PR",
    "bad_proxy_header": "PR",
    "total_limit": "PC",
    "listener_limit": "PC",
    "client_limit": "PC",
    "client_rate": "PC",
    "first_byte_timeout": "cR",
    "tls_failed": "PR",
    "frame_too_large": "PR",
    "killed": "KD",
    "refused": "PC",
    "error": "ID",
}
assert set(TERMINATIONS) == set(CLOSE_REASONS)

# The same for who ended normally, but had lost a reply with its pipe while it waited for that (H):
# by why the pipe was lost, where its server has not simply gone.
_LOST_REPLY = {
    "reply_timeout": "sH",
    "setup_timeout": "sH",
    "protocol_error": "PH",
    "unexpected": "PH",
    "server_down": "DH",
    "drain_deadline": "KH",
    "error": "IH",
}


class SessionRecord(msgspec.Struct, array_like=True):
    """One session, from accept to close; instants are monotonic seconds of the worker."""

    client: str
    """Address, as `host:port`; a unix listener's clients have none."""
    listener: str
    began: float
    reason: CloseReason = "client_eof"
    backend: str = ""
    server: str = ""
    """The last one, by its name in the configuration or its address; empty when there was none."""
    queue_ms: int = -1
    """Waited for a connection: with `multiplex` all waits together."""
    connect_ms: int = -1
    """From the first attempt to the established connection; 0 for who got a pipe."""
    total_ms: int = 0
    client_bytes: int = 0
    """Read from the client."""
    server_bytes: int = 0
    """Read from the server for this client."""
    requests: int = 0
    """Replies that it was owed; 0 unless pipes are shared."""
    retries: int = 0
    """Attempts to connect behind the first."""
    worker_sessions: int = 0
    """Open in the worker when this one closed, itself included."""
    listener_sessions: int = 0
    backend_connections: int = 0
    server_connections: int = 0
    queued_behind: int = 0
    """How many waited for a connection already when it began to wait last."""
    lost: str = ""
    """Why the last reply was lost in whose place the client got an error, as
    `aegis_pipes_lost_total` says it; empty when none was."""


class SessionBatch(msgspec.Struct, tag="sessions"):
    """Some records of one worker."""

    slot: int
    clock_offset: float
    """Seconds to add to an instant to get the time of day (Unix)."""
    records: list[SessionRecord]


def termination(record: SessionRecord) -> str:
    """Return HAProxy's code for how a session ended."""
    code = TERMINATIONS[record.reason]
    if record.lost and code == "--":
        return _LOST_REPLY.get(record.lost, "SH")
    return code
