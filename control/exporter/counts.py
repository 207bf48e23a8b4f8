"""A worker's figures as series of the catalogue, so that those of several processes add up.

Pure. Everything in `counters` only ever grows while a process lives; `gauges` is what holds now.
"""

from collections.abc import Iterable, Mapping

from aegis import metrics
from aegis.figures import (
    CONNECT_BOUNDS_S,
    HANDSHAKE_BOUNDS_S,
    REPLY_BOUNDS_S,
    SESSION_BOUNDS_S,
    TURN_BOUNDS_S,
    WAIT_BOUNDS_S,
    Figures,
    Histogram,
    ListenerFigures,
    PoolFigures,
    ServerFigures,
    TlsFigures,
)
from aegis.lifecycle import CLOSE_REASONS
from aegis.limits import MAX_WORKERS
from aegis.messages import Supervision
from aegis.metrics import Metric

Series = tuple[Metric, tuple[str, ...]]
"""A metric and the values of its labels, in their order."""

Counts = dict[Series, tuple[float, ...]]
"""One number per series; for a histogram those of its buckets, not cumulative, then the sum."""

# Series that start with an error's first occurrence hide it from rate(); the usual ones start at 0.
_USUAL_ACCEPT_ERRORS = ("ECONNABORTED", "EMFILE", "ENFILE")
_USUAL_CONNECT_ERRORS = ("ECONNREFUSED", "EHOSTUNREACH", "ETIMEDOUT")
_KINDS = ("malformed", "too_long")
_LOSSES = (
    "server_lost", "unexpected", "protocol_error", "reset_failed", "setup_failed", "setup_timeout",
    "reply_timeout", "abandoned", "server_down", "drain_deadline", "error",
)  # fmt: skip
_USUAL_FAILURES = ("connect", "server_reset", "server_lost", "reply_timeout")


def is_well_formed(figures: Figures) -> bool:
    """Whether lists have the lengths and the slot the range that types cannot tell."""
    histograms: list[tuple[Histogram, tuple[float, ...]]]
    histograms = [(figures.turn_seconds, TURN_BOUNDS_S)]
    histograms += [(each.session_seconds, SESSION_BOUNDS_S) for each in figures.listeners]
    histograms += [(each.connect_seconds, CONNECT_BOUNDS_S) for each in figures.servers]
    handshakes = [*figures.client_tls, *figures.server_tls]
    histograms += [(each.seconds, HANDSHAKE_BOUNDS_S) for each in handshakes]
    histograms += [(each.first_byte_seconds, REPLY_BOUNDS_S) for each in figures.servers]
    histograms += [(each.wait_seconds, WAIT_BOUNDS_S) for each in figures.backends]
    for pool in figures.pools:
        histograms += [(each, REPLY_BOUNDS_S) for each in pool.reply_seconds.values()]
    return (
        0 <= figures.slot < MAX_WORKERS
        and len(figures.cpu_seconds) == 2
        and all(len(listener.bytes) == 2 for listener in figures.listeners)
        and all(len(each.buckets) == len(bounds) + 1 for each, bounds in histograms)
    )


def states_are_well_formed(supervision: Supervision) -> bool:
    """The same of what the controller says of servers."""
    servers = (server for backend in supervision.backends for server in backend.servers)
    return all(len(s.figures.seconds.buckets) == len(CONNECT_BOUNDS_S) + 1 for s in servers)


def add(total: Counts, more: Mapping[Series, tuple[float, ...]]) -> None:
    """Add to `total` in place."""
    for series, numbers in more.items():
        old = total.get(series)
        if old is None:
            total[series] = numbers
        else:
            total[series] = tuple(a + b for a, b in zip(old, numbers, strict=True))


def total_of(parts: Iterable[Mapping[Series, tuple[float, ...]]]) -> Counts:
    """Return the sum of all parts."""
    total: Counts = {}
    for part in parts:
        add(total, part)
    return total


def counters(figures: Figures) -> Counts:
    """Return what one process has counted since it started."""
    worker = str(figures.slot)
    parts = [_of_listener(worker, listener) for listener in figures.listeners]
    parts += [_of_server(worker, server) for server in figures.servers]
    parts += [_of_pool(worker, pool) for pool in figures.pools]
    for tls in figures.client_tls:
        parts.append(_of_tls(worker, tls, metrics.CLIENT_TLS_SECONDS, metrics.CLIENT_TLS_ERRORS))
    for tls in figures.server_tls:
        parts.append(_of_tls(worker, tls, metrics.SERVER_TLS_SECONDS, metrics.SERVER_TLS_ERRORS))
    parts += [
        {(metrics.WAIT_SECONDS, (worker, each.backend)): of_histogram(each.wait_seconds)}
        for each in figures.backends
    ]
    parts.append(
        {
            (metrics.SESSIONS_CUT, (worker,)): (figures.cut,),
            (metrics.ACCEPT_PAUSES, (worker,)): (figures.accept_pauses,),
            (metrics.SLAB_SHORTAGES, (worker,)): (figures.slab_shortages,),
            (metrics.SPLICED_BYTES, (worker,)): (figures.spliced_bytes,),
            (metrics.TURN_SECONDS, (worker,)): of_histogram(figures.turn_seconds),
            (metrics.BUS_DROPPED, (worker,)): (figures.bus_drops,),
            (metrics.CPU_SECONDS, (worker, "user")): (figures.cpu_seconds[0],),
            (metrics.CPU_SECONDS, (worker, "system")): (figures.cpu_seconds[1],),
            (metrics.SESSION_LOG_DROPPED, (worker,)): (figures.session_log_drops,),
        }
    )
    parts += [
        {(metrics.BUS_ERRORS, (worker, why)): (count,)} for why, count in figures.bus_errors.items()
    ]
    return total_of(parts)


def gauges(figures: Figures) -> Counts:
    """Return what one process has now; the longest turn is not here, it does not add up."""
    worker = str(figures.slot)
    parts: list[Counts] = [
        {(metrics.SLABS, (worker,)): (figures.slabs,)},
        {(metrics.SLABS_USED, (worker,)): (figures.slabs_used,)},
        {(metrics.KERNEL_PIPES_USED, (worker,)): (figures.kernel_pipes_used,)},
        {(metrics.MEMORY, (worker,)): (figures.memory_bytes,)},
    ]
    parts += [
        {(metrics.SESSIONS_ACTIVE, (worker, listener.name)): (listener.sessions,)}
        for listener in figures.listeners
    ]
    parts += [
        {(metrics.CONNECTIONS, (worker, server.backend, server.address)): (server.connections,)}
        for server in figures.servers
    ]
    for backend in figures.backends:
        of_backend = (worker, backend.backend)
        parts.append({(metrics.BACKEND_BUSY, of_backend): (backend.busy,)})
        parts.append({(metrics.BACKEND_WAITING, of_backend): (backend.waiting,)})
    for limit in figures.limits:
        parts.append({(metrics.LIMIT_SESSIONS, (worker, limit.name)): (limit.open,)})
        parts.append({(metrics.LIMIT_WAITING, (worker, limit.name)): (limit.waiting,)})
    for pool in figures.pools:
        labels = (worker, pool.backend, pool.protocol)
        parts.append({(metrics.IN_FLIGHT, labels): (pool.in_flight,)})
        for state, count in pool.pipes.items():
            parts.append({(metrics.PIPES, (*labels, state)): (count,)})
    return total_of(parts)


def _of_pool(worker: str, pool: PoolFigures) -> Counts:
    labels = (worker, pool.backend, pool.protocol)
    counts: Counts = {
        (metrics.PIPES_OPENED, labels): (pool.opened,),
        (metrics.REQUESTS, labels): (pool.requests,),
        (metrics.POOL_HITS, labels): (pool.hits,),
        (metrics.POOL_MISSES, labels): (pool.misses,),
    }
    for server, histogram in pool.reply_seconds.items():
        of_server = (worker, pool.backend, server, pool.protocol)
        counts[metrics.REPLY_SECONDS, of_server] = of_histogram(histogram)
    for sender, kinds in pool.errors.items():
        for kind, count in (dict.fromkeys(_KINDS, 0) | kinds).items():
            counts[metrics.FRAMER_ERRORS, (*labels, sender, kind)] = (count,)
    for why, count in (dict.fromkeys(_LOSSES, 0) | pool.losses).items():
        counts[metrics.PIPES_LOST, (*labels, why)] = (count,)
    for why, count in pool.pins.items():
        counts[metrics.PINS, (*labels, why)] = (count,)
    return counts


def _of_listener(worker: str, listener: ListenerFigures) -> Counts:
    labels = (worker, listener.name)
    closed = dict.fromkeys(CLOSE_REASONS, 0) | listener.closed
    errors = dict.fromkeys(_USUAL_ACCEPT_ERRORS, 0) | listener.accept_errors
    counts: Counts = {
        (metrics.SESSIONS, labels): (listener.accepted,),
        (metrics.SESSION_SECONDS, labels): of_histogram(listener.session_seconds),
        (metrics.RECEIVED, (*labels, "client")): (listener.bytes[0],),
        (metrics.RECEIVED, (*labels, "server")): (listener.bytes[1],),
    }
    for reason, count in closed.items():
        counts[metrics.SESSIONS_CLOSED, (*labels, reason)] = (count,)
    for error, count in errors.items():
        counts[metrics.ACCEPT_ERRORS, (*labels, error)] = (count,)
    return counts


def _of_server(worker: str, server: ServerFigures) -> Counts:
    labels = (worker, server.backend, server.address)
    errors = dict.fromkeys(_USUAL_CONNECT_ERRORS, 0) | server.connect_errors
    counts: Counts = {
        (metrics.CONNECTS, labels): (server.connects,),
        (metrics.CONNECT_SECONDS, labels): of_histogram(server.connect_seconds),
        (metrics.FIRST_BYTE_SECONDS, labels): of_histogram(server.first_byte_seconds),
    }
    for error, count in errors.items():
        counts[metrics.CONNECT_ERRORS, (*labels, error)] = (count,)
    for failure, count in (dict.fromkeys(_USUAL_FAILURES, 0) | server.failures).items():
        counts[metrics.SERVER_FAILURES, (*labels, failure)] = (count,)
    return counts


def _of_tls(worker: str, tls: TlsFigures, seconds: Metric, errors: Metric) -> Counts:
    counts: Counts = {(seconds, (worker, tls.name)): of_histogram(tls.seconds)}
    for reason, count in tls.errors.items():
        counts[errors, (worker, tls.name, reason)] = (count,)
    return counts


def of_histogram(histogram: Histogram) -> tuple[float, ...]:
    """Return the numbers of a histogram's series."""
    return (*histogram.buckets, histogram.sum_s)
