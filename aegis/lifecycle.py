"""The phases of a worker and of the whole proxy, and the reasons for which a session closes.

    worker:  starting ─▶ serving ◀─▶ draining ─▶ drained ─▶ stopped
                            ▲                       │
                            └───────────────────────┘ resume

Draining stops accepting and lets sessions finish until a deadline. A worker that is *retired*
(replaced on its slot) drains without closing the sockets that its successor accepts from.
"""

from typing import Literal, get_args

Phase = Literal["starting", "serving", "draining", "drained", "stopped"]
"""What a worker does; it reports this and nobody else sets it."""

Goal = Literal["serving", "drained", "stopped"]
"""What the controller wants of every worker; the rest a worker passes through on the way."""

ProxyPhase = Literal["starting", "serving", "draining", "drained", "stopping"]
"""The whole proxy, worked out from the goal and from what the workers report."""

SeatState = Literal["running", "backoff", "flapping"]
"""A seat is what the supervisor keeps one process on: a worker's slot or the exporter's."""

Admin = Literal["ready", "drain", "maint"]
"""What an operator wants of a server: sessions, no new ones, or none and no checks either."""

ServerHealth = Literal["unchecked", "up", "down", "ejected"]
"""What the controller holds a server for; `unchecked` ones get sessions unless they were added to a
proxy that runs and are yet to be checked."""

CloseReason = Literal[
    "client_eof",  # the client ended first, then the server: the normal end
    "server_eof",  # the server ended first, then the client: as normal
    "client_reset",
    "server_reset",
    "connect_failed",  # every server that was tried refused or was unreachable
    "connect_timeout",  # the last server that was tried did not answer in time
    "idle_timeout",
    "client_fin_timeout",  # the server had closed its half, the client stayed silent
    "server_fin_timeout",  # the client had closed its half, the server stayed silent
    "queue_full",  # too many clients waited for a connection already
    "queue_timeout",  # waited for a connection in vain
    "server_lost",  # a pipe ended with replies of this client due
    "slow_client",  # held up a pipe that others waited for
    "slow_request",  # half a request was held for longest when the memory for halves was used up
    "protocol_error",  # the client's bytes are not the listener's protocol
    "refused_request",  # the client said quit, or the server refused what it began with (AUTH)
    "drained",  # between two requests, because the worker drains
    "drain_deadline",  # cut when the time for finishing was over, or by `stop --now`
    "server_down",  # reset because its server was marked down
    "access_denied",  # by an access rule of the listener
    "untrusted_proxy",  # is not among those whose PROXY header is believed
    "bad_proxy_header",  # its first bytes are no PROXY header
    "total_limit",  # max_sessions of the whole proxy
    "listener_limit",  # max_sessions of the listener
    "client_limit",  # max_sessions_per_client
    "client_rate",  # accept_rate_per_client
    "first_byte_timeout",  # said nothing, or did not end its PROXY header, hello or handshake
    "tls_failed",  # the handshake
    "frame_too_large",  # a request above max_frame_bytes
    "killed",  # by `aegis-ctl session kill`
    "refused",  # came to a drained unix listener, whose socket cannot be closed and reopened
    "error",  # an errno nobody foresaw; the worker logs it
]
CLOSE_REASONS: tuple[str, ...] = get_args(CloseReason)
