"""What is: the status of the whole proxy, put together from the seats and the last reports."""

from aegis.config import Config
from aegis.figures import Figures
from aegis.lifecycle import ProxyPhase
from aegis.messages import (
    BackendStatus,
    ControllerStatus,
    ExporterStatus,
    ListenerStatus,
    ServerStatus,
    Status,
    WorkerStatus,
)
from control.process import Process
from control.seat import Seat
from control.supervisor import Supervisor


def proxy_phase(supervisor: Supervisor, *, has_served: bool) -> ProxyPhase:
    """Return the phase of the whole: `starting` until every slot has served once."""
    if supervisor.goal == "stopped":
        return "stopping"
    phases = [
        seat.current.report.figures.phase if seat.current and seat.current.report else "starting"
        for seat in supervisor.seats
    ]
    if supervisor.goal == "drained":
        phases += ["draining" for seat in supervisor.seats if seat.retiring]
        return "drained" if all(phase == "drained" for phase in phases) else "draining"
    serving = any if has_served else all
    return "serving" if serving(phase == "serving" for phase in phases) else "starting"


def build_status(
    supervisor: Supervisor,
    exporter: Seat | None,
    controller: ControllerStatus,
    phase: ProxyPhase,
    epoch: int,
) -> Status:
    """Return what `aegis-ctl status` shows; sums are over the workers now alive."""
    reports = [process.report for process in supervisor.processes if process.report is not None]
    figures = [report.figures for report in reports]
    config = supervisor.config
    return Status(
        phase=phase,
        epoch=epoch,
        controller=controller,
        exporter=_exporter(exporter, config) if exporter is not None else None,
        workers=[worker for seat in supervisor.seats for worker in _workers(supervisor, seat)],
        listeners=_listeners(config, figures),
        backends=_backends(config, figures),
    )


def _exporter(seat: Seat, config: Config) -> ExporterStatus:
    return ExporterStatus(
        pid=seat.current.pid if seat.current else None,
        bind=config.metrics.bind,
        state=seat.state,
        restarts=seat.restarts,
    )


def _workers(supervisor: Supervisor, seat: Seat) -> list[WorkerStatus]:
    """Return the seat's worker, or its absence, then those that are retired."""
    rows: list[Process | None] = [seat.current, *seat.retiring]
    workers = []
    for process in rows:
        report = process.report if process is not None else None
        workers.append(
            WorkerStatus(
                slot=seat.slot,
                pid=process.pid if process is not None else None,
                cpu=report.cpu if report is not None else supervisor.cpus[seat.slot],
                phase=report.figures.phase if report is not None else "starting",
                state=seat.state,
                epoch=report.epoch if report is not None else 0,
                controller=report.controller if report is not None else 0,
                restarts=seat.restarts,
                sessions=report.figures.sessions if report is not None else 0,
                slabs_used=report.figures.slabs_used if report is not None else 0,
                cut=report.figures.cut if report is not None else 0,
                retired=process is not None and process is not seat.current,
                last_exit=seat.last_exit,
            )
        )
    return workers


def _listeners(config: Config, figures: list[Figures]) -> list[ListenerStatus]:
    rows = [row for each in figures for row in each.listeners]
    return [
        ListenerStatus(
            name=listener.name,
            bind=listener.bind,
            backend=listener.backend,
            protocol=listener.protocol,
            pooling=listener.pooling,
            sessions=sum(row.sessions for row in rows if row.name == listener.name),
            sessions_total=sum(row.accepted for row in rows if row.name == listener.name),
        )
        for listener in config.listeners
    ]


def _backends(config: Config, figures: list[Figures]) -> list[BackendStatus]:
    rows = [row for each in figures for row in each.servers]
    return [
        BackendStatus(
            name=backend.name,
            balance=backend.balance,
            servers=[
                ServerStatus(
                    address=address,
                    connections=sum(row.connections for row in of_server),
                    connects_total=sum(row.connects for row in of_server),
                    connect_errors_total=sum(sum(r.connect_errors.values()) for r in of_server),
                )
                for address in backend.servers
                for of_server in [
                    [r for r in rows if (r.backend, r.address) == (backend.name, address)]
                ]
            ],
        )
        for backend in config.backends
    ]
