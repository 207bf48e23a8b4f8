"""From snapshots to pictures, one a second: what is now, and how fast things happen.

    Snapshot ─▶ Rates (per process) ─▶ Table (whole proxy) ─▶ Picture
                  └─▶ Lately: quantiles of the last seconds ──┘

Used by one thread; remembers of the past only what rates and quantiles need.
"""

from importlib.metadata import version
from typing import NamedTuple

from aegis import metrics
from aegis.limits import CONNECT_WINDOW_S, QUANTILE_WINDOW_S
from aegis.messages import BackendState, SeatFigures, ServerState
from control.exporter.counts import gauges, total_of
from control.exporter.findings import Board
from control.exporter.lately import Lately
from control.exporter.picture import (
    Backend,
    Lane,
    Picture,
    Pool,
    Server,
    Traffic,
)
from control.exporter.rates import HISTOGRAMS, Rates, Table, whole
from control.exporter.readiness import why_not_ready, why_unhealthy
from control.exporter.servers import ServerHealth
from control.exporter.state import Heard, Snapshot

LATENCIES = tuple(sorted(HISTOGRAMS, key=lambda metric: metric is not metrics.REPLY_SECONDS))
"""Replies first, then in the catalogue's order."""

_ANSWERS = (metrics.REPLY_SECONDS, metrics.FIRST_BYTE_SECONDS)
"""How long a server took, on pipes and without."""

_PLAIN_ENDS = {"client_eof", "server_eof"}


class _Tables(NamedTuple):
    """The whole proxy: per second, now, and so far."""

    per_s: Table
    have: Table
    counted: Table
    due_s: dict[tuple[str, str], float]
    """(backend, server) → for how long its oldest reply has been due."""


class Observer:
    """Sees each second once."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._lately = Lately()
        self._health: dict[tuple[str, str], ServerHealth] = {}
        self._board = Board()
        self._version = version("aegis-proxy")

    def look(self, snapshot: Snapshot, now: float, wall: float) -> Picture:
        """Return the picture of now; `now` is monotonic, `wall` Unix time."""
        fresh = snapshot.fresh(now)
        rates = self._rates.advance(fresh, now)
        per_s = whole(rates)
        self._lately.push(self._rates.observed)
        have = Table(total_of(gauges(heard.figures) for heard in fresh))
        counted = Table(total_of(heard.counts for heard in snapshot.processes))
        controller = snapshot.controller(now)
        known = {b.name: b for b in controller.backends} if controller is not None else {}
        backends = self._backends(fresh, known, _Tables(per_s, have, counted, _due_s(fresh)), wall)
        picture = Picture(
            at=wall,
            version=self._version,
            phase=controller.phase if controller is not None else "unknown",
            epoch=controller.epoch if controller is not None else None,
            unhealthy=why_unhealthy(snapshot, now),
            not_ready=why_not_ready(snapshot, now),
            findings=[],
            total=_traffic("", per_s, have),
            latency=[self._lately.quantiles(metric) for metric in LATENCIES],
            workers=_lanes(
                snapshot, fresh, {key: Table(counts) for key, counts in rates.items()}, now
            ),
            listeners=[
                _traffic(name, per_s, have, listener=name)
                for name in sorted(have.by(metrics.SESSIONS_ACTIVE, "listener"))
            ],
            backends=backends,
        )
        picture.findings = self._board.post(picture)
        return picture

    def _backends(
        self,
        fresh: list[Heard],
        known: dict[str, BackendState],
        tables: _Tables,
        wall: float,
    ) -> list[Backend]:
        rows = [row for heard in fresh for row in heard.figures.backends]
        servers: dict[tuple[str, str], ServerState | None]
        servers = {(s.backend, s.address): None for heard in fresh for s in heard.figures.servers}
        servers |= {(s.backend, s.address): s for b in known.values() for s in b.servers}
        pools = {(p.backend, p.protocol): None for heard in fresh for p in heard.figures.pools}
        names = dict.fromkeys([name for name, _ in servers] + [row.backend for row in rows])
        self._health = {key: self._health.get(key, ServerHealth()) for key in servers}
        return [
            Backend(
                name=name,
                open=sum(row.open for row in rows if row.backend == name),
                busy=sum(row.busy for row in rows if row.backend == name),
                waiting=sum(row.waiting for row in rows if row.backend == name),
                longest_wait_s=max(
                    (row.longest_wait_s for row in rows if row.backend == name), default=0.0
                ),
                servers=[
                    self._server(backend, address, state, tables, wall)
                    for (backend, address), state in servers.items()
                    if backend == name
                ],
                pools=[
                    _pool(backend, protocol, tables)
                    for backend, protocol in pools
                    if backend == name
                ],
                panic=name in known and known[name].panic,
                max_connections=(known[name].max_connections or None) if name in known else None,
            )
            for name in names
        ]

    def _server(
        self,
        backend: str,
        address: str,
        state: ServerState | None,
        tables: _Tables,
        wall: float,
    ) -> Server:
        per_s = tables.per_s
        labels = {"backend": backend, "server": address}
        connects = per_s.sum(metrics.CONNECTS, **labels)
        errors = per_s.by(metrics.CONNECT_ERRORS, "error", **labels)
        connections = round(tables.have.sum(metrics.CONNECTIONS, **labels))
        met = self._health[backend, address]
        met.look(wall, connects, errors, connections)
        health, since, error = met.told(state)
        return Server(
            address=address,
            health=health,
            since=since,
            error=error,
            connections=connections,
            connects_per_s=connects,
            errors_per_s=sum(errors.values()),
            connect=self._lately.quantiles(metrics.CONNECT_SECONDS, CONNECT_WINDOW_S, **labels),
            answer=self._lately.of_both("answer", _ANSWERS, QUANTILE_WINDOW_S, **labels),
            name=state.name if state is not None else address,
            weight=state.weight if state is not None else None,
            backup=state is not None and state.backup,
            failed_at=met.failed_at,
            due_s=tables.due_s.get((backend, address), 0.0),
        )


def _due_s(fresh: list[Heard]) -> dict[tuple[str, str], float]:
    due_s: dict[tuple[str, str], float] = {}
    for pool in (pool for heard in fresh for pool in heard.figures.pools):
        for server, seconds in pool.oldest_s.items():
            key = pool.backend, server
            due_s[key] = max(due_s.get(key, 0.0), seconds)
    return due_s


def _pool(backend: str, protocol: str, tables: _Tables) -> Pool:
    per_s, have, counted, _ = tables
    labels = {"backend": backend, "protocol": protocol}
    pins = counted.by(metrics.PINS, "pin", **labels)
    losses = counted.by(metrics.PIPES_LOST, "loss", **labels)
    errors = {
        f"{sender} {kind}": round(count)
        for sender in ("client", "server")
        for kind, count in counted.by(
            metrics.FRAMER_ERRORS, "kind", **labels, **{"from": sender}
        ).items()
        if count
    }
    return Pool(
        protocol=protocol,
        pipes={k: round(v) for k, v in have.by(metrics.PIPES, "pipe", **labels).items()},
        opened_per_s=per_s.sum(metrics.PIPES_OPENED, **labels),
        requests_per_s=_requests(per_s, **labels),
        in_flight=round(have.sum(metrics.IN_FLIGHT, **labels)),
        pins={reason: round(count) for reason, count in pins.items()},
        pins_per_s=per_s.sum(metrics.PINS, **labels),
        losses={reason: round(count) for reason, count in losses.items()},
        losses_per_s=per_s.sum(metrics.PIPES_LOST, **labels),
        errors=errors,
    )


def _requests(per_s: Table, **labels: str) -> float | None:
    """Return requests per second, None where nothing counts requests."""
    rows = [numbers[0] for _, numbers in per_s.rows(metrics.REQUESTS, **labels)]
    return sum(rows) if rows else None


def _traffic(name: str, per_s: Table, have: Table, **labels: str) -> Traffic:
    closed = per_s.by(metrics.SESSIONS_CLOSED, "reason", **labels)
    return Traffic(
        name=name,
        sessions=round(have.sum(metrics.SESSIONS_ACTIVE, **labels)),
        sessions_per_s=per_s.sum(metrics.SESSIONS, **labels),
        requests_per_s=_requests(per_s, **labels),
        from_clients_bytes_per_s=per_s.sum(metrics.RECEIVED, **labels, **{"from": "client"}),
        from_servers_bytes_per_s=per_s.sum(metrics.RECEIVED, **labels, **{"from": "server"}),
        closed_per_s={k: v for k, v in closed.items() if v > 0 and k not in _PLAIN_ENDS},
        accept_errors_per_s=per_s.sum(metrics.ACCEPT_ERRORS, **labels),
    )


def _lanes(
    snapshot: Snapshot, fresh: list[Heard], rates: dict[tuple[int, int], Table], now: float
) -> list[Lane]:
    """Return a lane per process: of each slot the newest first, the retired after it."""
    controller = snapshot.controller(now)
    seats = {seat.slot: seat for seat in controller.seats} if controller is not None else {}
    # A dict keeps the order in which the processes were first heard.
    newest = {heard.figures.slot: heard.figures.pid for heard in fresh}
    lanes = []
    for heard in fresh:
        figures = heard.figures
        per_s = rates.get((figures.slot, figures.pid), Table({}))
        seat = seats.get(figures.slot)
        lanes.append(
            Lane(
                slot=figures.slot,
                pid=figures.pid,
                cpu=figures.cpu,
                phase=figures.phase,
                state=seat.state if seat is not None else None,
                retired=newest[figures.slot] != figures.pid,
                restarts=seat.restarts if seat is not None else None,
                epoch=seat.epoch if seat is not None else None,
                heard_s=now - heard.at,
                load=per_s.sum(metrics.CPU_SECONDS),
                lag_s=figures.longest_turn_s,
                sessions=figures.sessions,
                sessions_per_s=per_s.sum(metrics.SESSIONS),
                memory_bytes=figures.memory_bytes,
                slabs=figures.slabs,
                slabs_used=figures.slabs_used,
                slab_shortages_per_s=per_s.sum(metrics.SLAB_SHORTAGES),
            )
        )
    lanes += [_empty(seat) for slot, seat in seats.items() if slot >= 0 and slot not in newest]
    return sorted(lanes, key=lambda lane: (lane.slot, lane.retired, lane.pid))


def _empty(seat: SeatFigures) -> Lane:
    """Return the lane of a slot whose worker is dead or silent."""
    return Lane(
        slot=seat.slot,
        pid=0,
        cpu=-1,
        phase="silent",
        state=seat.state,
        retired=False,
        restarts=seat.restarts,
        epoch=seat.epoch,
        heard_s=0.0,
        load=0.0,
        lag_s=0.0,
        sessions=0,
        sessions_per_s=0.0,
        memory_bytes=0,
        slabs=0,
        slabs_used=0,
        slab_shortages_per_s=0.0,
    )
