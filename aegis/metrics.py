"""Every metric that the exporter shows, once: name, type, labels, meaning.

The exporter makes its output from this list and `python -m aegis.metrics docs/metrics.md` the table
in that document; a test fails when the document is not what this would write. Names follow
https://prometheus.io/docs/practices/naming/: base units, unit and `_total` last. The name without
`_total` is a name of its own in OpenMetrics, so none may be another metric's.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from aegis.figures import (
    CONNECT_BOUNDS_S,
    HANDSHAKE_BOUNDS_S,
    REPLY_BOUNDS_S,
    SESSION_BOUNDS_S,
    TURN_BOUNDS_S,
    WAIT_BOUNDS_S,
)
from aegis.lifecycle import CLOSE_REASONS, Phase, ProxyPhase, SeatState

_GENERATED = re.compile(r"(<!-- (metrics|labels|buckets) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric. Two are equal when they are the same object: they are keys, all the time."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, in its unit, without +Inf."""

    @property
    def unit(self) -> str:
        """Base unit, empty for what is counted."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""


def _counter(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), meaning)


def _gauge(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, "gauge", tuple(labels.split()), meaning)


LABELS = {
    "worker": "Slot of the worker, from 0. Two processes share one while the old one drains.",
    "listener": "Name of the listener.",
    "backend": "Name of the backend.",
    "server": "Address of the server.",
    "from": "`client` or `server`: who sent the bytes.",
    "reason": "Why a session closed: " + ", ".join(f"`{word}`" for word in CLOSE_REASONS) + ".",
    "protocol": "The listener's protocol.",
    "pipe": "`connecting`, `idle`, `active` (owes replies) or `alone` (one client's).",
    "loss": "`server_lost`, `unexpected` (bytes that nobody was owed), `protocol_error`, "
    "`reset_failed`, `setup_failed`, `setup_timeout`, `reply_timeout`, `abandoned` (all who were "
    "owed a reply had left, and none came), `server_down` (it was marked down), `drain_deadline` "
    "(the time for its drain was over) or `error`.",
    "failure": "`connect`, `server_reset`, or what a pipe was lost for: see `loss`.",
    "result": "Of a check: `ok` or `failed`.",
    "mode": "`user` or `system`.",
    "socket": "Of the bus: `reports`, `requests`, `telemetry` or `sessions`.",
    "why": "`malformed`, `old` (of before what is known), `foreign` (of nobody we know) or "
    "`refused` (a peer that does not speak ZeroMQ or has no known key).",
    "kind": "`malformed`, `too_long`, `http` (on another protocol's listener), `unasked`, or a "
    "word of the protocol's framer: docs/protocols.",
    "pin": "`long_request`, or a word of the protocol's framer: docs/protocols.",
    "error": "Name of the errno, such as `ECONNREFUSED`; `ETIMEDOUT` is our own deadline too.",
    "limit": "`listener:` and the listener's name; without a name, that of all listeners together.",
    "tls": "OpenSSL's reason, such as `CERTIFICATE_VERIFY_FAILED`; `EOF` when the peer left.",
    "phase": "Of a worker: "
    + ", ".join(f"`{word}`" for word in get_args(Phase))
    + "; of the proxy: "
    + ", ".join(f"`{word}`" for word in get_args(ProxyPhase))
    + ".",
    "state": "Of a worker's seat: " + ", ".join(f"`{word}`" for word in get_args(SeatState)) + ".",
    "le": "Upper bound of a histogram's bucket.",
    "version": "Version of Aegis.",
}

# --- sessions --------------------------------------------------------------------------------
SESSIONS_ACTIVE = _gauge(
    "aegis_sessions_active", "worker listener", "Sessions now open, connecting ones included."
)
SESSIONS = _counter("aegis_sessions_total", "worker listener", "Clients accepted.")
SESSIONS_CLOSED = _counter(
    "aegis_sessions_closed_total", "worker listener reason", "Sessions closed, by reason."
)
SESSIONS_CUT = _counter(
    "aegis_sessions_cut_total", "worker", "Sessions that a drain's deadline or stop --now ended."
)
SESSION_SECONDS = Metric(
    "aegis_session_seconds",
    "histogram",
    ("worker", "listener"),
    "Time from accept to close of the sessions that have closed.",
    SESSION_BOUNDS_S,
)
RECEIVED = _counter(
    "aegis_received_bytes_total", "worker listener from", "Bytes read from clients and servers."
)
ACCEPT_ERRORS = _counter(
    "aegis_accept_errors_total", "worker listener error", "Failed accept calls, by errno."
)
ACCEPT_PAUSES = _counter(
    "aegis_accept_pauses_total", "worker", "Pauses in accepting, for want of fds or memory."
)
LIMIT_SESSIONS = _gauge(
    "aegis_limit_sessions", "worker limit", "Sessions now open that a limit of sessions counts."
)
LIMIT_WAITING = _gauge(
    "aegis_limit_waiting", "worker limit", "Clients that wait for a place of such a limit."
)
CLIENT_TLS_SECONDS = Metric(
    "aegis_client_tls_handshake_seconds",
    "histogram",
    ("worker", "listener"),
    "Time that completed handshakes with clients took.",
    HANDSHAKE_BOUNDS_S,
)
CLIENT_TLS_ERRORS = _counter(
    "aegis_client_tls_errors_total", "worker listener tls", "Failed handshakes with clients."
)

# --- servers ---------------------------------------------------------------------------------
SERVER_TLS_SECONDS = Metric(
    "aegis_server_tls_handshake_seconds",
    "histogram",
    ("worker", "backend"),
    "Time that completed handshakes with servers took.",
    HANDSHAKE_BOUNDS_S,
)
SERVER_TLS_ERRORS = _counter(
    "aegis_server_tls_errors_total", "worker backend tls", "Failed handshakes with servers."
)
CONNECTIONS = _gauge(
    "aegis_connections", "worker backend server", "Connections now open or being opened."
)
CONNECTS = _counter(
    "aegis_connects_total", "worker backend server", "Connections that were established."
)
CONNECT_ERRORS = _counter(
    "aegis_connect_errors_total", "worker backend server error", "Failed attempts to connect."
)
CONNECT_SECONDS = Metric(
    "aegis_connect_seconds",
    "histogram",
    ("worker", "backend", "server"),
    "Time that established connections took to connect.",
    CONNECT_BOUNDS_S,
)
FIRST_BYTE_SECONDS = Metric(
    "aegis_first_byte_seconds",
    "histogram",
    ("worker", "backend", "server"),
    "Of sessions without pipes: time from what the client said last, or from the connect where the "
    "server speaks first, to the server's first byte.",
    REPLY_BOUNDS_S,
)

SERVER_FAILURES = _counter(
    "aegis_server_failures_total",
    "worker backend server failure",
    "What spoke against a server: connects that failed, resets, replies that were lost.",
)
SERVER_UP = _gauge(
    "aegis_server_up",
    "backend server",
    "1 when the server may have sessions, by its checks and ejections, else 0.",
)
SERVER_WEIGHT = _gauge(
    "aegis_server_weight",
    "backend server",
    "What is left of the server's weight: 0 when it gets no new sessions, less in slow start.",
)
SERVER_CHECKS = _counter(
    "aegis_server_checks_total", "backend server result", "Checks of the server, by result."
)
SERVER_CHECK_SECONDS = Metric(
    "aegis_server_check_seconds",
    "histogram",
    ("backend", "server"),
    "Time that checks of the server took.",
    CONNECT_BOUNDS_S,
)
SERVER_DOWNS = _counter(
    "aegis_server_downs_total", "backend server", "Times that checks found the server down."
)
SERVER_EJECTIONS = _counter(
    "aegis_server_ejections_total",
    "backend server",
    "Times that the server was ejected for what befell its clients.",
)
BACKEND_PANIC = _gauge(
    "aegis_backend_panic", "backend", "1 while so few servers are healthy that health is ignored."
)
BACKEND_PANICS = _counter(
    "aegis_backend_panics_total", "backend", "Times that health has begun to be ignored."
)

# --- pipes -----------------------------------------------------------------------------------
BACKEND_BUSY = _gauge(
    "aegis_backend_busy", "worker backend", "Connections that serve somebody at this moment."
)
BACKEND_WAITING = _gauge(
    "aegis_backend_waiting", "worker backend", "Clients that wait for a connection."
)
PIPES = _gauge(
    "aegis_pipes", "worker backend protocol pipe", "Pipes by what they do at this moment."
)
PIPES_OPENED = _counter(
    "aegis_pipes_opened_total", "worker backend protocol", "Pipes that were begun to be opened."
)
PIPES_LOST = _counter(
    "aegis_pipes_lost_total",
    "worker backend protocol loss",
    "Pipes that the server ended or that broke the protocol, by how.",
)
REQUESTS = _counter(
    "aegis_requests_total", "worker backend protocol", "Requests sent to servers, by replies owed."
)
REPLY_SECONDS = Metric(
    "aegis_reply_seconds",
    "histogram",
    ("worker", "backend", "server", "protocol"),
    "Of requests on pipes: time from one that was sent on to the end of its reply.",
    REPLY_BOUNDS_S,
)
IN_FLIGHT = _gauge(
    "aegis_requests_in_flight",
    "worker backend protocol",
    "Requests on shared pipes whose reply has not ended, by replies owed.",
)
OLDEST_REPLY = _gauge(
    "aegis_oldest_reply_seconds",
    "worker backend server protocol",
    "For how long the oldest reply has been due that a server owes on shared pipes.",
)
FRAMER_ERRORS = _counter(
    "aegis_framer_errors_total",
    "worker backend protocol from kind",
    "Bytes that are not the protocol: a client's, which is closed, or a server's, whose pipe is.",
)
WAIT_SECONDS = Metric(
    "aegis_backend_wait_seconds",
    "histogram",
    ("worker", "backend"),
    "Time that clients waited who got a connection in the end, with pipes or without.",
    WAIT_BOUNDS_S,
)
POOL_HITS = _counter(
    "aegis_pool_hits_total", "worker backend protocol", "Times a client found a pipe ready."
)
POOL_MISSES = _counter(
    "aegis_pool_misses_total",
    "worker backend protocol",
    "Times a client had to wait for a pipe, or with `warm` to dial.",
)
LONGEST_WAIT = _gauge(
    "aegis_backend_longest_wait_seconds",
    "worker backend",
    "How long the client that waits longest for a connection has waited.",
)
PINS = _counter(
    "aegis_pins_total",
    "worker backend protocol pin",
    "Clients that got a pipe of their own for a while, by what for.",
)

# --- buffers and loop ------------------------------------------------------------------------
SLABS = _gauge("aegis_slabs", "worker", "Buffers that are allocated.")
SLABS_USED = _gauge("aegis_slabs_used", "worker", "Buffers held by flows whose sink is full.")
SLAB_SHORTAGES = _counter(
    "aegis_slab_shortages_total", "worker", "Reads that found no spare buffer and had to wait."
)
KERNEL_PIPES_USED = _gauge(
    "aegis_kernel_pipes_used", "worker", "Kernel pipes held by bulk flows whose sink is full."
)
SPLICED_BYTES = _counter(
    "aegis_spliced_bytes_total", "worker", "Bytes moved by splice(2), which copies none."
)
TURN_SECONDS = Metric(
    "aegis_loop_turn_seconds",
    "histogram",
    ("worker",),
    "Time from one turn's first event to the end of that turn; its count is the loop's turns.",
    TURN_BOUNDS_S,
)
LONGEST_TURN = _gauge(
    "aegis_loop_longest_turn_seconds",
    "worker",
    "Longest turn of the loop in the last second, or how late a timer was: the core was taken.",
)
BUS_DROPPED = _counter(
    "aegis_bus_dropped_total",
    "worker",
    "Reports and telemetry that found no room or no peer, or were longer than 1 MiB.",
)
BUS_ERRORS = _counter(
    "aegis_bus_errors_total", "worker why", "Commands that the worker has ignored."
)

CPU_SECONDS = _counter("aegis_cpu_seconds_total", "worker mode", "CPU time of the worker.")
MEMORY = _gauge("aegis_memory_bytes", "worker", "Resident set size of the slot's processes.")
SESSION_LOG_DROPPED = _counter(
    "aegis_session_log_dropped_total",
    "worker",
    "Closed sessions that are not in the session log, because its writer was behind or absent.",
)

# --- processes -------------------------------------------------------------------------------
WORKER_PHASE = _gauge(
    "aegis_worker_phase", "worker phase", "1 when a process of the slot is in the phase, else 0."
)
WORKER_STATE = _gauge(
    "aegis_worker_state", "worker state", "1 for the state that the controller sees, else 0."
)
WORKER_RESTARTS = _counter(
    "aegis_worker_restarts_total", "worker", "Deaths of the slot's worker that were not asked for."
)
TELEMETRY_AGE = _gauge(
    "aegis_telemetry_age_seconds", "worker", "Time since the exporter last heard of the worker."
)
PHASE = _gauge("aegis_phase", "phase", "1 for the phase of the whole proxy, else 0.")
EPOCH = _gauge("aegis_epoch", "", "Number of the controller's last change of what is wanted.")
WORKER_EPOCH = _gauge(
    "aegis_worker_epoch",
    "worker",
    "Number of the last change that the slot's worker has applied: aegis_epoch, or it is behind.",
)
EXPORTER_RESTARTS = _counter(
    "aegis_exporter_restarts_total", "", "Deaths of the exporter that were not asked for."
)
BUS_IGNORED = _counter(
    "aegis_bus_ignored_total",
    "socket why",
    "What controller (reports, requests) and exporter (telemetry, sessions) have ignored.",
)
SESSION_LOG_WRITTEN = _counter(
    "aegis_session_log_written_total", "", "Sessions that were written to the session log."
)
SESSION_LOG_UNWRITTEN = _counter(
    "aegis_session_log_unwritten_total",
    "",
    "Sessions that could not be written to the session log: disk full, no such directory.",
)
BUILD = Metric("aegis_build_info", "info", ("version",), "Version of the exporter; always 1.")

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def document_text(document: str) -> str:
    """Return the document with its generated tables made anew."""
    tables = {"metrics": _metrics_table(), "labels": _labels_table(), "buckets": _buckets_table()}
    return _GENERATED.sub(lambda m: m[1] + tables[m[2]] + m[3], document)


def _metrics_table() -> str:
    rows = ["| Metric | Type | Unit | Labels | Meaning |", "|---|---|---|---|---|"]
    for metric in CATALOGUE:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        cells = [f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _labels_table() -> str:
    rows = ["| Label | Value |", "|---|---|"]
    rows += [f"| `{label}` | {meaning} |" for label, meaning in LABELS.items()]
    return "\n".join(rows) + "\n"


def _buckets_table() -> str:
    rows = ["| Histogram | Upper bounds in seconds, `+Inf` last |", "|---|---|"]
    rows += [
        f"| `{m.name}` | {' '.join(f'{b:g}' for b in m.bounds)} |" for m in CATALOGUE if m.bounds
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Rewrite the tables of the document that is the only argument."""
    path = Path(sys.argv[1])
    path.write_text(document_text(path.read_text()))


if __name__ == "__main__":
    main()
