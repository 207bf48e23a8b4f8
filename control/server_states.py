"""What the controller says of servers: to the exporter, and to whoever asks for its status."""

from collections.abc import Iterable
from time import monotonic

from aegis.figures import Figures, ServerFigures
from aegis.limits import WEIGHT_UNIT
from aegis.messages import (
    BackendState,
    ServerState,
)
from aegis.status_messages import (
    BackendStatus,
    ServerStatus,
)
from control.known_backend import KnownBackend
from control.known_server import KnownServer
from control.servers import Servers


def server_states(servers: Servers) -> list[BackendState]:
    """Return all backends for the exporter."""
    return [
        BackendState(
            name=backend.conf.name,
            panic=backend.panic,
            panics=backend.panics,
            servers=[_state(backend, server) for server in backend.servers.values()],
            max_connections=servers.limits.get(backend.conf.name, 0),
        )
        for backend in servers.backends.values()
    ]


def _state(backend: KnownBackend, server: KnownServer) -> ServerState:
    return ServerState(
        backend=server.backend,
        address=server.conf.address,
        name=server.name,
        admin=server.override.admin,
        health=server.health,
        since=server.since,
        why=server.why,
        healthy=server.healthy,
        weight=backend.weight_of(server, monotonic()) / WEIGHT_UNIT,
        backup=server.conf.backup,
        figures=server.figures,
    )


def backend_statuses(servers: Servers, figures: Iterable[Figures]) -> list[BackendStatus]:
    """Return all backends for a Status; sums are over the workers' figures."""
    rows: dict[str, list[ServerFigures]] = {}
    for each in figures:
        for row in each.servers:
            rows.setdefault(f"{row.backend}/{row.address}", []).append(row)
    return [
        BackendStatus(
            name=backend.conf.name,
            balance=backend.conf.balance,
            servers=[
                _status(backend, server, rows.get(server.key, []))
                for server in backend.servers.values()
            ],
            panic=backend.panic,
            discovery=backend.discovery,
        )
        for backend in servers.backends.values()
    ]


def _status(backend: KnownBackend, server: KnownServer, rows: list[ServerFigures]) -> ServerStatus:
    now, override = monotonic(), server.override
    failures: dict[str, int] = {}
    for row in rows:
        for kind, count in row.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    overridden = ["admin"] if override.admin != "ready" else []
    overridden += ["weight"] if override.weight is not None else []
    return ServerStatus(
        address=server.conf.address,
        connections=sum(row.connections for row in rows),
        connects_total=sum(row.connects for row in rows),
        connect_errors_total=sum(sum(row.connect_errors.values()) for row in rows),
        drained=override.admin != "ready",
        name=server.name,
        admin=override.admin,
        health=server.health,
        since=server.since,
        why=server.why,
        weight=server.weight,
        effective_weight=backend.weight_of(server, now) / WEIGHT_UNIT,
        backup=server.conf.backup,
        max_connections=server.conf.max_connections,
        overridden=overridden,
        failures_total=failures,
        checks_total=server.figures.checks,
        ejected_for_s=max(0.0, server.ejected_until - now) if server.ejected_until else 0.0,
    )
