"""What is: the status of the whole proxy, put together from the seats and the last reports."""

from aegis.config import Config
from aegis.figures import Figures
from aegis.lifecycle import Phase, ProxyPhase
from aegis.status_messages import (
    ControllerStatus,
    ExporterStatus,
    ListenerStatus,
    Status,
    WorkerStatus,
)
from control.departed import Departed
from control.limit_status import limit_statuses
from control.process import Process
from control.seat import Seat
from control.server_states import backend_statuses
from control.supervisor import Supervisor
from control.wanted import Wanted


def proxy_phase(supervisor: Supervisor, *, has_served: bool) -> ProxyPhase:
    """Return the phase of the whole: `starting` until every slot has served once."""
    if supervisor.goal == "stopped":
        return "stopping"
    if supervisor.goal == "serving":
        phases = [_phase_of(seat.processes) for seat in supervisor.seats]
    else:
        phases = [_phase_of([seat.current] if seat.current else []) for seat in supervisor.seats]
        phases += ["draining" for seat in supervisor.every_seat if seat.retiring]
        phases += ["draining" for seat in supervisor.leaving if seat.current]
        return "drained" if all(phase == "drained" for phase in phases) else "draining"
    serving = any if has_served else all
    return "serving" if serving(phase == "serving" for phase in phases) else "starting"


def _phase_of(processes: list[Process]) -> Phase:
    """Return the phase of a slot: what the best of its workers does."""
    phases = [p.report.figures.phase if p.report else "starting" for p in processes]
    return "serving" if "serving" in phases else phases[-1] if phases else "starting"


def build_status(
    supervisor: Supervisor,
    wanted: Wanted,
    departed: Departed,
    exporter: Seat | None,
    controller: ControllerStatus,
    *,
    phase: ProxyPhase,
    epoch: int,
) -> Status:
    """Return what `aegis-ctl status` shows; sums are over the workers now alive."""
    alive = {process.pid for process in supervisor.processes}
    figures = supervisor.figures
    config = supervisor.config
    return Status(
        phase=phase,
        epoch=epoch,
        controller=controller,
        exporter=_exporter(exporter, config)
        if exporter is not None and config.metrics.bind
        else None,
        workers=[worker for seat in supervisor.every_seat for worker in _workers(supervisor, seat)],
        listeners=_listeners(config, figures, wanted),
        backends=backend_statuses(supervisor.servers, figures),
        limits=limit_statuses(config, figures),
        departed_cut=departed.cut(alive),
        departed_cuts=departed.cuts(alive),
    )


def _exporter(seat: Seat | None, config: Config) -> ExporterStatus | None:
    if seat is None or not config.metrics.bind:
        return None
    return ExporterStatus(
        pid=seat.current.pid if seat.current else None,
        bind=config.metrics.bind,
        state=seat.state,
        restarts=seat.restarts,
    )


def _workers(supervisor: Supervisor, seat: Seat) -> list[WorkerStatus]:
    """Return the seat's worker, or its absence, then those that are retired."""
    rows: list[Process | None] = [seat.current, *seat.retiring]
    if seat in supervisor.leaving:
        rows = [*seat.processes]
    workers = []
    for process in rows:
        report = process.report if process is not None else None
        workers.append(
            WorkerStatus(
                slot=seat.slot,
                pid=process.pid if process is not None else None,
                cpu=report.figures.cpu if report is not None else supervisor.cpu_of(seat.slot),
                phase=_phase_of_one(supervisor, process),
                state=seat.state,
                epoch=report.epoch if report is not None else 0,
                controller=report.controller if report is not None else 0,
                restarts=seat.restarts,
                sessions=report.figures.sessions if report is not None else 0,
                slabs_used=report.figures.slabs_used if report is not None else 0,
                cut=report.figures.cut if report is not None else 0,
                retired=process is not None
                and (process is not seat.current or seat in supervisor.leaving),
                last_exit=seat.last_exit,
                outdated=process is not None and supervisor.is_outdated(process),
                cuts=report.cuts if report is not None else [],
            )
        )
    return workers


def _phase_of_one(supervisor: Supervisor, process: Process | None) -> Phase:
    if process is None and supervisor.goal == "stopped":
        return "stopped"
    report = process.report if process is not None else None
    return report.figures.phase if report is not None else "starting"


def _listeners(config: Config, figures: list[Figures], wanted: Wanted) -> list[ListenerStatus]:
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
            drained=listener.name in wanted.listeners,
        )
        for listener in config.listeners
    ]
